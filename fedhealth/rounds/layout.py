"""How the vector of each sum is laid out, and what everybody may know of what it comes to."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.profiles import profile_length, publishable
from fedhealth.aggregation.statistics import (
    LabelCounts,
    absent_columns,
    decode_statistics,
    missing_columns,
    statistics_length,
)
from fedhealth.aggregation.update import (
    DELTA_CLIP,
    FixedPoint,
    counted_weight,
    decode_update,
    encode_update,
    largest_weight,
    site_weight,
    update_length,
    update_scale,
)
from fedhealth.aggregation.vocabulary import MIN_SITES, decode_vocabulary, vocabulary_length
from fedhealth.compression.codec import Codec
from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.evaluation import Figures, decode_evaluation, evaluation_length
from fedhealth.models.statistics import Statistics
from fedhealth.models.stepwise import STEPWISE
from fedhealth.models.weights import Weights, flatten
from fedhealth.privacy.noise import NoiseSource
from fedhealth.rounds.aggregate import PROFILE, Aggregate, Levels
from fedhealth.rounds.objects import part_of, trains
from fedhealth.secagg.ntt import SIZE as CIPHER_KEY_LENGTH
from fedhealth.secagg.plan import RingBits
from fedhealth.secagg.tags import LARGEST
from fedhealth.study.columns import FeatureColumn, asked_columns, feature_columns, numeric_columns
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of

COUNT_RING_BITS: RingBits = 64
UPDATE_RING_BITS: RingBits = 32
"""The ring of updates that are summed exactly: all of them, or those before anything is known of their size."""
UPDATE_SD = "update_sd"
"""Of a study that compresses: the standard deviation of an entry of an update's sum, from which the next step follows."""


Vector = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundShape:
    """What everybody knows of a round before its sums, and all layouts follow from.

    Attributes:
      study: of the run.
      purposes: the names of the round's sums.
      model: what travels of the model with which the round opens; none in round 0.
      statistics: the consortium's; None in round 0.
      codec: of the update; None where it is summed exactly.
    """

    study: Study
    purposes: tuple[str, ...]
    model: Weights
    statistics: Statistics | None
    codec: Codec | None = None

    @property
    def subgroups(self) -> tuple[str, ...]:
        """By what metrics are told apart: by nothing while the model is still being trained."""
        return () if trains(self.purposes) else self.study.evaluation.subgroups


@dataclass(frozen=True, slots=True)
class SumLayout:
    """Ring and length of one sum's vector, and its exact lanes: known to everybody before it.

    In mode he ``length`` is that of a key, and ``cipher_length`` that of the vector that it opens; else None.
    """

    ring_bits: RingBits
    length: int
    lanes: int = 0
    cipher_length: int | None = None


def sum_layout(shape: RoundShape, name: str) -> SumLayout:
    """The layout of a sum of a round."""
    purpose, step = part_of(name)
    if purpose == "update":
        return _update_layout(shape)
    return SumLayout(COUNT_RING_BITS, _LENGTHS[purpose](shape, step))


def _update_layout(shape: RoundShape) -> SumLayout:
    """Beside a vector that wraps, the size weight has a lane of its own; else it is the vector's last entry."""
    lane, codec = has_lane(shape.study), shape.codec
    if codec is not None:
        return SumLayout(codec.ring_bits, codec.sent, lanes=int(lane))
    length = update_length(shape.model, lane=lane)
    if shape.study.aggregation.mode == "he":
        return SumLayout(UPDATE_RING_BITS, CIPHER_KEY_LENGTH, cipher_length=length)
    return SumLayout(UPDATE_RING_BITS, length)


def _growth_length(shape: RoundShape, step: int) -> int:
    model = STEPWISE[shape.study.model.kind]
    return model.step_length(shape.study, columns_of(shape), step=step)


_LENGTHS: dict[str, Callable[[RoundShape, int], int]] = {
    "vocabulary": lambda shape, step: vocabulary_length(shape.study),
    "moments": lambda shape, step: statistics_length(numeric_columns(shape.study), targets_of(shape.study)),
    "profile": lambda shape, step: profile_length(),
    "evaluation": lambda shape, step: evaluation_length(targets_of(shape.study), shape.subgroups),
    "personalised": lambda shape, step: evaluation_length(targets_of(shape.study), ()),
    "growth": _growth_length,
}


