"""Gradient-boosted trees from secure sums of histograms: one tree a round, one sum per level of it.

Everybody grows the same tree from the same opened integers; the values of the leaves follow from the split above
them, so that the last level needs no sum of its own. A model is the named arrays

    base         (1,)               the score of a row before any tree: log-odds, or a share of a number's bounds
    trees.*      (rounds, ...)      as `fedhealth.models.stepwise.trees` says; a tree not grown yet adds 0

The base is the consortium's. At score 0 all rows have one hessian, so the root's histogram of the first tree tells
how many rows and how much of the outcome are in each cell, and what their gradients would be at any other common
score; that tree is grown as if its root had been summed at the base.

    gradient     d loss / d score       hessian     d2 loss / d score2       leaf    -learning_rate * G / (H + l2)

Source: Chen and Guestrin 2016, sections 2.2 and 3.4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import PolicyError
from fedhealth.models.stepwise.exact import exact_log
from fedhealth.models.stepwise.rows import TrainingRows
from fedhealth.models.stepwise.splits import (
    SCALE,
    Split,
    SplitRule,
    Sums,
    best_split,
    cells_of,
    histogram_length,
    histograms,
    node_sums,
)
from fedhealth.models.stepwise.trees import (
    Tree,
    add_trees,
    bare_tree,
    bare_trees,
    bin_features,
    place_rows,
    with_tree,
)
from fedhealth.models.weights import Weights, sorted_weights
from fedhealth.study.columns import FeatureColumn
from fedhealth.study.spec import Study
from fedhealth.study.targets import Target, targets_of

INPUTS: Literal["raw", "prepared"] = "raw"

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def steps_of(study: Study) -> int:
    """Sums per round: one for each level of the tree."""
    return study.model.depth


def step_length(study: Study, columns: Sequence[FeatureColumn], *, step: int) -> int:
    """Length of the vector of a step, 0 for the root's."""
    return histogram_length(columns=len(columns), level=step)


def initial_model(study: Study, columns: Sequence[FeatureColumn]) -> Weights:
    """A model of base 0 with room for ``training.rounds`` trees; a function of the study alone."""
    trees = bare_trees(trees=study.training.rounds, depth=study.model.depth)
    return sorted_weights({"base": np.zeros(1, dtype=np.float32), **trees})


def encode_step(
    model: Weights,
    opened: Sequence[Integers],
    rows: TrainingRows,
    *,
    columns: Sequence[FeatureColumn],
    study: Study,
) -> Integers:
    """One site's histograms of the next level of the round's tree.

    Guarantees: the vectors of any partition of the rows by person add up to that of all, bit for bit; rows of
    unknown label count nowhere.

    Args:
      model: the round's.
      opened: the sums of the steps before this one, in order.
      rows: in raw units.
      columns: the public bounds.
      study: the study.

    Returns:
      int64 of `step_length`. Zero rows give zeros.

    Raises:
      DataError: more rows than a sum has room for.
      PolicyError, ProtocolError: as `next_model`, about the opened sums.
      ValueError: shapes do not fit.
    """
    target, level = targets_of(study)[0], len(opened)
    known = rows.known(columns=len(columns))
    bins = bin_features(known.inputs, columns)
    growth = _grow(model, opened, columns, study)
    scores = add_trees(model, bins, base=growth.base)
    gradient, hessian = _LOSSES[target.kind].slopes(scores, _as_learnt(known.labels, target))
    lanes = (_fixed_point(gradient), _fixed_point(hessian), known.person_parts())
    return histograms(lanes, bins, place_rows(growth.tree, bins, levels=level), level=level)


def next_model(
    model: Weights,
    opened: Sequence[Integers],
    *,
    columns: Sequence[FeatureColumn],
    study: Study,
    number: int,
) -> Weights:
    """The model with the tree that a round's opened sums give.

    Guarantees: no function but + - * /, in one order, and a correctly rounded logarithm, so everybody who has
    the same sums gets the same bytes. Both sides of every split, and the tree's base, tell of at least
    ``model.min_people`` people, and never of fewer than ``evaluation.min_cell``.

    Args:
      model: the round's.
      opened: the sums of all steps of the round.
      columns: of the histograms.
      study: the study.
      number: the round, from 1.

    Raises:
      PolicyError: too few people for any model, or too few rows on one side of a yes or no.
      ProtocolError: sums that no rows can have.
      ValueError: another number of sums, or of a round, than the study has.
    """
    if len(opened) != steps_of(study) or not 1 <= number <= study.training.rounds:
        raise ValueError(f"{len(opened)} sums of round {number} are no round of the study")
    growth = _grow(model, opened, columns, study)
    changed = with_tree(model, number - 1, growth.tree)
    changed["base"] = np.array([growth.base], dtype=np.float32)
    return sorted_weights(changed)


