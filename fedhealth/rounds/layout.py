"""How the vector of each purpose is laid out, and what everybody may know of its sum."""

from dataclasses import asdict, dataclass
from typing import Literal

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
    counted_weight,
    decode_update,
    encode_update,
    largest_weight,
    site_weight,
    update_length,
    update_scale,
)
from fedhealth.errors import PolicyError
from fedhealth.evaluation import pooled_metrics, scores_length
from fedhealth.models.weights import Weights
from fedhealth.rounds.aggregate import PROFILE, Aggregate
from fedhealth.study.columns import asked_columns, feature_columns
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of

COUNT_RING_BITS: Literal[64] = 64
UPDATE_RING_BITS: Literal[32] = 32
"""The one ring for updates that the study language lets through so far (``aggregation.ring_bits``)."""


@dataclass(frozen=True, slots=True)
class SumLayout:
    """Ring and length of one purpose's vector, known to everybody before the sum."""

    ring_bits: Literal[32, 64]
    length: int


def sum_layout(study: Study, purpose: str, *, like: Weights) -> SumLayout:
    """The layout of a purpose: ``moments``, ``profile``, ``evaluation`` or ``update``."""
    if purpose == "moments":
        return SumLayout(COUNT_RING_BITS, statistics_length(feature_columns(study), targets_of(study)))
    if purpose == "profile":
        return SumLayout(COUNT_RING_BITS, profile_length())
    if purpose == "evaluation":
        return SumLayout(COUNT_RING_BITS, scores_length())
    return SumLayout(UPDATE_RING_BITS, update_length(like, lane=has_lane(study)))


def has_lane(study: Study) -> bool:
    """Whether the size weight travels hidden in the sum: only without differential privacy."""
    return study.privacy.mode == "none"


def encode_weighted(
    delta: Weights, study: Study, *, examples: int, declared: float | None, sites: int
) -> NDArray[np.int64]:
    """One site's update as integers: weighted by its declared bucket, or without DP by its hidden size."""
    weight = declared if declared is not None else site_weight(study, examples=examples)
    scale = scale_of(study, sites=sites)
    return encode_update(delta, weight=weight, clip=DELTA_CLIP, scale=scale, lane=has_lane(study))


def scale_of(study: Study, *, sites: int) -> float:
    """The public scale of the fixed-point update."""
    return update_scale(sites=sites, ring_bits=UPDATE_RING_BITS, max_weight=largest_weight(study))


def quantisation_step(study: Study, *, sites: int, total_weight: float) -> float:
    """Largest difference between two neighbouring values of the mean update."""
    return 1.0 / (scale_of(study, sites=sites) * total_weight)


def decode_sum(
    study: Study,
    purpose: str,
    vector: NDArray[np.int64],
    *,
    cohort: tuple[str, ...],
    declared: tuple[float, ...] | None,
    like: Weights,
) -> Aggregate:
    """What an opened sum says, in the form that is published.

    Raises:
      PolicyError: of an outcome too few labels are known, or one class only; or nobody has a feature that is asked for.
    """
    if purpose == "moments":
        return _decode_moments(study, vector)
    if purpose == "profile":
        return Aggregate(tensors={PROFILE: publishable(vector).astype(np.int64)})
    if purpose == "evaluation":
        metrics = pooled_metrics(vector, min_cell=study.evaluation.min_cell)
        return Aggregate(metrics={**asdict(metrics)})
    scale = scale_of(study, sites=len(cohort))
    total = None if declared is None else sum(counted_weight(weight) for weight in declared)
    delta, weight = decode_update(vector, like, scale=scale, total_weight=total)
    return Aggregate(tensors=delta, metrics={"total_weight": weight} if declared is not None else {})


def _decode_moments(study: Study, vector: NDArray[np.int64]) -> Aggregate:
    columns, least = feature_columns(study), study.evaluation.min_cell
    statistics, labels = decode_statistics(vector, columns, targets_of(study), min_cell=least)
    for name, counts in zip(study.outcomes, labels, strict=True):
        _refuse_unlearnable(name, counts, least=least)
    _refuse_absent(study, absent_columns(vector, columns, min_cell=least))
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
