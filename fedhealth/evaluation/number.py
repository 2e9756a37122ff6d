"""Scores of a number, such as days of stay, as sums that can be added securely, and the pooled metrics.

With y the label within the target's public bounds, scaled to [0, 1], and e the score less the label on that scale:

    [rows, people, and the sums of y, y^2, y^3, y^4, e, |e|, e^2, e^2 y, e^2 y^2, e^4]

The higher moments are those that the interval of R2 needs. Sums are fixed-point, so that every metric is that of
the pooled rows, to sites * 2^-30 of the bounds.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation.cells import SCALE, Counts, Figures, Table, fixed_point
from fedhealth.evaluation.curves import NORMAL_975
from fedhealth.study.targets import Target

HEADLINE = "r2"
BY_GROUP = ("r2", "low", "high", "mae", "bias", "n")
BINS = (0, 0)
_SUMS = 10
_LEAST_VARIANCE = 1e-9
"""Of labels as a share of the range squared; below it R2 means nothing."""
_NAMES = ("r2", "low", "high", "mae", "mae_low", "mae_high", "rmse", "bias", "n")


def length(target: Target, *, bins: int) -> int:
    """Length of the vector that `encode` gives."""
    return 2 + _SUMS


def sides(labels: NDArray[np.floating]) -> NDArray[np.int64]:
    """One side: people are counted once."""
    return np.zeros(len(labels), dtype=np.int64)


def encode(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    once: NDArray[np.bool_],
    *,
    target: Target,
    bins: int,
) -> Counts:
    """Encode one site's scored test rows for a secure sum.

    Args:
      scores: (rows, 1) in the target's unit, taken to its bounds as labels are.
      labels: (rows,) in the target's unit.
      once: marks one row of every person.
      target: gives the public bounds.
      bins: not used.

    Raises:
      ValueError: shapes differ, or a score is not finite.
    """
    told = np.asarray(scores, dtype=np.float64)
    if told.shape != (len(labels), 1) or once.shape != np.shape(labels) or not np.isfinite(told).all():
        raise ValueError(f"scores {told.shape} are not one finite number for each of {len(labels)} labels")
    y, score = (
        np.clip((each - target.low) / (target.high - target.low), 0.0, 1.0)
        for each in (np.asarray(labels, dtype=np.float64), told[:, 0])
    )
    e = score - y
    terms = (y, y**2, y**3, y**4, e, np.abs(e), e**2, e**2 * y, (e * y) ** 2, e**4)
    counts = np.array([len(y), int(once.sum())], dtype=np.int64)
    return np.concatenate([counts, fixed_point(np.array([term.sum() for term in terms]))])


def metrics(vector: Counts, *, target: Target, bins: int, min_cell: int) -> Figures:
    """Pooled metrics of a number; all None where fewer than ``min_cell`` people have a label.

    Returns:
      ``r2`` with ``low`` and ``high``, its 95% interval by the delta method (None where labels are all alike);
      ``mae`` with ``mae_low`` and ``mae_high``, ``rmse`` and ``bias`` (mean score less mean label) in the target's
      unit; ``n`` rows.

    Source: the influence function of R2 = 1 - E e^2 / Var y is ((1 - R2) (y - E y)^2 - e^2) / Var y.
    """
    n, people = int(vector[0]), int(vector[1])
    if min(n, people) < 0:
        raise ValueError("a sum has a negative count")
    if people < max(min_cell, 1):
        return dict.fromkeys(_NAMES)
    width = target.high - target.low
    y, y2, y3, y4, e, absolute, e2, e2y, e2y2, e4 = (float(each) / SCALE / n for each in vector[2:])
    variance = y2 - y**2
    spread = NORMAL_975 * math.sqrt(max(e2 - absolute**2, 0.0) / n)
    figures: dict[str, float | None] = {
        **dict.fromkeys(_NAMES),
        "mae": absolute * width,
        "mae_low": max(absolute - spread, 0.0) * width,
        "mae_high": (absolute + spread) * width,
        "rmse": math.sqrt(max(e2, 0.0)) * width,
        "bias": e * width,
        "n": n,
    }
    if variance < _LEAST_VARIANCE:
        return figures
    lost = e2 / variance
    fourth = y4 - 4 * y * y3 + 6 * y**2 * y2 - 3 * y**4
    cross = e2y2 - 2 * y * e2y + y**2 * e2
    influence = max(e4 - 2 * lost * cross + lost**2 * fourth, 0.0) / variance**2
    half = NORMAL_975 * math.sqrt(influence / n)
    return figures | {"r2": 1.0 - lost, "low": 1.0 - lost - half, "high": min(1.0, 1.0 - lost + half)}


def tables(vector: Counts, *, target: Target, bins: int, min_cell: int) -> dict[str, Table]:
    """No table."""
    return {}


def counted(vector: Counts, *, target: Target, bins: int) -> tuple[Counts, Counts]:
    """Rows, and people, with a label."""
    return vector[:1], vector[1:2]