def score(
    model: Weights, inputs: NDArray[np.float32], *, columns: Sequence[FeatureColumn], study: Study
) -> NDArray[np.float32]:
    """Score rows; a row's score depends on that row and the model alone.

    Args:
      model: of the study.
      inputs: (rows, columns) in raw units, NaN where missing.
      columns: the public bounds.
      study: the study.

    Returns:
      float32 (rows, 1): a probability, or the number in its unit and within its bounds.
    """
    target = targets_of(study)[0]
    scores = add_trees(model, bin_features(inputs, columns), base=float(model["base"][0]))
    return _LOSSES[target.kind].output(scores, target).astype(np.float32)[:, None]


@dataclass(frozen=True, slots=True)
class _Growth:
    """A tree as far as it is known, and the base that its scores start from."""

    base: float
    tree: Tree


def _grow(
    model: Weights, opened: Sequence[Integers], columns: Sequence[FeatureColumn], study: Study
) -> _Growth:
    """Grow as many levels as sums are opened."""
    tree, base, start = bare_tree(study.model.depth), float(model["base"][0]), _rule(study)
    for level, vector in enumerate(opened):
        cells = cells_of(vector, columns=len(columns), level=level)
        if level == 0 and _is_untrained(model):
            base, start = _base_of(node_sums(cells[0]), study)
        rule = start if level == 0 else _rule(study)
        splits = [best_split(node, rule) for node in cells]
        tree = _with_level(tree, level, splits, study)
    return _Growth(base, tree)


def _with_level(tree: Tree, level: int, splits: Sequence[Split], study: Study) -> Tree:
    """Write the splits of one level; of the last also the values below it."""
    first = 2**level - 1
    grown = replace(tree, **{name: getattr(tree, name).copy() for name in ("feature", "bin", "missing_left")})
    for node, split in enumerate(splits, start=first):
        grown.feature[node], grown.bin[node] = split.feature, split.bin
        grown.missing_left[node] = split.missing_left
    if level < tree.depth - 1:
        return grown
    values = [_leaf(side, study) for split in splits for side in (split.left, split.right)]
    return replace(grown, value=np.array(values, dtype=np.float32))


def _leaf(sums: Sums, study: Study) -> float:
    return float(-study.model.learning_rate * sums.gradient / (sums.hessian + study.model.l2))


def _rule(study: Study, *, slope: float = 0.0, factor: float = 1.0) -> SplitRule:
    people = max(study.model.min_people, study.evaluation.min_cell)
    return SplitRule(l2=study.model.l2, min_people=people, slope=slope, factor=factor)


def _is_untrained(model: Weights) -> bool:
    return not model["base"].any() and not model["trees.value"].any()


def _base_of(root: Sums, study: Study) -> tuple[float, SplitRule]:
    """The common score that fits the consortium best, and how a histogram summed at score 0 is read at it."""
    if root.people < study.evaluation.min_cell:
        raise PolicyError("too few people have a label", "widen the cohort, or add sites")
    base, slope, factor = _LOSSES[targets_of(study)[0].kind].start(root, study)
    return float(np.float32(base)), _rule(study, slope=slope, factor=factor)


def _fixed_point(values: Floats) -> Integers:
    return np.rint(values * SCALE).astype(np.int64)


def _as_learnt(labels: NDArray[np.float32], target: Target) -> Floats:
    """0 or 1; of a number its share of the public bounds."""
    values = labels.astype(np.float64)
    if target.kind == "binary":
        return values
    return np.asarray((np.clip(values, target.low, target.high) - target.low) / (target.high - target.low))


@dataclass(frozen=True, slots=True)
class _Loss:
    """A loss: its slopes at scores; base, slope and factor from the root at score 0; what a score means."""

    slopes: Callable[[Floats, Floats], tuple[Floats, Floats]]
    start: Callable[[Sums, Study], tuple[float, float, float]]
    output: Callable[[Floats, Target], Floats]


def _sigmoid(scores: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))


def _logistic_slopes(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    probability = _sigmoid(scores)
    return probability - labels, probability * (1.0 - probability)


def _logistic_start(root: Sums, study: Study) -> tuple[float, float, float]:
    """At score 0 a row's gradient is 1/2 - label and its hessian 1/4."""
    rows, positive = float(4.0 * root.hessian), float(2.0 * root.hessian - root.gradient)
    if min(positive, rows - positive) < study.evaluation.min_cell:
        raise PolicyError(
            "too few rows have the outcome, or too few lack it", "widen the outcome's window, or add sites"
        )
    share = positive / rows
    return exact_log(positive / (rows - positive)), 4.0 * share - 2.0, 4.0 * share * (1.0 - share)


def _square_slopes(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    return np.clip(scores, 0.0, 1.0) - labels, np.ones(len(labels))


def _square_start(root: Sums, study: Study) -> tuple[float, float, float]:
    """At score 0 a row's gradient is -label and its hessian 1."""
    mean = float(-root.gradient / root.hessian)
    return mean, mean, 1.0


def _number(scores: Floats, target: Target) -> Floats:
    return np.asarray(target.low + np.clip(scores, 0.0, 1.0) * (target.high - target.low))


_LOSSES = {
    "binary": _Loss(_logistic_slopes, _logistic_start, lambda scores, target: _sigmoid(scores)),
    "number": _Loss(_square_slopes, _square_start, _number),
}
