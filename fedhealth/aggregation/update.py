"""A site's update as integers that can be summed in a ring, and the weighted mean that comes out of the sum.

    w_k   weight of site k (examples, or a declared bucket)      delta_k  its change to the weights
    q_k = rint(clip(delta_k) * w_k * scale)                      mean     = sum q_k / (scale * sum w_k)

Without DP the weight itself travels hidden in the sum, as one more entry (the lane); under DP the sites have
declared bucketed weights, so no exact count enters the sum. What is written here is the exact form (`FixedPoint`); a codec
of `fedhealth.compression` may stand in its place.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.weights import Weights, flatten, parameter_count, unflatten
from fedhealth.study.spec import Study

DELTA_CLIP = 1.0
"""Public bound on every single parameter's change in one round."""

MAX_WEIGHT = 8192
"""Largest weight of one site: a larger one counts as this many examples, so that no ring overflows."""


Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Weighted values as integers whose sum fits the ring: multiples of 1 / ``scale`` (from `update_scale`)."""

    scale: float

    def encode(self, values: Floats) -> Integers:
        """The nearest integers, off by at most 0.5 / scale."""
        return np.rint(values * self.scale).astype(np.int64)

    def decode(self, total: Integers) -> Floats:
        """The values that a sum stands for."""
        values: Floats = total.astype(np.float64)
        values /= self.scale
        return values


def update_scale(
    *, sites: int, ring_bits: int, clip: float = DELTA_CLIP, max_weight: int = MAX_WEIGHT
) -> float:
    """The largest power of two with which no sum over ``sites`` updates can leave the ring.

    Guarantees: ``sites * (clip * max_weight * scale + 0.5) < 2^(ring_bits - 1)``; public values only.

    Raises:
      ValueError: no scale of at least 1 exists.
    """
    room = (2.0 ** (ring_bits - 1) / sites - 1.0) / (clip * max_weight)
    if room < 1.0:
        raise ValueError(f"a ring of {ring_bits} bits is too small for {sites} sites")
    return float(min(2.0 ** math.floor(math.log2(room)), 2.0**40))


def site_weight(study: Study, *, examples: float) -> float:
    """What a site counts in the mean: its examples (or its declared bucket), or 1 under uniform weighting."""
    return 1.0 if study.training.weighting == "uniform" else counted_weight(examples)


def largest_weight(study: Study) -> int:
    """The public bound on `site_weight`, for `update_scale`."""
    return 1 if study.training.weighting == "uniform" else MAX_WEIGHT


def update_length(like: Weights, *, lane: bool) -> int:
    """Length of the vector that `encode_update` gives for a model of this shape."""
    return parameter_count(like) + int(lane)


def encode_update(
    delta: Weights, *, weight: float, clip: float, encode: Callable[[Floats], Integers], lane: bool = False
) -> Integers:
    """Clip, weigh and round an update to integers.

    Guarantees: every value that is encoded is within ``clip * min(weight, MAX_WEIGHT)``.

    Args:
      delta: change of the weights.
      weight: examples (without DP) or the declared bucket, > 0.
      clip: bound on each parameter's change, beyond which it is cut.
      encode: from weighted values to integers that may be summed.
      lane: append the weight, rounded to an integer, so that the sum carries the denominator.

    Returns:
      What ``encode`` gives, and the lane.

    Raises:
      ValueError: the weight is not positive, or a value is not finite.
    """
    flat = flatten(delta).astype(np.float64)
    if not (weight > 0 and math.isfinite(weight)) or not np.isfinite(flat).all():
        raise ValueError("an update needs a positive weight and finite values")
    counted = min(weight, float(MAX_WEIGHT))
    if lane:
        counted = max(1.0, float(round(counted)))
    values = encode(np.clip(flat, -clip, clip) * counted)
    return np.append(values, np.int64(counted)) if lane else values


def decode_update(
    sum_vector: Integers,
    like: Weights,
    *,
    decode: Callable[[Integers], Floats],
    total_weight: float | None = None,
) -> tuple[Weights, float]:
    """Turn the signed sum over the survivors into their weighted mean update.

    Args:
      sum_vector: the opened sum, signed.
      like: gives names and shapes.
      decode: the other half of what encoded it.
      total_weight: sum of the survivors' weights, each from `site_weight`; None when the
        vector carries the lane.

    Returns:
      The mean update, and the total weight.

    Raises:
      ValueError: a wrong length, or a total weight that is not positive.
    """
    lane = total_weight is None
    total = float(sum_vector[-1]) if total_weight is None else float(total_weight)
    if not total > 0:
        raise ValueError("the total weight is not positive")
    return unflatten(decode(sum_vector[:-1] if lane else sum_vector) / total, like), total


def counted_weight(weight: float) -> float:
    """What a declared weight counts in the denominator."""
    return min(weight, float(MAX_WEIGHT))


def weighted_mean_plain(deltas: Sequence[Weights], weights: Sequence[float]) -> Weights:
    """The weighted mean in float64, without ring or rounding: what the secure sum is compared with."""
    total = float(sum(weights))
    pairs = zip(deltas, weights, strict=True)
    mean = sum((flatten(delta).astype(np.float64) * weight for delta, weight in pairs), start=np.float64(0))
    return unflatten(np.asarray(mean) / total, deltas[0])
