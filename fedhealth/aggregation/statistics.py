"""Consortium moments and medians as one secure sum in a 64-bit ring.

A site encodes its training rows into int64 counts and fixed-point sums over public bounds; the sum of the
vectors of all sites decodes to pooled statistics. Layout, with c columns and B = 64 bins:

    [n (c) | sum (c) | sum of squares (c) | people (c) | people above the middle (c) | histogram (c * B)
     | for each target: people with a known label, rows of each class]

Values are clipped to the column's public bounds and scaled to [0, 1], so one patient's row moves every entry
by at most 1 (2^20 in the fixed-point entries). People are counted to hide columns that too few of them have;
somebody who was at two sites counts at both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.vocabulary import LevelCounts
from fedhealth.models.statistics import Statistics, floor_sd
from fedhealth.privacy.people import MIN_CELL, count_people
from fedhealth.study.columns import FeatureColumn, Vocabulary
from fedhealth.study.targets import Target

BINS = 64
SCALE = 2.0**20

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """What is known of one target in the training rows of the whole consortium.

    Attributes:
      people: with a known label.
      rows: with a known label, by class: 0 and 1 of ``binary``, censored and event of ``hazard``, none of ``number``.
    """

    people: int
    rows: tuple[int, ...]

    @property
    def has_one_class(self) -> bool:
        """Whether all known labels are of one class: there is nothing to learn."""
        return bool(self.rows) and sum(rows > 0 for rows in self.rows) < 2


def statistics_length(columns: Sequence[FeatureColumn], targets: Sequence[Target]) -> int:
    """Length of the vector that `encode_statistics` gives."""
    return len(columns) * (5 + BINS) + sum(1 + _classes(target) for target in targets)


def encode_statistics(
    features: FloatArray,
    labels: FloatArray,
    person: NDArray[np.int64],
    columns: Sequence[FeatureColumn],
    targets: Sequence[Target],
) -> NDArray[np.int64]:
    """Encode one site's rows for a secure sum.

    Args:
      features: (rows, columns) in raw units, NaN where missing.
      labels: (rows, targets), as `fedhealth.study.targets` writes them.
      person: (rows,), the patient of each row.
      columns: the public names and clip bounds.
      targets: of the study.

    Returns:
      int64 of `statistics_length`. Zero rows give zeros.

    Raises:
      ValueError: shapes do not fit.
    """
    if features.shape != (len(person), len(columns)) or labels.shape != (len(person), len(targets)):
        raise ValueError(
            f"features {features.shape} and labels {labels.shape} do not fit {len(columns)} columns"
        )
    low, width = _bounds(columns)
    raw = np.asarray(features, dtype=np.float64)
    observed = ~np.isnan(raw)
    scaled = np.where(observed, np.clip((raw - low) / width, 0.0, 1.0), 0.0)
    sums = np.rint(scaled.sum(axis=0) * SCALE)
    squares = np.rint((scaled**2).sum(axis=0) * SCALE)
    empty = np.array([c.empty if c.kind == "number" and c.empty is not None else np.nan for c in columns])
    people = count_people(observed & (raw != empty), person), count_people(scaled > 0.5, person)
    tails = [_count_labels(labels[:, place], person, target) for place, target in enumerate(targets)]
    parts = (observed.sum(axis=0), sums, squares, *people, _histograms(scaled, observed), *tails)
    return np.concatenate([part.astype(np.int64) for part in parts])


def decode_statistics(
    sum_vector: NDArray[np.int64],
    columns: Sequence[FeatureColumn],
    targets: Sequence[Target],
    *,
    min_cell: int = MIN_CELL,
) -> tuple[Statistics, tuple[LabelCounts, ...]]:
    """Decode the sum of all sites' vectors into pooled statistics, and the counts of each target's labels.

    Guarantees: mean and sd equal those of the pooled clipped values to sites * 2^-21 of the public range, the
    median to one bin (a flag's is 0 or 1); sd is at least `SD_FLOOR` of the range, and 1 for a constant
    column. A column that fewer than ``min_cell`` people have, or a flag that fewer have or lack, tells
    nothing of them: it gets count 0, mean and median at mid-range (for a flag 0, for a number that is never missing
    what a row without anything has) and the range as sd, so that it becomes 0 for everybody who lacks it.

    Raises:
      ValueError: the vector has another length.
    """
    if sum_vector.shape != (statistics_length(columns, targets),):
        raise ValueError(f"a sum of shape {sum_vector.shape} does not fit {len(columns)} columns")
    size = len(columns)
    low, width = _bounds(columns)
    counts, sums, squares, people, high = _heads(sum_vector, size)
    histograms = sum_vector[5 * size : (5 + BINS) * size].reshape(size, BINS)
    safe = np.maximum(counts, 1.0)
    mean = sums / SCALE / safe
    sd = np.sqrt(np.maximum(squares / SCALE / safe - mean**2, 0.0))
    flags = np.array([column.kind == "flag" for column in columns])
    hidden = people < min_cell
    hidden |= flags & (np.minimum(high, people - high) < min_cell)
    medians = np.array([_median(histogram) for histogram in histograms])
    medians = np.where(hidden, _middles(columns), np.where(flags, np.rint(medians), medians))
    statistics = Statistics(
        mean=(low + np.where(hidden, medians, mean) * width).astype(np.float32),
        sd=np.where(hidden, width, floor_sd(sd, width)).astype(np.float32),
        median=(low + medians * width).astype(np.float32),
        count=np.where(hidden, 0.0, counts),
    )
    return statistics, _label_counts(sum_vector[(5 + BINS) * size :], targets)


def with_levels(statistics: Statistics, vocabulary: Vocabulary, counts: LevelCounts) -> Statistics:
    """Append the columns of the vocabulary to the statistics of the numeric ones.

    A code's mean is the share of rows that have it, its sd that of a 0/1 flag. A code whose rows are not told gets what
    a hidden flag gets: count, mean and median 0, sd 1.

    Args:
      statistics: of `fedhealth.study.columns.numeric_columns`.
      vocabulary, counts: of `fedhealth.aggregation.vocabulary.decode_vocabulary`, with the study's categories.
    """
    levels = [rows for name in vocabulary for rows in counts.levels[name]]
    is_hidden = np.array([rows is None for rows in levels], dtype=np.bool_)
    share = np.array([rows or 0 for rows in levels], dtype=np.float64) / max(counts.rows, 1)
    sd = floor_sd(np.sqrt(share * (1.0 - share)), np.ones(len(levels)))
    appended = {
        "mean": share,
        "sd": np.where(is_hidden, 1.0, sd),
        "median": np.rint(share),
        "count": np.where(is_hidden, 0.0, counts.rows),
    }
    arrays = {
        name: np.concatenate([getattr(statistics, name), each]).astype(getattr(statistics, name).dtype)
        for name, each in appended.items()
    }
    return replace(statistics, **arrays, vocabulary=dict(vocabulary))


def missing_columns(statistics: Statistics, columns: Sequence[FeatureColumn]) -> tuple[str, ...]:
    """Names of the columns that too few people have for their statistics to be told."""
    return tuple(column.name for column, count in zip(columns, statistics.count, strict=True) if count == 0)


def absent_columns(
    sum_vector: NDArray[np.int64], columns: Sequence[FeatureColumn], *, min_cell: int = MIN_CELL
) -> tuple[str, ...]:
    """Names of the columns that fewer than ``min_cell`` people have at all.

    Unlike in `missing_columns`, a flag that too few people lack is not among them.
    """
    _, _, _, people, high = _heads(sum_vector, len(columns))
    has = [
        people[place]
        if column.kind == "number"
        else people[place] - high[place]
        if column.empty
        else high[place]
        for place, column in enumerate(columns)
    ]
    return tuple(column.name for column, n in zip(columns, has, strict=True) if n < min_cell)


def _heads(sum_vector: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Counts, sums, sums of squares, people, people above the middle: (5, columns)."""
    return sum_vector[: 5 * size].astype(np.float64).reshape(5, size)


def _middles(columns: Sequence[FeatureColumn]) -> NDArray[np.float64]:
    """What stands for the median of a column that is not told, in [0, 1] of its range."""
    low, width = _bounds(columns)
    empty = np.array([np.nan if column.empty is None else column.empty for column in columns])
    middles = np.where(np.isnan(empty), 0.5, (empty - low) / width)
    return np.where([column.kind == "flag" for column in columns], 0.0, middles)


def _classes(target: Target) -> int:
    """How many classes the labels of a target are counted in."""
    return {"binary": 2, "hazard": 2, "number": 0}.get(target.kind, len(target.classes))


def _count_labels(labels: FloatArray, person: NDArray[np.int64], target: Target) -> NDArray[np.int64]:
    """People with a known label, then rows of each class."""
    known = ~np.isnan(labels)
    people = count_people(known[:, None], person)
    if not (size := _classes(target)):
        return people
    numbers = labels[known].astype(np.int64) % 2 if target.kind == "hazard" else np.rint(labels[known])
    return np.concatenate([people, np.bincount(numbers.astype(np.int64), minlength=size)])


def _label_counts(tail: NDArray[np.int64], targets: Sequence[Target]) -> tuple[LabelCounts, ...]:
    found, start = [], 0
    for target in targets:
        end = start + 1 + _classes(target)
        people, *rows = tail[start:end].tolist()
        found.append(LabelCounts(people=people, rows=tuple(rows)))
        start = end
    return tuple(found)


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
