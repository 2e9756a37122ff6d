"""Who is kept out by sketches alone: the attacks of the suite, and no honest site."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator.attacks import ON_UPDATES

from fedhealth.aggregation.plausibility import implausible

SITES = tuple(f"site-{number:02d}" for number in range(1, 16))
LIARS = SITES[:3]
ALIKE = dict.fromkeys(SITES, 1.0)
RESULTS = {"sign flip": True, "x10": True, "inner product": True, "ALIE": False}
"""Whether an attack is found: a little is enough not to be, and does as little."""


def sketched(updates, seed=1):
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(updates.shape[1], 64))
    return {site: (row * 1e6).round() @ signs for site, row in zip(SITES, updates, strict=True)}


def honest_updates(seed, *, sites=15, agreement=1.0, columns=2000):
    """Updates around a common one; ``agreement`` is its length over that of a site's own part."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=columns)
    return agreement * common + generator.normal(size=(sites, columns))


@pytest.mark.parametrize("attack", sorted(ON_UPDATES))
@pytest.mark.parametrize("seed", range(5))
def test_attackers_are_found_unless_they_look_like_the_others(attack, seed):
    updates = honest_updates(seed)
    updates[:3] = ON_UPDATES[attack](updates[3:], 3)
    found = implausible(sketched(updates, seed), weights=ALIKE)
    assert set(found) == (set(LIARS) if RESULTS[attack] else set())


@pytest.mark.parametrize("seed", range(20))
def test_liars_who_all_send_the_same_do_not_hide_where_honest_sites_hardly_agree(seed):
    updates = honest_updates(seed, agreement=0.35)
    updates[:3] = ON_UPDATES["sign flip"](updates[3:], 3)
    found = set(implausible(sketched(updates, seed), weights=ALIKE))
    assert found >= set(LIARS)
    assert len(found) <= 4  # what 15 sites can spare


@given(seed=st.integers(0, 2**32), agreement=st.sampled_from([0.3, 1.0, 3.0]))
def test_honest_sites_that_agree_a_little_all_stay(seed, agreement):
    assert implausible(sketched(honest_updates(seed, agreement=agreement), seed), weights=ALIKE) == {}


def test_of_pure_noise_hardly_any_site_is_left_out():
    left_out = [
        len(implausible(sketched(honest_updates(seed, agreement=0.0), seed), weights=ALIKE))
        for seed in range(60)
    ]
    assert np.mean(left_out) < 0.1


def test_the_order_of_sites_does_not_matter():
    updates = honest_updates(4)
    updates[:3] = ON_UPDATES["sign flip"](updates[3:], 3)
    sketches = sketched(updates)
    backwards = dict(reversed(sketches.items()))
    assert implausible(backwards, weights=ALIKE) == implausible(sketches, weights=ALIKE)


def test_updates_of_nothing_are_plausible():
    updates = np.zeros((15, 300))
    assert implausible(sketched(updates), weights=ALIKE) == {}
    updates[3] = 1.0
    assert set(implausible(sketched(updates), weights=ALIKE)) == {"site-04"}


def test_a_liar_does_not_buy_length_by_the_size_that_it_states():
    generator = np.random.default_rng(1)
    usual = generator.normal(size=64) * 1000
    sketches = {f"s{i}": [int(x) for x in usual + generator.normal(size=64) * 800] for i in range(14)}
    sketches["liar"] = [int(x * 100) for x in usual]
    for size in (512.0, 8192.0, 2.0**40):
        weights = dict.fromkeys(sketches, 512.0) | {"liar": size}
        assert set(implausible(sketches, weights=weights)) == {"liar"}


def test_a_large_site_may_go_as_far_as_its_size_takes_it():
    generator = np.random.default_rng(2)
    usual = generator.normal(size=64) * 1000
    sketches = {f"s{i}": [int(x) for x in usual + generator.normal(size=64) * 300] for i in range(14)}
    sketches["large"] = [int(x * 8) for x in usual]
    weights = dict.fromkeys(sketches, 512.0)
    assert set(implausible(sketches, weights=weights)) == {"large"}
    assert implausible(sketches, weights=weights | {"large": 4096.0}) == {}


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="not positive and finite"):
        implausible({"a": [1, 2], "b": [1, 2], "c": [2, 1]}, weights={"a": 1.0, "b": 1.0, "c": size})
