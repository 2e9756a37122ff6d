"""One site's scores of a yes or no as counts that can be summed securely, and the pooled metrics of the sum.

Bins are equal in log-odds, so that rare outcomes keep their resolution. Layout, with B bins:

    [negatives per bin (B) | positives per bin (B) | counts per band (`fedhealth.evaluation.bands`)
     | sum of (score - label)^2 (1)]

Fixed-point sums make Brier score and calibration error exact, not binned. Opened vectors are evaluated and dropped;
bins are never stored. Somebody who was at two sites counts at both. Intervals take rows for independent: with
several rows of one person they are somewhat too narrow.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation.bands import (
    BANDS,
    Bands,
    accuracy,
    bands_length,
    calibration_error,
    calibration_table,
    decision_curve,
    decode_bands,
    encode_bands,
    threshold_table,
)
from fedhealth.evaluation.calibration import recalibrate
from fedhealth.evaluation.cells import SCALE, Counts, Figures, Table, fixed_point, one_row_each
from fedhealth.evaluation.curves import auprc, auroc_with_interval

LOGIT_RANGE = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Pooled metrics; None where there were too few people to show any.

    Attributes:
      auroc: area under the ROC curve over bins, ties counting half.
      low, high: its 95% DeLong interval, wider by the resolution on both sides.
      auroc_resolution: the exact area lies within this of ``auroc`` (what binning can hide).
      auprc: average precision over bins.
      brier: mean squared error of the scores, exact to 2^-30.
      ece: expected calibration error over tenths of probability, exact to 2^-30; a tenth of fewer than 11 people
        with or without the outcome is one with its neighbour.
      calibration_slope, calibration_intercept: of a logistic recalibration over bins; None where the scores
        separate the classes or are all alike.
      calibration_in_the_large: observed rate less mean score.
      accuracy: share of rows on their side of 0.5; None where either side has fewer than 11 people of a class.
      n: rows scored; n_positive: those with the outcome.
    """

    auroc: float | None = None
    low: float | None = None
    high: float | None = None
    auroc_resolution: float | None = None
    auprc: float | None = None
    brier: float | None = None
    ece: float | None = None
    calibration_slope: float | None = None
    calibration_intercept: float | None = None
    calibration_in_the_large: float | None = None
    accuracy: float | None = None
    n: int | None = None
    n_positive: int | None = None

    def figures(self) -> Figures:
        """The metrics by name."""
        return asdict(self)


def scores_length(*, bins: int = 512) -> int:
    """Length of the vector that `encode_scores` gives."""
    return 2 * bins + bands_length() + 1


def encode_scores(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    person: NDArray[np.int64],
    *,
    bins: int = 512,
) -> Counts:
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
    if np.shape(person) != np.shape(labels):
        raise ValueError(f"labels {np.shape(labels)} and people {np.shape(person)} are not two equal columns")
    once = one_row_each(np.asarray(person), sides(labels))
    return encode_marked(scores, labels, once, bins=bins)


def sides(labels: NDArray[np.floating]) -> NDArray[np.int64]:
    """0 without and 1 with the outcome."""
    return (np.asarray(labels) > 0.5).astype(np.int64)


def encode_marked(
    scores: NDArray[np.floating], labels: NDArray[np.floating], once: NDArray[np.bool_], *, bins: int
) -> Counts:
    """`encode_scores` with one row of every person on every side marked beforehand."""
    probability, positive = np.asarray(scores, dtype=np.float64), sides(labels) == 1
    if probability.ndim != 1 or not probability.shape == positive.shape == once.shape:
        raise ValueError(f"scores {probability.shape} and labels {positive.shape} are not two equal columns")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("a score is not a probability")
    index = logit_bins(probability, bins=bins)
    counts = [np.bincount(index[which], minlength=bins) for which in (~positive, positive)]
    square = fixed_point(np.array([((probability - positive) ** 2).sum()]))
    parts = (*counts, encode_bands(probability, positive, once), square)
    return np.concatenate([part.astype(np.int64) for part in parts])


