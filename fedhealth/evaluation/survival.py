"""Hazards of discrete-time survival as counts that can be summed securely, and the pooled metrics.

The risk of a row is the probability that its event comes within the horizon, 1 - prod(1 - hazard). With J intervals,
B bins of the risk's log-odds, and S_j the probability of no event up to the end of interval j:

    [rows by bin, interval and event (B, J + 1, 2) | people censored, with an event (2)
     | sum of S_j^2 over events in interval i <= j (J, J) | sum of (1 - S_j)^2 over rows seen after interval j (J)]

Interval J is of those who outlived the horizon. The last two are fixed-point. Within an interval events come before
censoring.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation.cells import SCALE, Counts, Figures, Table, fixed_point
from fedhealth.evaluation.curves import Area, interval_of
from fedhealth.evaluation.scores import logit_bins
from fedhealth.study.targets import Target

FloatArray = NDArray[np.float64]
HEADLINE = "c_index"
BY_GROUP = ("c_index", "low", "high", "n", "n_events")
BINS = (256, 64)
_NAMES = ("c_index", "low", "high", "c_index_resolution", "integrated_brier", "n", "n_events")


def sides(labels: NDArray[np.floating]) -> NDArray[np.int64]:
    """0 without and 1 with an event."""
    return np.asarray(labels).astype(np.int64) % 2


def length(target: Target, *, bins: int) -> int:
    """Length of the vector that `encode` gives."""
    intervals = target.outputs
    return 2 * bins * (intervals + 1) + 2 + intervals * (intervals + 1)


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
      scores: (rows, intervals) hazards.
      labels: (rows,) of 2 * interval + event; 2 * intervals of who outlived the horizon.
      once: marks one row of every person with an event and one of every person without.
      target: gives the number of intervals.
      bins: over log-odds of -8 to 8 of the risk.

    Raises:
      ValueError: shapes differ, a score is not in [0, 1], or a label is no interval.
    """
    hazard, intervals = np.asarray(scores, dtype=np.float64), target.outputs
    label = np.asarray(labels).astype(np.int64)
    if hazard.shape != (len(label), intervals) or once.shape != label.shape:
        raise ValueError(f"scores {hazard.shape} do not fit {len(label)} labels of {intervals} intervals")
    if not ((hazard >= 0) & (hazard <= 1)).all() or not ((label >= 0) & (label <= 2 * intervals)).all():
        raise ValueError("a score is not a probability, or a label is no interval")
    interval, event = label // 2, label % 2
    survival: FloatArray = np.cumprod(1.0 - hazard, axis=1, dtype=np.float64)
    cells = logit_bins(1.0 - survival[:, -1], bins=bins) * 2 * (intervals + 1) + label
    is_event = (interval[:, None] == np.arange(intervals)) & (event == 1)[:, None]
    dead = np.tril((survival**2).T @ is_event)
    alive = ((1.0 - survival) ** 2 * (interval[:, None] > np.arange(intervals))).sum(axis=0)
    counts = np.bincount(cells, minlength=2 * bins * (intervals + 1)), np.bincount(event[once], minlength=2)
    parts = (*counts, fixed_point(dead.ravel()), fixed_point(alive))
    return np.concatenate([part.astype(np.int64) for part in parts])


def metrics(vector: Counts, *, target: Target, bins: int, min_cell: int) -> Figures:
    """Pooled metrics of survival; all None where fewer than ``min_cell`` people have an event, or none.

    Returns:
      ``c_index``: Harrell's over binned risks, ties of risk counting half, with ``low`` and ``high``, its 95%
      interval; the exact one lies within ``c_index_resolution`` of it. ``integrated_brier``: the mean over the ends
      of the intervals of the Brier score under Kaplan-Meier weights of censoring. ``n`` rows, ``n_events`` of them
      with an event.

    Source: Harrell et al. 1982; Graf et al. 1999.
    """
    cells, people, dead, alive = _read(vector, target, bins)
    if people.min() < max(min_cell, 1):
        return dict.fromkeys(_NAMES)
    area = concordance(cells)
    return {
        "c_index": None if area is None else area.value,
        "low": None if area is None else area.low,
        "high": None if area is None else area.high,
        "c_index_resolution": None if area is None else area.resolution,
        "integrated_brier": integrated_brier(cells.sum(axis=0), dead, alive),
        "n": int(cells.sum()),
        "n_events": int(cells[..., 1].sum()),
    }


