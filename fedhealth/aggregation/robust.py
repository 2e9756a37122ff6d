"""Robust rules: one update out of many of which some may be anything at all.

    symbol  name         symbol  name
    n       sites        f       attackers: rows that may be anything
    d       parameters   x_i     row i of ``updates``

Every rule is a pure function of a matrix (n, d) of float64 in which every site counts once: a weight is a site's own word,
and a liar would claim the largest. A rule's breakdown point is the share of rows, as n grows, from which on somebody can
move its result arbitrarily far; below it the result stays within a bounded distance of the honest rows.

None of them tells a rare but honest site from a lying one: what they keep out is what is unlike the others.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Row = NDArray[np.float64]

_NEAREST = 1e-12
"""A distance below this share of the rows' spread counts as that."""


def coordinate_median(updates: Matrix) -> Row:
    """The median of every coordinate.

    Guarantees: every coordinate lies between honest values while f < n/2 (breakdown point 1/2); the order of rows does not
    matter. For an even n it is the mean of the middle two.

    Args:
      updates: shape (n, d), finite.

    Returns:
      Shape (d,).

    Raises:
      ValueError: no matrix, no row, or a value that is not finite.

    Source: Yin et al. 2018, "Byzantine-Robust Distributed Learning", definition 1.
    """
    row: Row = np.median(_checked(updates), axis=0)
    return row


def trimmed_mean(updates: Matrix, *, attackers: int) -> Row:
    """The mean of every coordinate without its ``attackers`` largest and smallest values.

    Guarantees: every coordinate lies between honest values while no more than ``attackers`` rows are not honest (breakdown
    point attackers/n, below 1/2); with 0 it is the mean.

    Args:
      updates: shape (n, d), finite.
      attackers: f >= 0, with 2f < n.

    Returns:
      Shape (d,).

    Raises:
      ValueError: as `coordinate_median`; too few rows for so many attackers.

    Source: Yin et al. 2018, definition 2.
    """
    rows = _checked(updates, attackers)
    row: Row = np.sort(rows, axis=0)[attackers : len(rows) - attackers].mean(axis=0)
    return row


def krum(updates: Matrix, *, attackers: int) -> Row:
    """The row with the smallest `krum_scores`, the first of equals.

    Guarantees: it is one of the rows; with n > 2f + 2 independent honest rows it points where their mean does, if their spread is
    small against it (breakdown point below 1/2).

    Args, Returns, Raises: as `trimmed_mean`.

    Source: Blanchard et al. 2017, "Machine Learning with Adversaries", section 4.
    """
    rows = _checked(updates, attackers)
    row: Row = rows[int(np.argmin(krum_scores(rows, attackers=attackers)))]
    return row


def multi_krum(updates: Matrix, *, attackers: int) -> Row:
    """The mean of the n - f rows with the smallest `krum_scores`, earlier rows first among equals.

    Guarantees: as `krum`, with the variance of a mean of n - f rows.

    Args, Returns, Raises: as `trimmed_mean`.

    Source: Blanchard et al. 2017, section 5.
    """
    rows = _checked(updates, attackers)
    kept = np.argsort(krum_scores(rows, attackers=attackers), kind="stable")[: len(rows) - attackers]
    row: Row = rows[np.sort(kept)].mean(axis=0)
    return row


def krum_scores(updates: Matrix, *, attackers: int) -> Row:
    """By row, the mean squared distance to its n - f - 1 nearest other rows: how far it lies from its own crowd.

    The original counts n - f - 2 of them; one more keeps the score defined for n = 3 and is what later analyses use.

    Args, Raises: as `trimmed_mean`.

    Returns:
      Shape (n,).

    Source: Guerraoui et al. 2024, "Robust Machine Learning", section 4.2.1.
    """
    rows = _checked(updates, attackers)
    squares = np.array([((rows - row) ** 2).sum(axis=1) for row in rows])
    scores: Row = np.sort(squares, axis=1)[:, 1 : len(rows) - attackers].mean(axis=1)
    return scores


def geometric_median(updates: Matrix, *, steps: int = 50) -> Row:
    """The point with the smallest sum of distances to the rows, by Weiszfeld's algorithm.

    Guarantees: within a bounded distance of the honest rows' centre while f < n/2 (breakdown point 1/2); turning or
    moving the rows turns or moves it. A row on the way is no pole: a distance of nearly nothing counts as 1e-12 of the rows'
    spread. The number of steps does not hang on rounding.

    Args:
      updates: shape (n, d), finite.
      steps: how often the point is moved; each brings it nearer by a factor.

    Returns:
      Shape (d,).

    Raises:
      ValueError: as `coordinate_median`.

    Source: Weiszfeld 1937; Pillutla et al. 2022, "Robust Aggregation for Federated Learning", algorithm 2.
    """
    rows = _checked(updates)
    point: Row = np.median(rows, axis=0)
    spread = float(_lengths(rows - point).max())
    if spread == 0.0:
        return point
    for _ in range(steps):
        pull = 1.0 / np.maximum(_lengths(rows - point), _NEAREST * spread)
        point = (rows * pull[:, None]).sum(axis=0) / pull.sum()
    return point


def centred_clipping(
    updates: Matrix, *, radius: float | None = None, start: Row | None = None, steps: int = 10
) -> Row:
    """From a centre, go to the mean of the rows after each is cut to a radius around it; repeat.

    Guarantees: a step moves by at most the radius, and by an attacker's row by at most radius/n. By default the
    first centre is the coordinate median and the radius the median distance to it, so that the breakdown point is 1/2.

    Args:
      updates: shape (n, d), finite.
      radius: of the clipping, > 0, in units of the update.
      start: the first centre, shape (d,).
      steps: how often.

    Returns:
      Shape (d,).

    Raises:
      ValueError: as `coordinate_median`.

    Source: Karimireddy et al. 2021, "Learning from History for Byzantine Robust Optimization", algorithm 2.
    """
    rows = _checked(updates)
    centre: Row = np.median(rows, axis=0) if start is None else start
    reach = float(np.median(_lengths(rows - centre))) if radius is None else radius
    for _ in range(steps):
        offsets = rows - centre
        lengths = _lengths(offsets)
        shrink = np.minimum(1.0, np.divide(reach, lengths, out=np.ones_like(lengths), where=lengths > 0.0))
        centre = centre + (offsets * shrink[:, None]).mean(axis=0)
    return centre


RULES: Mapping[str, Callable[[Matrix, int], Row]] = {
    "median": lambda updates, attackers: coordinate_median(updates),
    "trimmed_mean": lambda updates, attackers: trimmed_mean(updates, attackers=attackers),
    "krum": lambda updates, attackers: krum(updates, attackers=attackers),
    "multi_krum": lambda updates, attackers: multi_krum(updates, attackers=attackers),
    "geometric_median": lambda updates, attackers: geometric_median(updates),
    "centred_clipping": lambda updates, attackers: centred_clipping(updates),
}
"""By the name that a study gives it, a rule of the updates and the number of attackers."""


def _checked(updates: Matrix, attackers: int = 0) -> Matrix:
    if updates.ndim != 2 or not len(updates) or not np.isfinite(updates).all():
        raise ValueError("updates must be a matrix of finite numbers with at least one row")
    if attackers < 0 or 2 * attackers >= len(updates):
        raise ValueError(f"{len(updates)} rows are too few for {attackers} attackers")
    return np.asarray(updates, dtype=np.float64)


def _lengths(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """L2 norms along the last axis."""
    lengths: NDArray[np.float64] = np.sqrt((rows * rows).sum(axis=-1))
    return lengths
