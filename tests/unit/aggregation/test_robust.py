"""The robust rules say what byzfl says, and keep what their docstrings promise."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedhealth.aggregation.robust import (
    RULES,
    centred_clipping,
    geometric_median,
    krum,
    multi_krum,
    trimmed_mean,
)

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "robust.json").read_text())["cases"]
BOUNDED = ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "centred_clipping")


def rows_of(seed, sites, columns):
    return np.random.default_rng(seed).normal(size=(sites, columns))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['updates'])} rows")
@pytest.mark.parametrize("name", sorted(set(RULES) - {"centred_clipping"}))
def test_a_rule_says_what_byzfl_says(name, case):
    found = RULES[name](
        np.array(case["updates"]), case["attackers"]
    )  # 50 steps of Weiszfeld's, and byzfl's 2000
    np.testing.assert_allclose(found, case["answers"][name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['updates'])} rows")
def test_centred_clipping_from_zero_says_what_byzfl_says(case):
    updates = np.array(case["updates"])
    found = centred_clipping(updates, radius=2.0, start=np.zeros(updates.shape[1]), steps=5)
    np.testing.assert_allclose(found, case["answers"]["centred_clipping"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BOUNDED)
@given(
    seed=st.integers(0, 2**32), size=st.sampled_from([0.0, 1.0, 1e3, 1e9]), sign=st.sampled_from([-1.0, 1.0])
)
def test_attackers_below_the_breakdown_point_cannot_move_the_result_far(name, seed, size, sign):
    updates = rows_of(seed, 9, 5)
    honest = updates[3:]
    updates[:3] = sign * size
    found = RULES[name](updates, 3)
    reach = 4.0 * np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    assert np.linalg.norm(found - honest.mean(axis=0)) <= reach


def test_a_majority_moves_the_median_as_far_as_it_likes():
    updates = rows_of(0, 9, 5)
    updates[:5] = 1e9
    assert (RULES["median"](updates, 0) > 1e8).all()


@pytest.mark.parametrize("name", BOUNDED)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_the_order_of_sites_does_not_matter(name, seed, data):
    updates = rows_of(seed, 9, 5)
    order = data.draw(st.permutations(range(9)))
    np.testing.assert_allclose(RULES[name](updates, 2), RULES[name](updates[order], 2), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", BOUNDED)
def test_equal_updates_come_out_as_they_are(name):
    row = rows_of(3, 1, 6)
    np.testing.assert_allclose(RULES[name](np.repeat(row, 7, axis=0), 2), row[0], rtol=1e-15)


def test_krum_gives_a_row_and_multi_krum_leaves_the_attackers_out():
    updates = rows_of(5, 9, 4)
    updates[[1, 4]] += 100.0
    assert any((krum(updates, attackers=2) == row).all() for row in updates)
    honest = np.delete(updates, [1, 4], axis=0)
    np.testing.assert_allclose(multi_krum(updates, attackers=2), honest.mean(axis=0), rtol=1e-12)


def test_trimming_nothing_is_the_mean():
    updates = rows_of(6, 4, 3)
    np.testing.assert_allclose(trimmed_mean(updates, attackers=0), updates.mean(axis=0), rtol=1e-14)


def test_the_geometric_median_has_the_smallest_sum_of_distances():
    updates = rows_of(7, 8, 3)
    found = geometric_median(updates)

    def cost(point):
        return np.linalg.norm(updates - point, axis=1).sum()

    nudges = 1e-3 * rows_of(8, 50, 3)
    assert all(cost(found) < cost(found + nudge) for nudge in nudges)


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize(
    "updates", [np.zeros(4), np.zeros((0, 4)), np.array([[0.0, np.nan]] * 5), np.array([[np.inf]] * 5)]
)
def test_what_is_no_matrix_of_finite_numbers_is_refused(name, updates):
    with pytest.raises(ValueError, match="finite"):
        RULES[name](updates, 1)


@pytest.mark.parametrize("name", ["trimmed_mean", "krum", "multi_krum"])
@pytest.mark.parametrize("attackers", [-1, 2])
def test_too_few_rows_for_the_attackers_are_refused(name, attackers):
    with pytest.raises(ValueError, match="too few"):
        RULES[name](rows_of(9, 4, 3), attackers)
