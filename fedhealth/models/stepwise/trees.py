"""Trees over binned features: how a value becomes a bin, how a row finds its leaf, how trees lie in weights.

A tree of depth d has 2^d - 1 inner nodes, numbered level by level, and 2^d leaves. A row goes left at a node if its
bin is at most the node's. A node without a split (feature -1) sends every row left, down to the leftmost leaf below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.weights import Weights
from fedhealth.study.columns import FeatureColumn

BINS = 64
"""Equal bins between the public clip bounds of a column."""

MISSING = BINS
"""The bin of a missing value."""

Bins = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree.

    Attributes:
      feature: int64 (2^depth - 1,), the column that a node asks; -1 for no split.
      bin: int64, the same shape: the last bin that goes left.
      missing_left: bool, the same shape: whether a missing value goes left.
      value: float32 (2^depth,), what a leaf adds to the score.
    """

    feature: NDArray[np.int64]
    bin: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float32]

    @property
    def depth(self) -> int:
        """Levels of inner nodes."""
        return len(self.value).bit_length() - 1


def bare_tree(depth: int) -> Tree:
    """A tree without splits, of value 0."""
    nodes = 2**depth - 1
    return Tree(
        feature=np.full(nodes, -1, dtype=np.int64),
        bin=np.full(nodes, -1, dtype=np.int64),
        missing_left=np.zeros(nodes, dtype=np.bool_),
        value=np.zeros(2**depth, dtype=np.float32),
    )


def bin_features(features: NDArray[np.float32], columns: Sequence[FeatureColumn]) -> Bins:
    """Sort raw values into `BINS` equal bins between their column's public bounds; missing ones into `MISSING`.

    Guarantees: a row's bins depend on that row alone; a value beyond the bounds falls into the outer bin.

    Args:
      features: (rows, columns), raw units, NaN where missing.
      columns: the public bounds.

    Returns:
      uint8 (rows, columns).

    Raises:
      ValueError: another number of columns.
    """
    if features.ndim != 2 or features.shape[1] != len(columns):
        raise ValueError(f"features {features.shape} do not fit {len(columns)} columns")
    bins = np.empty(features.shape, dtype=np.uint8)
    for index, column in enumerate(columns):
        values = features[:, index].astype(np.float64)
        missing = np.isnan(values)
        share = np.clip(
            (np.where(missing, column.low, values) - column.low) / (column.high - column.low), 0, 1
        )
        bins[:, index] = np.where(missing, MISSING, np.minimum(share * BINS, BINS - 1))
    return bins


def place_rows(tree: Tree, bins: Bins, *, levels: int) -> NDArray[np.int64]:
    """Where rows stand after so many levels: 0 is the leftmost node of that level.

    Returns:
      int64 (rows,), each below 2^levels.
    """
    goes_right = _turns(tree).ravel()
    asked = np.maximum(tree.feature, 0)
    values, starts = bins.ravel(), np.arange(len(bins)) * bins.shape[1]
    place = np.zeros(len(bins), dtype=np.int64)
    for level in range(levels):
        node = place + ((1 << level) - 1)
        place = 2 * place + goes_right.take(node * (BINS + 1) + values.take(starts + asked.take(node)))
    return place


def _turns(tree: Tree) -> NDArray[np.int64]:
    """1 where a bin (column) goes right at a node (row)."""
    right = np.arange(BINS + 1) > tree.bin[:, None]
    right[:, MISSING] = ~tree.missing_left
    right[tree.feature < 0] = False
    return right.astype(np.int64)


def add_trees(model: Weights, bins: Bins, *, base: float) -> NDArray[np.float64]:
    """``base`` plus the values of all trees of a model, in their order.

    Guarantees: float64 additions in one order, so a row's score depends on that row and the model alone.

    Returns:
      float64 (rows,).
    """
    total = np.full(len(bins), np.float64(base))
    for index in np.flatnonzero(model["trees.value"].any(axis=1)):
        tree = tree_of(model, int(index))
        total += tree.value[place_rows(tree, bins, levels=tree.depth)]
    return total


def bare_trees(*, trees: int, depth: int) -> Weights:
    """Room for so many trees, as named arrays of `Tree`'s fields with a first dimension of trees."""
    bare = bare_tree(depth)
    model: Weights = {}
    for name in ("feature", "bin", "missing_left", "value"):
        row = getattr(bare, name).astype(np.float32)
        model[f"trees.{name}"] = np.tile(row, (trees, 1))
    return model


def tree_of(model: Weights, index: int) -> Tree:
    """Read one tree out of a model."""
    return Tree(
        feature=model["trees.feature"][index].astype(np.int64),
        bin=model["trees.bin"][index].astype(np.int64),
        missing_left=model["trees.missing_left"][index] > 0,
        value=model["trees.value"][index],
    )


def with_tree(model: Weights, index: int, tree: Tree) -> Weights:
    """A copy of a model in which one tree is another."""
    changed = {name: array.copy() for name, array in model.items()}
    for name in ("feature", "bin", "missing_left", "value"):
        changed[f"trees.{name}"][index] = getattr(tree, name)
    return changed
