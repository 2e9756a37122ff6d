"""How a value becomes a bin, and a row finds its place in a tree, by hand."""

import numpy as np
import pytest

from fedhealth.models.stepwise.trees import (
    BINS,
    MISSING,
    Tree,
    add_trees,
    bare_trees,
    bin_features,
    place_rows,
    tree_of,
    with_tree,
)
from fedhealth.study.columns import FeatureColumn

TREE = Tree(
    feature=np.array([1, -1, 0]),
    bin=np.array([9, -1, 30]),
    missing_left=np.array([False, False, True]),
    value=np.array([0.5, 9.0, -1.0, 2.0], dtype=np.float32),
)
"""Column 1 at the root; below it no split on the left, column 0 on the right."""


def test_bins_are_equal_parts_of_the_public_bounds():
    columns = (FeatureColumn("age", 0, 64, "number"), FeatureColumn("flag", 0, 1, "flag"))
    values = np.array(
        [[0, 0], [0.99, 1], [1, np.nan], [63.5, 0], [64, 1], [np.inf, 0], [-5, 0]], dtype=np.float32
    )
    bins = bin_features(values, columns)
    assert bins[:, 0].tolist() == [0, 0, 1, 63, 63, 63, 0]
    assert bins[:, 1].tolist() == [0, 63, MISSING, 0, 63, 0, 0]
    with pytest.raises(ValueError, match="do not fit"):
        bin_features(values[:, :1], columns)


ROWS = np.array([[0, 9], [0, 10], [31, 63], [MISSING, MISSING], [MISSING, 0]], dtype=np.uint8)


def test_rows_are_placed_level_by_level():
    assert place_rows(TREE, ROWS, levels=0).tolist() == [0, 0, 0, 0, 0]
    assert place_rows(TREE, ROWS, levels=1).tolist() == [0, 1, 1, 1, 0]
    assert place_rows(TREE, ROWS, levels=2).tolist() == [0, 2, 3, 2, 0]  # no split: all go left


def test_trees_add_up_and_come_back():
    bare = bare_trees(trees=3, depth=2)
    model = with_tree(with_tree(bare, 0, TREE), 2, TREE)
    assert not bare["trees.value"].any()
    assert add_trees(bare, ROWS, base=0.25).tolist() == [0.25] * 5
    assert add_trees(model, ROWS, base=0.25).tolist() == [1.25, -1.75, 4.25, -1.75, 1.25]
    for name in ("feature", "bin", "missing_left", "value"):
        np.testing.assert_array_equal(getattr(tree_of(model, 2), name), getattr(TREE, name))
    assert tree_of(model, 1).feature.tolist() == [-1] * 3
    assert TREE.depth == 2
    assert BINS == MISSING
