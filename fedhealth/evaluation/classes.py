"""Scores of several classes as counts that can be summed securely, and the pooled metrics.

Layout, with k classes and B bins of log-odds:

    [rows of other classes and of the class per class and bin (k, 2, B) | rows by true and predicted class (k, k)
     | people by the same (k, k)]

People are the marked rows of `one_row_each` with one side: a person is counted once in the whole table.
"""

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation.cells import Counts, Figures, Table, settle
from fedhealth.evaluation.curves import Area, auroc_with_interval
from fedhealth.evaluation.scores import logit_bins
from fedhealth.study.targets import Target

HEADLINE = "auroc"
BY_GROUP = ("auroc", "low", "high", "accuracy", "n")
BINS = (512, 128)


def sides(labels: NDArray[np.floating]) -> NDArray[np.int64]:
    """One side: people are counted once."""
    return np.zeros(len(labels), dtype=np.int64)


def length(target: Target, *, bins: int) -> int:
    """Length of the vector that `encode` gives."""
    return 2 * target.outputs * (bins + target.outputs)


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
      scores: (rows, classes) probabilities; the largest is the prediction, of equal ones the first.
      labels: (rows,), the number of the class.
      once: marks one row of every person.
      target: names the classes.
      bins: over log-odds of -8 to 8.

    Raises:
      ValueError: shapes differ, a score is not in [0, 1], or a label is no class.
    """
    probability, size = np.asarray(scores, dtype=np.float64), target.outputs
    truth = np.asarray(labels).astype(np.int64)
    if probability.shape != (len(truth), size) or once.shape != truth.shape:
        raise ValueError(f"scores {probability.shape} do not fit {len(truth)} labels of {size} classes")
    if not ((probability >= 0) & (probability <= 1)).all() or not ((truth >= 0) & (truth < size)).all():
        raise ValueError("a score is not a probability, or a label is no class")
    one_hot = truth[:, None] == np.arange(size)
    place = (np.arange(size) * 2 + one_hot) * bins + logit_bins(probability, bins=bins)
    cell = truth * size + probability.argmax(axis=1) if len(truth) else truth
    parts = (
        np.bincount(place.ravel(), minlength=2 * size * bins),
        np.bincount(cell, minlength=size**2),
        np.bincount(cell[once], minlength=size**2),
    )
    return np.concatenate([part.astype(np.int64) for part in parts])


def metrics(vector: Counts, *, target: Target, bins: int, min_cell: int) -> Figures:
    """Pooled metrics of several classes; None where fewer than ``min_cell`` people would show.

    Returns:
      ``auroc``: the mean of the one-versus-rest areas of the classes that may be told, and by class ``home.auroc``
      with ``home.low`` and ``home.high`` (DeLong). The areas of one model depend on each other, so ``low`` and
      ``high`` are the means of theirs: never too narrow, as the sd of a mean is at most the mean sd.
      ``auroc_resolution``: what binning can hide of ``auroc``. ``accuracy``: None unless enough people were
      predicted rightly, and wrongly. ``n`` rows.
    """
    histograms, rows, people = _read(vector, target, bins)
    areas: list[Area | None] = []
    for own, (rest, members) in zip(people.sum(axis=1), histograms, strict=True):
        is_told = min(own, people.sum() - own) >= min_cell
        areas.append(auroc_with_interval(rest, members) if is_told else None)
    shown = [area for area in areas if area is not None]
    (wrong, right), sides = _sides(rows).sum(axis=0), _sides(people).sum(axis=0)
    figures: dict[str, float | None] = {
        "auroc": _mean([area.value for area in shown]),
        "low": _mean([area.low for area in shown]),
        "high": _mean([area.high for area in shown]),
        "auroc_resolution": _mean([area.resolution for area in shown]),
        "accuracy": int(right) / int(wrong + right) if sides.min() >= min_cell else None,
        "n": int(rows.sum()) if people.sum() >= min_cell else None,
    }
    for name, area in zip(target.classes, areas, strict=True):
        for key, value in zip(("auroc", "low", "high"), _area_figures(area), strict=True):
            figures[f"{name}.{key}"] = value
    return figures


def tables(vector: Counts, *, target: Target, bins: int, min_cell: int) -> dict[str, Table]:
    """The table ``confusion``: lines by true class (``true``, ``n``), columns by predicted class, None where hidden.

    Guarantees: what is told, and whatever follows from it and from `metrics` by subtraction, is a number of
    rows of at least ``min_cell`` people, or 0. A cell that is too small is hidden; so is, unless the hidden ones of
    its line are many enough together, the smallest other misprediction of the line. A line whose right predictions
    are too few is hidden whole, and so are further lines until those hidden are many enough together.
    """
    _, rows, people = _read(vector, target, bins)
    cells = [
        _shown_cells(rows[truth], people[truth], truth, min_cell) for truth in range(len(target.classes))
    ]
    whole = _sides(rows).sum(axis=0), _sides(people).sum(axis=0)
    is_line = np.array([cell is not None for cell in cells])
    lines = settle(is_line, _sides(rows), _sides(people), whole=whole, min_cell=min_cell)
    table = []
    for truth, name in enumerate(target.classes):
        shown, is_told = cells[truth], bool(lines[truth])
        line: dict[str, float | str | None] = {
            "true": name,
            "n": int(rows[truth].sum()) if is_told else None,
        }
        for predicted, other in enumerate(target.classes):
            is_shown = is_told and shown is not None and bool(shown[predicted])
            line[other] = int(rows[truth, predicted]) if is_shown else None
        table.append(line)
    return {"confusion": tuple(table)}


def counted(vector: Counts, *, target: Target, bins: int) -> tuple[Counts, Counts]:
    """Rows, and people, predicted wrongly and rightly."""
    rows, people = vector[-2 * target.outputs**2 :].reshape(2, target.outputs, target.outputs)
    return _sides(rows).sum(axis=0), _sides(people).sum(axis=0)


def _read(vector: Counts, target: Target, bins: int) -> tuple[NDArray[np.float64], Counts, Counts]:
    size = target.outputs
    end = 2 * size * bins
    if (vector < 0).any():
        raise ValueError("a sum has a negative count")
    rows, people = vector[end:].reshape(2, size, size)
    return vector[:end].astype(np.float64).reshape(size, 2, bins), rows, people


def _sides(table: Counts) -> Counts:
    """By true class: predicted wrongly, predicted rightly."""
    right = table.diagonal()
    return np.column_stack([table.sum(axis=1) - right, right])


def _shown_cells(rows: Counts, people: Counts, truth: int, min_cell: int) -> NDArray[np.bool_] | None:
    """Which cells of a line may be told; None if none may."""
    shown: NDArray[np.bool_] = (rows == 0) | (people >= min_cell)
    if not shown[truth] or not rows.any():
        return None
    if shown.all() or people[~shown].sum() >= min_cell:
        return shown
    others = [each for each in np.argsort(people) if each != truth and shown[each] and rows[each]]
    if not others:
        return None
    shown[others[0]] = False
    return shown


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _area_figures(area: Area | None) -> tuple[float | None, ...]:
    return (None, None, None) if area is None else (area.value, area.low, area.high)
