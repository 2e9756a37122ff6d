"""Counts of people, not rows: what a small cell is measured in."""

import numpy as np
from numpy.typing import NDArray

MIN_CELL = 11
"""The smallest number of people, above 0, that may be told outside a site."""


def count_people(rows: NDArray[np.bool_], person: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct people with at least one marked row, by column.

    Args:
      rows: (rows, columns).
      person: (rows,).
    """
    order = np.argsort(person, kind="stable")
    starts = np.flatnonzero(np.diff(person[order], prepend=person[order][:1] - 1))
    if not len(starts):
        return np.zeros(rows.shape[1], dtype=np.int64)
    has: NDArray[np.bool_] = np.logical_or.reduceat(rows[order], starts, axis=0)
    return np.asarray(has.sum(axis=0), dtype=np.int64)
