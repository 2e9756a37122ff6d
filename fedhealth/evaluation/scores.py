"""One site's scores as counts that can be summed securely, and the pooled metrics of the sum.

Bins are equal in log-odds, so that rare outcomes keep their resolution. Layout, with B bins:

    [negatives per bin (B) | positives per bin (B) | people with a negative, with a positive row (2)
     | sum of (score - label) per tenth (10) | of squares (1)]

The last 11 are fixed-point (2^20) and make Brier score and calibration error exact, not binned. Opened
vectors are evaluated and dropped; bins are never stored. Somebody who was at two sites counts at both.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation.curves import auprc, auroc_with_interval
from fedhealth.privacy.people import count_people

SCALE = 2.0**20
LOGIT_RANGE = 8.0
TENTHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Pooled metrics; None where there were too few people to show any.

    Attributes:
      auroc: area under the ROC curve over bins, ties counting half.
      low, high: its 95% DeLong interval.
      auroc_resolution: the exact area lies within this of ``auroc`` (what binning can hide).
      auprc: average precision over bins.
      brier: mean squared error of the scores, exact to 2^-20.
      ece: expected calibration error over ten equal bins of probability, exact to 2^-20.
      n: rows scored; n_positive: those with the outcome.
    """

    auroc: float | None = None
    low: float | None = None
    high: float | None = None
    auroc_resolution: float | None = None
    auprc: float | None = None
    brier: float | None = None
    ece: float | None = None
    n: int | None = None
    n_positive: int | None = None


def scores_length(*, bins: int = 512) -> int:
    """Length of the vector that `encode_scores` gives."""
    return 2 * bins + 2 + TENTHS + 1


def encode_scores(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    person: NDArray[np.int64],
    *,
    bins: int = 512,
) -> NDArray[np.int64]:
    """Encode one site's scored test rows for a secure sum.

    Args:
      scores: (rows,) probabilities.
      labels: (rows,) of 0 or 1.
      person: (rows,), the patient of each row.
      bins: number of bins over log-odds of -8 to 8; the outer ones take what lies beyond.

    Returns:
      int64 of `scores_length`. Zero rows give zeros.

    Raises:
      ValueError: shapes differ, or a score is not in [0, 1].
    """
    probability = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(labels) > 0.5
    if probability.ndim != 1 or not probability.shape == positive.shape == person.shape:
        raise ValueError(f"scores {probability.shape} and labels {positive.shape} are not two equal columns")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a score is not a probability")
    index = _bin_of(probability, bins)
    tenth = np.minimum((probability * TENTHS).astype(np.int64), TENTHS - 1)
    residual = probability - positive
    residuals = np.rint(np.bincount(tenth, weights=residual, minlength=TENTHS) * SCALE)
    square = np.rint([(residual**2).sum() * SCALE])
    counts = [np.bincount(index[positive == label], minlength=bins) for label in (False, True)]
    people = count_people(np.column_stack([~positive, positive]), person)
    return np.concatenate([part.astype(np.int64) for part in (*counts, people, residuals, square)])


def pooled_metrics(sum_vector: NDArray[np.int64], *, bins: int = 512, min_cell: int = 11) -> Metrics:
    """Metrics of all sites' rows together, from the sum of their vectors.

    Guarantees: with fewer than ``min_cell`` people who have a positive, or a negative row, every metric and
    ``n_positive`` is None, so that no small cell can be read or subtracted; ``n`` is kept when the rows are of
    at least ``min_cell`` people.

    Raises:
      ValueError: the vector has another length or a negative count.
    """
    if sum_vector.shape != (scores_length(bins=bins),) or (sum_vector[: 2 * bins + 2] < 0).any():
        raise ValueError(f"a sum of shape {sum_vector.shape} is not one of score counts over {bins} bins")
    negatives, positives = sum_vector[: 2 * bins].astype(np.float64).reshape(2, bins)
    n, n_positive = int(negatives.sum() + positives.sum()), int(positives.sum())
    people = sum_vector[2 * bins : 2 * bins + 2]
    if people.min() < max(min_cell, 1):
        return Metrics(n=n if people.max() >= min_cell else None)
    area = auroc_with_interval(negatives, positives)
    residuals, square = sum_vector[2 * bins + 2 : -1] / SCALE, float(sum_vector[-1]) / SCALE
    return Metrics(
        auroc=area.value,
        low=area.low,
        high=area.high,
        auroc_resolution=area.resolution,
        auprc=auprc(negatives, positives),
        brier=square / n,
        ece=float(np.abs(residuals).sum()) / n,
        n=n,
        n_positive=n_positive,
    )


def _bin_of(probability: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Index of the log-odds bin of each score."""
    limit = 1.0 / (1.0 + math.exp(LOGIT_RANGE))
    inside = np.clip(probability, limit, 1.0 - limit)
    logit = np.log(inside) - np.log1p(-inside)
    position = (logit + LOGIT_RANGE) / (2.0 * LOGIT_RANGE) * bins
    return np.clip(position.astype(np.int64), 0, bins - 1)