def pooled_metrics(sum_vector: Counts, *, bins: int = 512, min_cell: int = 11) -> Metrics:
    """Metrics of all sites' rows together, from the sum of their vectors.

    Guarantees: with fewer than ``min_cell`` people who have a positive, or a negative row, every metric and
    ``n_positive`` is None, so that no small cell can be read or subtracted; ``n`` is kept when the rows are of
    at least ``min_cell`` people.

    Raises:
      ValueError: the vector has another length or a negative count.
    """
    histograms, bands = _read(sum_vector, bins)
    people = bands.people.sum(axis=1)
    if people.min() < max(min_cell, 1):
        return Metrics(n=bands.n if people.max() >= min_cell else None)
    negatives, positives = histograms
    area, cuts = auroc_with_interval(negatives, positives), bands.cuts(min_cell)
    intercept, slope = recalibrate(logit_centers(bins), negatives, positives) or (None, None)
    return Metrics(
        auroc=area.value,
        low=area.low,
        high=area.high,
        auroc_resolution=area.resolution,
        auprc=auprc(negatives, positives),
        brier=float(sum_vector[-1]) / SCALE / bands.n,
        ece=calibration_error(bands, cuts),
        calibration_slope=slope,
        calibration_intercept=intercept,
        calibration_in_the_large=float(bands.rows[1].sum() - bands.scores.sum()) / bands.n,
        accuracy=accuracy(bands, cuts),
        n=bands.n,
        n_positive=int(bands.rows[1].sum()),
    )


def pooled_tables(sum_vector: Counts, *, bins: int = 512, min_cell: int = 11) -> dict[str, Table]:
    """The threshold table, the decision curve and the calibration table; empty where no metric may be told.

    Guarantees: every figure is of cells of at least ``min_cell`` people with and without the outcome, and so is every
    difference of figures, those of `pooled_metrics` included.

    Raises:
      ValueError: the vector has another length or a negative count.
    """
    _, bands = _read(sum_vector, bins)
    if bands.people.sum(axis=1).min() < max(min_cell, 1):
        return {"thresholds": (), "decision_curve": (), "calibration": ()}
    cuts = bands.cuts(min_cell)
    return {
        "thresholds": threshold_table(bands, cuts),
        "decision_curve": decision_curve(bands, cuts),
        "calibration": calibration_table(bands, cuts),
    }


def counted_scores(sum_vector: Counts, *, bins: int) -> tuple[Counts, Counts]:
    """Rows, and people, without and with the outcome."""
    bands = decode_bands(sum_vector[2 * bins : -1])
    return bands.rows.sum(axis=1), bands.people.sum(axis=1)


def logit_bins(probability: NDArray[np.float64], *, bins: int) -> NDArray[np.int64]:
    """Index of the log-odds bin of each score."""
    limit = 1.0 / (1.0 + math.exp(LOGIT_RANGE))
    inside = np.clip(probability, limit, 1.0 - limit)
    logit = np.log(inside) - np.log1p(-inside)
    position = (logit + LOGIT_RANGE) / (2.0 * LOGIT_RANGE) * bins
    return np.clip(position.astype(np.int64), 0, bins - 1)


def logit_centers(bins: int) -> NDArray[np.float64]:
    """The log-odds at the middle of each bin."""
    return (np.arange(bins) + 0.5) / bins * 2.0 * LOGIT_RANGE - LOGIT_RANGE


def _read(sum_vector: Counts, bins: int) -> tuple[NDArray[np.float64], Bands]:
    """Negatives and positives per bin, and the counts per band."""
    counts = 2 * bins + 4 * BANDS
    if sum_vector.shape != (scores_length(bins=bins),) or (sum_vector[:counts] < 0).any():
        raise ValueError(f"a sum of shape {sum_vector.shape} is not one of score counts over {bins} bins")
    return sum_vector[: 2 * bins].astype(np.float64).reshape(2, bins), decode_bands(sum_vector[2 * bins : -1])
