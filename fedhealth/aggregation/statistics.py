"""Consortium moments and medians as one secure sum in a 64-bit ring.

A site encodes its training rows into int64 counts and fixed-point sums over public bounds; the sum of the
vectors of all sites decodes to pooled statistics. Layout, with c columns and B = 64 bins:

    [n (c) | sum (c) | sum of squares (c) | people (c) | people above the middle (c) | histogram (c * B)
     | negative rows, positive rows]

Values are clipped to the column's public bounds and scaled to [0, 1], so one patient's row moves every entry
by at most 1 (2^20 in the fixed-point entries). People are counted to hide columns that too few of them have;
somebody who was at two sites counts at both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.statistics import Statistics
from fedhealth.privacy.people import MIN_CELL, count_people
from fedhealth.study.columns import FeatureColumn

BINS = 64
SCALE = 2.0**20
SD_FLOOR = 1e-3
"""Smallest standard deviation, as a share of the column's public range."""

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Training rows of the whole consortium by label."""

    negative: int
    positive: int


def statistics_length(columns: Sequence[FeatureColumn]) -> int:
    """Length of the vector that `encode_statistics` gives."""
    return len(columns) * (5 + BINS) + 2


def encode_statistics(
    features: FloatArray, labels: FloatArray, person: NDArray[np.int64], columns: Sequence[FeatureColumn]
) -> NDArray[np.int64]:
    """Encode one site's rows for a secure sum.

    Args:
      features: (rows, columns) in raw units, NaN where missing.
      labels: (rows,) of 0 or 1.
      person: (rows,), the patient of each row.
      columns: the public names and clip bounds.

    Returns:
      int64 of `statistics_length`. Zero rows give zeros.

    Raises:
      ValueError: shapes do not fit.
    """
    if features.shape != (len(labels), len(columns)) or len(person) != len(labels):
        raise ValueError(f"features {features.shape} do not fit {len(labels)} labels, {len(columns)} columns")
    low, width = _bounds(columns)
    raw = np.asarray(features, dtype=np.float64)
    observed = ~np.isnan(raw)
    scaled = np.where(observed, np.clip((raw - low) / width, 0.0, 1.0), 0.0)
    sums = np.rint(scaled.sum(axis=0) * SCALE)
    squares = np.rint((scaled**2).sum(axis=0) * SCALE)
    positive = int((np.asarray(labels) > 0.5).sum())
    classes = np.array([len(labels) - positive, positive])
    people = count_people(observed, person), count_people(scaled > 0.5, person)
    parts = (observed.sum(axis=0), sums, squares, *people, _histograms(scaled, observed), classes)
    return np.concatenate([part.astype(np.int64) for part in parts])


def decode_statistics(
    sum_vector: NDArray[np.int64], columns: Sequence[FeatureColumn], *, min_cell: int = MIN_CELL
) -> tuple[Statistics, ClassCounts]:
    """Decode the sum of all sites' vectors into pooled statistics.

    Guarantees: mean and sd equal those of the pooled clipped values to sites * 2^-21 of the public range, the
    median to one bin (a flag's is 0 or 1); sd is at least `SD_FLOOR` of the range, and 1 for a constant
    column. A column that fewer than ``min_cell`` people have, or a flag that fewer have or lack, tells
    nothing of them: it gets count 0, mean and median at mid-range (0 for a flag) and the range as sd, so
    that it becomes 0 for everybody who lacks it.

    Raises:
      ValueError: the vector has another length.
    """
    if sum_vector.shape != (statistics_length(columns),):
        raise ValueError(f"a sum of shape {sum_vector.shape} does not fit {len(columns)} columns")
    size = len(columns)
    low, width = _bounds(columns)
    counts, sums, squares, people, high = sum_vector[: 5 * size].astype(np.float64).reshape(5, size)
    histograms = sum_vector[5 * size : -2].reshape(size, BINS)
    safe = np.maximum(counts, 1.0)
    mean = sums / SCALE / safe
    sd = np.sqrt(np.maximum(squares / SCALE / safe - mean**2, 0.0))
    flags = np.array([column.kind == "flag" for column in columns])
    hidden = people < min_cell
    hidden |= flags & (np.minimum(high, people - high) < min_cell)
    medians = np.array([_median(histogram) for histogram in histograms])
    medians = np.where(hidden, np.where(flags, 0.0, 0.5), np.where(flags, np.rint(medians), medians))
    statistics = Statistics(
        mean=(low + np.where(hidden, medians, mean) * width).astype(np.float32),
        sd=np.where(
            hidden, width, np.where(sd < SD_FLOOR / 10, 1.0, np.maximum(sd, SD_FLOOR) * width)
        ).astype(np.float32),
        median=(low + medians * width).astype(np.float32),
        count=np.where(hidden, 0.0, counts),
    )
    return statistics, ClassCounts(negative=int(sum_vector[-2]), positive=int(sum_vector[-1]))


def missing_columns(statistics: Statistics, columns: Sequence[FeatureColumn]) -> tuple[str, ...]:
    """Names of the columns that too few people have for their statistics to be told."""
    return tuple(column.name for column, count in zip(columns, statistics.count, strict=True) if count == 0)


def _bounds(columns: Sequence[FeatureColumn]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low = np.array([column.low for column in columns], dtype=np.float64)
    high = np.array([column.high for column in columns], dtype=np.float64)
    return low, high - low


def _histograms(scaled: NDArray[np.float64], observed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the observed values of each column in `BINS` equal bins, flat by column."""
    columns = scaled.shape[1]
    bins = np.minimum((scaled * BINS).astype(np.int64), BINS - 1) + np.arange(columns) * BINS
    return np.bincount(bins[observed], minlength=columns * BINS).astype(np.int64)


def _median(histogram: NDArray[np.int64]) -> float:
    """The median in [0, 1], linear within its bin; 0.5 for an empty histogram."""
    total = int(histogram.sum())
    if total <= 0:
        return 0.5
    below = np.cumsum(histogram)
    index = int(np.searchsorted(below, total / 2.0))
    before = float(below[index] - histogram[index])
    return (index + (total / 2.0 - before) / float(histogram[index])) / BINS