def columns_of(shape: RoundShape) -> tuple[FeatureColumn, ...]:
    """The columns of the static vector: the numeric ones and, once it is known, the vocabulary's."""
    return feature_columns(shape.study, None if shape.statistics is None else shape.statistics.vocabulary)


def has_lane(study: Study) -> bool:
    """Whether the size weight travels hidden in the sum: only without differential privacy."""
    return study.privacy.mode == "none"


def is_judged(study: Study, purpose: str) -> bool:
    """Whether sketches of a sum's vectors are shown and judged before it is opened: of updates alone."""
    return study.aggregation.robust == "plausibility" and purpose == "update"


def encode_weighted(
    delta: Weights,
    shape: RoundShape,
    *,
    examples: int,
    declared: float | None,
    sites: int,
    rounding: NoiseSource,
) -> Vector:
    """One site's update as integers, the lanes at their end.

    It is weighted by the site's declared bucket, or without DP by its hidden size.
    """
    study, codec = shape.study, shape.codec
    weight = declared if declared is not None else site_weight(study, examples=examples)
    exact = FixedPoint(scale_of(study, sites=sites)).encode
    encode = exact if codec is None else partial(codec.encode, rounding=rounding)
    return encode_update(delta, weight=weight, clip=DELTA_CLIP, encode=encode, lane=has_lane(study))


def scale_of(study: Study, *, sites: int) -> float:
    """The public scale of the exact update."""
    return update_scale(sites=sites, ring_bits=UPDATE_RING_BITS, max_weight=largest_weight(study))


def quantisation_step(study: Study, *, sites: int, total_weight: float) -> float:
    """Largest difference between two neighbouring values of the mean of an exact update."""
    return 1.0 / (scale_of(study, sites=sites) * total_weight)


def decode_sum(
    shape: RoundShape,
    name: str,
    vector: Vector,
    *,
    cohort: tuple[str, ...],
    declared: tuple[float, ...] | None,
) -> Aggregate:
    """What an opened sum says, in the form that is published.

    Args:
      shape: of the round.
      name: of the sum.
      vector: the opened vector, and its lanes behind it.
      cohort: of the plan.
      declared: the survivors' weights; None without differential privacy.

    Raises:
      PolicyError: there is nothing to learn of an outcome, or nobody has a feature that is asked for.
      ProtocolError: no numbers of sites come to this sum. One wrong mask makes noise of it, which has such numbers with
        all but negligible probability.
    """
    purpose, _ = part_of(name)
    if (
        purpose != "update" and max(int(vector.max()), -int(vector.min())) > LARGEST
    ):  # of the ring's integers 15 of 16 are
        raise _impossible(name)
    if purpose == "update":
        return _decode_update(shape, vector, cohort=cohort, declared=declared)
    if purpose == "growth":
        return Aggregate(tensors={name: vector})
    return _DECODERS[purpose](shape, vector)


def _decode_update(
    shape: RoundShape, vector: Vector, *, cohort: tuple[str, ...], declared: tuple[float, ...] | None
) -> Aggregate:
    codec = shape.codec or FixedPoint(scale_of(shape.study, sites=len(cohort)))
    total = None if declared is None else sum(counted_weight(weight) for weight in declared)
    if declared is None and not 0 < int(vector[-1]) <= len(cohort) * largest_weight(shape.study):
        raise _impossible("update")
    delta, weight = decode_update(vector, shape.model, decode=codec.decode, total_weight=total)
    if isinstance(codec, FixedPoint):  # every site clips, and then rounds; what wraps around has no bound
        bound = DELTA_CLIP + len(cohort) / (codec.scale * weight)
        if any(np.abs(values).max(initial=0.0) > bound for values in delta.values()):
            raise _impossible("update")
    of_weight = {"total_weight": weight} if declared is not None else {}
    of_size = {UPDATE_SD: _update_sd(shape, delta, weight)} if shape.study.aggregation.compresses else {}
    return Aggregate(tensors=delta, metrics={**of_weight, **of_size})


