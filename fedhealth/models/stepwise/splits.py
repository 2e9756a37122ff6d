"""Histograms of a tree's nodes as one vector of integers, and the best split that a histogram shows.

A cell of a histogram holds, over the rows of one node whose value of one column lies in one bin, three sums: of
gradients, of hessians (both fixed-point, `SCALE`) and of people (`PERSON` units). The vector is, flat,

    (node of the level, lane: gradient | hessian | people, column, bin: BINS and the one of missing values)

**No overflow.** A row adds at most 2^30 to a cell. A site has at most 2^20 rows: its sums stay below 2^50, where
float64 still counts exactly. 40 sites reach 2^55.4; the ring ends at 2^63.
**Error.** A gradient or hessian is off by at most 2^-31 per row, whichever site the row is at; sums add none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import ProtocolError
from fedhealth.models.stepwise.rows import PERSON
from fedhealth.models.stepwise.trees import BINS, Bins

SCALE = 2.0**30
LANES = 3
MIN_GAIN = 1e-9
"""A gain below this is rounding."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sums:
    """Gradient, hessian and people of a set of rows, or arrays of these over many sets, in their own units."""

    gradient: Floats
    hessian: Floats
    people: Floats

    def shifted(self, *, slope: float, factor: float) -> "Sums":
        """The sums as they are at another common score: gradient + slope * hessian, factor * hessian."""
        return Sums(self.gradient + slope * self.hessian, self.hessian * factor, self.people)

    def strength(self, *, l2: float) -> Floats:
        """Twice what the best common step takes off the loss, penalty included."""
        return self.gradient * self.gradient / (self.hessian + l2)


@dataclass(frozen=True, slots=True)
class Split:
    """The best split of a node; feature -1 if there is none, and then all rows are ``left``."""

    feature: int
    bin: int
    missing_left: bool
    left: Sums
    right: Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """What a split must keep to, and at which common score the histogram is read."""

    l2: float
    min_people: int
    slope: float = 0.0
    factor: float = 1.0


def histogram_length(*, columns: int, level: int) -> int:
    """Length of the vector of one level."""
    return (1 << level) * LANES * columns * (BINS + 1)


def histograms(lanes: Sequence[Integers], bins: Bins, place: Integers, *, level: int) -> Integers:
    """Sum three numbers of every row into the cells of its node.

    Guarantees: integer sums, so those of any partition of the rows add up to that of all, bit for bit.

    Args:
      lanes: gradient, hessian and people of every row, int64 (rows,) each.
      bins: (rows, columns).
      place: (rows,), the row's node within the level.
      level: 0 for the root.

    Returns:
      int64 of `histogram_length`. Zero rows give zeros.
    """
    nodes, columns = 2**level, bins.shape[1]
    cells = np.zeros((nodes, LANES, columns, BINS + 1), dtype=np.int64)
    weights = [lane.astype(np.float64) for lane in lanes]
    for column in range(columns):
        key = place * (BINS + 1) + bins[:, column]
        for lane, weight in enumerate(weights):
            sums = np.bincount(key, weights=weight, minlength=nodes * (BINS + 1))
            cells[:, lane, column] = sums.reshape(nodes, BINS + 1)  # whole numbers below 2^53: exact
    return cells.ravel()


def cells_of(vector: Integers, *, columns: int, level: int) -> Integers:
    """The cells of an opened sum, (nodes, lanes, columns, bins).

    Raises:
      ValueError: another length.
      ProtocolError: columns that disagree about a node's sums, or negative people or hessians: not a sum of
        what `histograms` gives.
    """
    if vector.shape != (histogram_length(columns=columns, level=level),):
        raise ValueError(f"a sum of shape {vector.shape} is not one of histograms of level {level}")
    cells = vector.reshape(2**level, LANES, columns, BINS + 1)
    totals = cells.sum(axis=-1)
    if (totals != totals[..., :1]).any() or (cells[:, 1:] < 0).any():
        raise ProtocolError(
            "an opened sum is no sum of histograms", "find out which site sent another vector"
        )
    return cells


def node_sums(cells: Integers) -> Sums:
    """The sums of one node's rows, from its cells (lanes, columns, bins)."""
    return _decoded(cells[:, 0].sum(axis=-1))


def best_split(cells: Integers, rule: SplitRule) -> Split:
    """The split that takes most off the loss.

    Guarantees: both sides have at least ``rule.min_people`` people; of equal gains the lowest column's, then the
    lowest bin's, then that with missing values on the left. Integers are added exactly and divided in float64 in
    one order, with no function but + - * /, so everybody who has the same integers finds the same split.

    Args:
      cells: of one node, (lanes, columns, bins).
      rule: what a split must keep to.

    Source: Chen and Guestrin 2016, equation 7 and Algorithm 3.
    """
    below = np.cumsum(cells[..., :BINS], axis=-1)
    left = np.stack([below + cells[..., BINS:], below], axis=-1)  # missing values left, missing values right
    total = cells[:, 0].sum(axis=-1)
    sides = [_read(side, rule) for side in (left, total[:, None, None, None] - left)]
    whole = _read(total, rule)
    gain = sides[0].strength(l2=rule.l2) + sides[1].strength(l2=rule.l2) - whole.strength(l2=rule.l2)
    allowed = np.minimum(sides[0].people, sides[1].people) >= rule.min_people
    gain = np.where(allowed, gain, -np.inf)
    best = np.unravel_index(int(np.argmax(gain)), gain.shape)
    if not gain[best] > MIN_GAIN:
        return Split(-1, -1, False, whole, _decoded(np.zeros(LANES, dtype=np.int64)))
    chosen = [Sums(side.gradient[best], side.hessian[best], side.people[best]) for side in sides]
    return Split(int(best[0]), int(best[1]), best[2] == 0, chosen[0], chosen[1])


def _read(lanes: Integers, rule: SplitRule) -> Sums:
    return _decoded(lanes).shifted(slope=rule.slope, factor=rule.factor)


def _decoded(lanes: Integers) -> Sums:
    gradient, hessian, people = lanes
    return Sums(gradient / SCALE, hessian / SCALE, people / PERSON)
