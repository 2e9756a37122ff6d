"""How the vector of each purpose is laid out, and what everybody may know of its sum."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.statistics import decode_statistics, missing_columns, statistics_length
from fedhealth.aggregation.update import (
    DELTA_CLIP,
    counted_weight,
    decode_update,
    encode_update,
    update_length,
    update_scale,
)
from fedhealth.errors import PolicyError
from fedhealth.evaluation import pooled_metrics, scores_length
from fedhealth.models.networks import initial_weights
from fedhealth.models.weights import Weights
from fedhealth.rounds.aggregate import Aggregate
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study

COUNT_RING_BITS = 64


@dataclass(frozen=True, slots=True)
class SumLayout:
    """Ring and length of one purpose's vector, known to everybody before the sum."""

    ring_bits: int
    length: int


def sum_layout(study: Study, purpose: str, *, like: Weights) -> SumLayout:
    """The layout of a purpose: ``moments``, ``evaluation`` or ``update``."""
    if purpose == "moments":
        return SumLayout(COUNT_RING_BITS, statistics_length(feature_columns(study)))
    if purpose == "evaluation":
        return SumLayout(COUNT_RING_BITS, scores_length())
    return SumLayout(study.aggregation.ring_bits, update_length(like, lane=has_lane(study)))


def shape_of(study: Study) -> Weights:
    """Names and shapes of the study's model, as its initial weights."""
    return initial_weights(study, inputs=len(feature_columns(study)), seed=0)


def has_lane(study: Study) -> bool:
    """Whether the size weight travels hidden in the sum: only without differential privacy."""
    return study.privacy.mode == "none"


def encode_weighted(
    delta: Weights, study: Study, *, examples: int, declared: float | None, sites: int
) -> NDArray[np.int64]:
    """One site's update as integers: weighted by its declared bucket, or without DP by its hidden size."""
    weight = declared if declared is not None else weight_of(study, examples)
    scale = update_scale(sites=sites, ring_bits=study.aggregation.ring_bits)
    return encode_update(delta, weight=weight, clip=DELTA_CLIP, scale=scale, lane=has_lane(study))


def weight_of(study: Study, examples: int) -> float:
    """What a site of so many training rows counts."""
    return float(examples) if study.training.weighting == "examples" else 1.0


def quantisation_step(study: Study, *, sites: int, total_weight: float) -> float:
    """Largest difference between two neighbouring values of the mean update."""
    return 1.0 / (update_scale(sites=sites, ring_bits=study.aggregation.ring_bits) * total_weight)


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
      PolicyError: the whole consortium has one class only: there is nothing to learn.
    """
    if purpose == "moments":
        return _decode_moments(study, vector)
    if purpose == "evaluation":
        metrics = pooled_metrics(vector, min_cell=study.evaluation.min_cell)
        return Aggregate(metrics={**asdict(metrics)})
    scale = update_scale(sites=len(cohort), ring_bits=study.aggregation.ring_bits)
    total = None if declared is None else sum(counted_weight(weight) for weight in declared)
    delta, weight = decode_update(vector, like, scale=scale, total_weight=total)
    return Aggregate(tensors=delta, metrics={"total_weight": weight} if declared is not None else {})


def _decode_moments(study: Study, vector: NDArray[np.int64]) -> Aggregate:
    columns = feature_columns(study)
    statistics, classes = decode_statistics(vector, columns)
    if min(classes.negative, classes.positive) <= 0:
        raise PolicyError(
            f"the outcome {study.outcome_name} has one class only in the whole consortium",
            "widen the outcome's window or the cohort, or add sites",
        )
    return Aggregate(
        tensors={name: getattr(statistics, name) for name in ("mean", "sd", "median", "count")},
        missing_columns=missing_columns(statistics, columns),
    )