def tables(vector: Counts, *, target: Target, bins: int, min_cell: int) -> dict[str, Table]:
    """No table."""
    return {}


def counted(vector: Counts, *, target: Target, bins: int) -> tuple[Counts, Counts]:
    """Rows, and people, without and with an event."""
    cells, people, _, _ = _read(vector, target, bins)
    return cells.sum(axis=(0, 1)).astype(np.int64), people


def concordance(cells: FloatArray) -> Area | None:
    """Harrell's C-index of counts by rising risk, interval and event, (bins, intervals, 2); None without a pair.

    A pair counts if one row has its event in an interval and the other is seen in a later one, or is censored in the
    same. The interval is that of a ratio of two U-statistics by Hajek's projection: with a and d a row's
    concordant and comparable pairs, the variance of C is sum (a - C d)^2 / pairs^2.

    Source: Hoeffding 1948; Pencina and D'Agostino 2004.
    """
    censored, events = cells[..., 0], cells[..., 1]
    seen = cells.sum(axis=2)
    later = _after(seen) + censored
    earlier = _before(events)
    as_event = _lower(later), later.sum(axis=0)
    pairs = float((events * as_event[1]).sum())
    if pairs <= 0:
        return None
    value = float((events * as_event[0]).sum()) / pairs
    spread = 0.0
    for counts, is_event, partners in ((events, True, earlier), (censored, False, earlier + events)):
        concordant, comparable = _higher(partners), np.broadcast_to(partners.sum(axis=0), partners.shape)
        if is_event:
            concordant, comparable = concordant + as_event[0], comparable + as_event[1]
        spread += float((counts * (concordant - value * comparable) ** 2).sum())
    ties = float((events * later).sum()) / (2 * pairs)
    sizes = float(events.sum()), float(cells.sum() - events.sum())
    return interval_of(value, spread / pairs**2, sizes=sizes, resolution=ties)


def integrated_brier(counts: FloatArray, dead: FloatArray, alive: FloatArray) -> float | None:
    """Mean over the ends of intervals of the Brier score under weights of censoring; None if nobody is weighed.

    Args:
      counts: rows by interval and event, (intervals + 1, 2); the last are those who outlived the horizon.
      dead: sum of S_j^2 over events in interval i, (intervals j, intervals i).
      alive: sum of (1 - S_j)^2 over rows seen after interval j, (intervals,).
    """
    censored, events = counts[:, 0], counts[:, 1]
    at_risk = counts.sum() - np.concatenate([[0.0], np.cumsum(counts.sum(axis=1))[:-1]])
    after = np.cumprod(1.0 - censored / np.maximum(at_risk - events, 1.0))
    before = np.concatenate([[1.0], after[:-1]])
    known = [j for j in range(len(alive)) if after[j] > 0]
    scores = [float((dead[j, : j + 1] / before[: j + 1]).sum() + alive[j] / after[j]) for j in known]
    return math.fsum(scores) / len(scores) / float(counts.sum()) if scores else None


def _read(vector: Counts, target: Target, bins: int) -> tuple[FloatArray, Counts, FloatArray, FloatArray]:
    intervals = target.outputs
    end = 2 * bins * (intervals + 1)
    if (vector[: end + 2] < 0).any():
        raise ValueError("a sum has a negative count")
    sums = vector[end + 2 :] / SCALE
    dead, alive = sums[:-intervals].reshape(intervals, intervals), sums[-intervals:]
    return vector[:end].astype(np.float64).reshape(bins, intervals + 1, 2), vector[end : end + 2], dead, alive


def _after(counts: FloatArray) -> FloatArray:
    """Counts in later intervals."""
    return np.asarray(counts.sum(axis=1, keepdims=True) - np.cumsum(counts, axis=1))


def _before(counts: FloatArray) -> FloatArray:
    """Counts in earlier intervals."""
    return np.cumsum(counts, axis=1) - counts


def _lower(counts: FloatArray) -> FloatArray:
    """Counts in bins of lower risk, and half of those in the same."""
    return np.cumsum(counts, axis=0) - counts / 2


def _higher(counts: FloatArray) -> FloatArray:
    """Counts in bins of higher risk, and half of those in the same."""
    return np.asarray(counts.sum(axis=0) - np.cumsum(counts, axis=0) + counts / 2)
