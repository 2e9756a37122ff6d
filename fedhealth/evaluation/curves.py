"""Areas under curves, from counts of negatives and positives per bin of rising score."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
NORMAL_975 = 1.959963984540054
"""The standard normal quantile of a two-sided 95% interval."""


@dataclass(frozen=True, slots=True)
class Area:
    """An area under the ROC curve or a C-index, its 95% interval that holds what binning can hide, and how much that is."""

    value: float
    low: float
    high: float
    resolution: float


def auroc_with_interval(negatives: Counts, positives: Counts) -> Area:
    """Area under the ROC curve of binned scores, ties counting half, with DeLong's 95% interval and the resolution on both sides.

    Args:
      negatives: counts per bin, in rising order of score, at least one in total.
      positives: the same, for the rows with the outcome.

    Raises:
      ValueError: a class is empty.

    Source: DeLong, DeLong and Clarke-Pearson 1988; Hanley and McNeil 1982.
    """
    m, n = float(positives.sum()), float(negatives.sum())
    if m <= 0 or n <= 0:
        raise ValueError("an area needs rows of both classes")
    below = (np.cumsum(negatives) - negatives / 2) / n
    above = (m - np.cumsum(positives) + positives / 2) / m
    value = float((positives * below).sum() / m)
    variance = _spread(positives, below, value) / m + _spread(negatives, above, value) / n
    ties = float((positives * negatives).sum() / (2 * m * n))
    return interval_of(value, variance, sizes=(m, n), resolution=ties)


def interval_of(value: float, variance: float, *, sizes: tuple[float, float], resolution: float) -> Area:
    """The 95% interval of an area or a C-index, wider on both sides by what binning can hide.

    Where the variance is 0 (perfect separation) that of Hanley and McNeil with the area drawn in by half a pair, so
    that the interval is never empty.

    Args:
      value: the area.
      variance: of the area.
      sizes: rows of each class, at least one.
      resolution: the most that binning can hide.
    """
    m, n = sizes
    if variance <= 0.0:
        variance = _hanley_mcneil(min(max(value, 0.5 / (m * n)), 1 - 0.5 / (m * n)), m, n)
    half = NORMAL_975 * math.sqrt(variance) + resolution
    return Area(value=value, low=max(0.0, value - half), high=min(1.0, value + half), resolution=resolution)


def auprc(negatives: Counts, positives: Counts) -> float:
    """Average precision over the bins as thresholds (step interpolation).

    Raises:
      ValueError: there is no positive.

    Source: the definition of scikit-learn's ``average_precision_score``.
    """
    total = float(positives.sum())
    if total <= 0:
        raise ValueError("average precision needs rows with the outcome")
    true = np.cumsum(positives[::-1])
    flagged = true + np.cumsum(negatives[::-1])
    precision = true / np.maximum(flagged, 1.0)
    return float((positives[::-1] * precision).sum() / total)


def _spread(counts: Counts, placements: Counts, mean: float) -> float:
    """Sample variance of the placements of one class."""
    total = float(counts.sum())
    return float((counts * (placements - mean) ** 2).sum()) / (total - 1) if total > 1 else 0.0


def _hanley_mcneil(area: float, m: float, n: float) -> float:
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    return (area * (1 - area) + (m - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)) / (m * n)