def _update_sd(shape: RoundShape, delta: Weights, weight: float) -> float:
    """The standard deviation (about 0) of an entry of the sum, of those that were sent.

    Two digits: next to the mean they tell the total weight, which may be a number of people, no better than to 5 %.
    """
    share = 1.0 if shape.codec is None else shape.codec.sent / shape.codec.length
    values = flatten(delta).astype(np.float64)
    return float(f"{weight * math.sqrt(np.mean(values * values) / share):.2g}")


def _impossible(name: str) -> ProtocolError:
    return ProtocolError(
        f"the sum {name} is noise: no numbers of sites come to it",
        "a site put a wrong mask on its vector; start again without some sites until it is found",
    )


def _decode_vocabulary(shape: RoundShape, vector: Vector) -> Aggregate:
    min_cell = shape.study.evaluation.min_cell
    min_sites = max(shape.study.aggregation.min_sites, MIN_SITES)
    vocabulary, counts = decode_vocabulary(vector, shape.study, min_cell=min_cell, min_sites=min_sites)
    unknown = sorted(name for name, codes in vocabulary.items() if not codes)
    if unknown:
        raise PolicyError(
            f"features.categories {', '.join(unknown)}: no code that at least {min_cell} people at {min_sites} sites have",
            "correct its codes, or remove it",
        )
    return Aggregate(levels=Levels(vocabulary, counts))


def _decode_moments(shape: RoundShape, vector: Vector) -> Aggregate:
    study, columns, targets = shape.study, numeric_columns(shape.study), targets_of(shape.study)
    min_cell = study.evaluation.min_cell
    statistics, labels = decode_statistics(vector, columns, targets, min_cell=min_cell)
    for target, counts in zip(targets, labels, strict=True):
        _refuse_unlearnable(target.name, counts, least=min_cell)
    _refuse_absent(study, absent_columns(vector, columns, min_cell=min_cell))
    return Aggregate(
        tensors={name: getattr(statistics, name) for name in ("mean", "sd", "median", "count")},
        missing_columns=missing_columns(statistics, columns),
    )


def _refuse_unlearnable(outcome: str, counts: LabelCounts, *, least: int) -> None:
    fix = "widen the outcome's window or the cohort, or add sites"
    if counts.people < least:
        raise PolicyError(f"the outcome {outcome} is known of fewer than {least} people in all", fix)
    if counts.has_one_class:
        raise PolicyError(f"the outcome {outcome} has one class only in the whole consortium", fix)


def _refuse_absent(study: Study, absent: tuple[str, ...]) -> None:
    """A feature that the study names itself and no site has is an error; some sites may lack it."""
    asked = asked_columns(study, {})
    for name in (name for name, columns in asked.items() if columns and set(columns) <= set(absent)):
        raise PolicyError(
            f"features.{name}: fewer than {study.evaluation.min_cell} people of the consortium have it",
            "check its codes, unit and window, or remove it",
        )


def _decode_profile(shape: RoundShape, vector: Vector) -> Aggregate:
    return Aggregate(tensors={PROFILE: publishable(vector).astype(np.int64)})


def _decode_evaluation(shape: RoundShape, vector: Vector) -> Aggregate:
    study = shape.study
    found = decode_evaluation(vector, targets_of(study), shape.subgroups, min_cell=study.evaluation.min_cell)
    if trains(shape.purposes):
        return Aggregate(metrics=_of_a_round(found.metrics))
    return Aggregate(metrics=found.metrics, tables=found.tables)


_COUNTING = ("n", "n_positive", "n_events", "accuracy")


def _of_a_round(metrics: Figures) -> dict[str, float | None]:
    """Figures without numbers of people, to three decimals.

    From one round to the next a patient may withdraw or a site be away: the difference of exact figures would be theirs.
    """
    return {
        name: None if value is None else round(value, 3)
        for name, value in metrics.items()
        if name.rpartition(".")[2] not in _COUNTING
    }


def _decode_personalised(shape: RoundShape, vector: Vector) -> Aggregate:
    found = decode_evaluation(vector, targets_of(shape.study), (), min_cell=shape.study.evaluation.min_cell)
    return Aggregate(metrics={f"personalised.{name}": value for name, value in found.metrics.items()})


_DECODERS: dict[str, Callable[[RoundShape, Vector], Aggregate]] = {
    "vocabulary": _decode_vocabulary,
    "moments": _decode_moments,
    "profile": _decode_profile,
    "evaluation": _decode_evaluation,
    "personalised": _decode_personalised,
}
