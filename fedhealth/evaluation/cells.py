"""Which cells may be told: people counted so that counts add up, cells merged or hidden until each is large enough.

A person may have many rows. `one_row_each` marks one row of every person on every side (having the outcome and not
having it, say). Marked rows add up over cells and over sites, and a union of cells holds at least as many people as
marked rows, so a rule kept by marked rows is kept by people: where it errs, it hides too much.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedhealth.privacy.people import MIN_CELL

SCALE = 2.0**30
"""Of fixed-point sums: terms are at most 1, so that 2^33 rows of all sites together do not overflow 64 bits."""

Counts = NDArray[np.int64]
Figures = Mapping[str, float | None]
"""Metrics by name; None where too few people would show."""
Table = tuple[Mapping[str, float | str | None], ...]
"""Rows of one table, each with the same columns; None where too few people would show."""


def one_row_each(person: NDArray[np.int64], side: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Mark one row of every person on every side.

    Guarantees: exactly one marked row per pair of person and side; which one depends on the keyed person alone, not
    on scores, and over many people every one of their rows is as likely.

    Args:
      person: (rows,), keyed ids.
      side: (rows,), the side of each row.

    Returns:
      (rows,) bool.
    """
    order = np.lexsort((side, person))
    pairs = np.column_stack([person[order], side[order]])
    starts = np.flatnonzero(np.append(True, (np.diff(pairs, axis=0) != 0).any(axis=1))[: len(order)])
    sizes = np.diff(np.append(starts, len(order)))
    marked = np.zeros(len(order), dtype=np.bool_)
    marked[order[starts + np.mod(pairs[starts, 0], sizes)]] = True
    return marked


def fixed_point(sums: NDArray[np.float64]) -> Counts:
    """Sums of terms within [-1, 1] as integers, exact to 1 / (2 `SCALE`)."""
    return np.rint(sums * SCALE).astype(np.int64)


def cuts_between(people: Counts, *, order: Sequence[int], min_cell: int = MIN_CELL) -> tuple[int, ...]:
    """Cut a row of bands into cells that may all be told.

    Guarantees: every cell, and so every union and difference of cells, holds at least ``min_cell`` marked rows of
    every side, or there is but one cell.

    Args:
      people: marked rows, (sides, bands).
      order: possible cuts, the wanted ones first: cut ``i`` lies before band ``i``.
      min_cell: the smallest cell that may be told.

    Returns:
      The cuts that can be made, rising, with 0 and the number of bands.
    """
    cuts = {0, people.shape[1]}
    for cut in order:
        low, high = max(each for each in cuts if each < cut), min(each for each in cuts if each > cut)
        if min(people[:, low:cut].sum(axis=1).min(), people[:, cut:high].sum(axis=1).min()) >= min_cell:
            cuts.add(cut)
    return tuple(sorted(cuts))


def settle(
    shown: NDArray[np.bool_], rows: Counts, people: Counts, *, whole: tuple[Counts, Counts], min_cell: int
) -> NDArray[np.bool_]:
    """Hide further groups until what is left over when the shown ones are taken from the whole may be told too.

    Guarantees: the rest is without a row, or has at least ``min_cell`` marked rows on every side; the smallest shown
    groups are hidden first.

    Args:
      shown: groups that may be told for themselves, (groups,).
      rows, people: rows and marked rows of each group, (groups, sides).
      whole: rows and marked rows of everybody, (sides,) each.
      min_cell: the smallest cell that may be told.

    Returns:
      The groups that stay shown.
    """
    left = shown.copy()
    while left.any():
        rest_rows, rest_people = whole[0] - rows[left].sum(axis=0), whole[1] - people[left].sum(axis=0)
        if not rest_rows.any() or (rest_people >= min_cell).all():
            break
        smallest = min(np.flatnonzero(left), key=lambda group: int(people[group].sum()))
        left[smallest] = False
    return left
