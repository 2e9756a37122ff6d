"""The tag of an exact sum fits the sum of the sites' vectors, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.sums import TAG_KEY, key_of, make_plan, make_sites, make_vectors, run_sum

from fedhealth.secagg import tags
from fedhealth.secagg.prg import TAG_PRIME
from fedhealth.secagg.tags import LARGEST, is_tagged
from fedhealth.secagg.words import Words

LIAR = "site-02"


def fits(opened, plan, *, key=TAG_KEY, vector=None, survivors=None):
    vector = opened.vector if vector is None else vector
    return is_tagged(vector, opened.tag, key=key, plan=plan, survivors=survivors or opened.survivors)


@settings(max_examples=40, deadline=None)
@given(
    ring_bits=st.sampled_from([32, 64]),
    length=st.integers(1, 300),
    count=st.integers(3, 9),
    seed=st.integers(0, 2**32 - 1),
    drop=st.booleans(),
)
def test_the_tag_fits_the_sum_of_whoever_survives(ring_bits, length, count, seed, drop):
    plan = make_plan(count, ring_bits=ring_bits, length=length)
    silent = {"masked": {plan.cohort[0]}} if drop and plan.threshold < count else None
    opened = run_sum(plan, make_sites(plan, seed), make_vectors(plan, seed), silent=silent)
    assert fits(opened, plan)


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 39), by=st.integers(-(2**62), 2**62).filter(bool))
def test_a_change_of_one_entry_does_not_fit(place, by):
    plan = make_plan(3, ring_bits=64)
    opened = run_sum(plan, make_sites(plan), make_vectors(plan))
    other = opened.vector.copy()
    other[place] = np.int64((int(other[place]) + by + 2**63) % 2**64 - 2**63)
    assert not fits(opened, plan, vector=other)


@pytest.mark.parametrize("times", [1, 2, 3, -1, -2, -3])
def test_a_change_by_a_multiple_of_the_prime_does_not_fit_either(times):
    """Such a vector has the same products; but its entry is none that sites can come to."""
    plan = make_plan(3, ring_bits=64)
    opened = run_sum(plan, make_sites(plan), make_vectors(plan))
    other = opened.vector.copy()
    other[5] += times * TAG_PRIME
    assert not fits(opened, plan, vector=other)


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("length", [1, 4095, 4096, 4097, 70_000])
def test_the_product_is_that_of_whole_integers_from_both_ends_of_their_range(ring_bits, length):
    plan = make_plan(3, ring_bits=ring_bits, length=length)
    largest = min(2 ** (ring_bits - 1), LARGEST) - 1
    vector = np.random.default_rng(length).choice([-largest, -1, 0, 1, largest], length)
    inner = [int(each) for each in tags._factors(TAG_KEY, plan, "inner", 4096)]
    outer = [int(each) for each in tags._factors(TAG_KEY, plan, "outer", -(-length // 4096))]
    factors = (outer[place // 4096] * inner[place % 4096] for place in range(length))
    expected = sum(factor * int(entry) for factor, entry in zip(factors, vector, strict=True)) % TAG_PRIME
    assert tags._product(vector, TAG_KEY, plan) == expected
    words = vector.view("<u8").astype(f"<u{ring_bits // 8}")
    assert tags._product(words, TAG_KEY, plan) == expected


def test_the_top_bit_of_an_entry_is_no_exception():
    """In a ring 2^m a linear check modulo 2^m would pass half of these."""
    plan = make_plan(3)
    opened = run_sum(plan, make_sites(plan), make_vectors(plan))
    for place in range(plan.length):
        other = opened.vector.copy()
        other[place] ^= -(2**31)
        assert not fits(opened, plan, vector=other)


def test_multiples_of_a_sum_other_survivors_and_another_key_do_not_fit():
    plan = make_plan(4)
    opened = run_sum(plan, make_sites(plan), make_vectors(plan))
    assert fits(opened, plan)
    for factor in (0, -1, 2):
        assert not fits(opened, plan, vector=factor * opened.vector)
    assert not fits(opened, plan, survivors=plan.cohort[:3])
    assert not fits(opened, plan, key=key_of("another"))
    assert not fits(opened, make_plan(4, counter=1))


def test_a_wrong_mask_between_two_sites_is_noticed():
    """What the liar committed to is right; then it takes that mask off again and puts another on."""
    plan = make_plan(5)
    sites = make_sites(plan)
    right = sites[LIAR]._pair_seeds["site-04"]

    def forge(phase, site, payload):
        if (phase, site) != ("masked", LIAR):
            return payload
        words = Words.zeros(plan)
        words.add(Words.from_bytes(plan, payload))
        words.apply_masks([(right, 1), (key_of("wrong"), -1)])
        return words.to_bytes()

    opened = run_sum(plan, sites, make_vectors(plan), forge=forge)
    assert opened.blamed == {}
    assert not fits(opened, plan)


@settings(max_examples=60, deadline=None)
@given(
    counter=st.integers(0, 2**31),
    moved=st.lists(st.integers(-(2**20), 2**20), min_size=4, max_size=4),
)
def test_what_opens_does_not_tell_who_gave_what(counter, moved):
    """Two worlds with one sum: people are at one site, or at another. All that opens is the same, under every plan."""
    plan = make_plan(3, ring_bits=64, length=4, counter=counter)
    here = {name: np.array([1000, 200, 30, 4]) + number for number, name in enumerate(plan.cohort)}
    there = dict(here)
    for name, sign in ((plan.cohort[0], 1), (plan.cohort[1], -1)):
        there[name] = here[name] + sign * np.array(moved)
    first, second = (run_sum(plan, make_sites(plan), world) for world in (here, there))
    assert (first.vector == second.vector).all()
    assert first.tag == second.tag


def test_masked_tags_are_spread_over_all_integers_below_the_prime():
    """Of one vector and one key, under a plan each: 400 values, so the largest and smallest are near the ends."""
    values = []
    for counter in range(400):
        plan = make_plan(3, length=1, counter=counter)
        sites = make_sites(plan, seed=counter)
        shares = {name: site.share() for name, site in sites.items()}
        upload = sites["site-01"].mask(shares, np.array([7]))
        values.append(int.from_bytes(upload[4:], "little") / TAG_PRIME)
    assert 0.0 <= min(values) < 0.03
    assert 0.97 < max(values) < 1.0
    assert np.mean(values) == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / len(values)))


def test_a_sum_without_a_tag_is_not_taken_for_one():
    plan = make_plan(3)
    vector = np.zeros(plan.length, dtype=np.int64)
    assert not is_tagged(vector, None, key=TAG_KEY, plan=plan, survivors=plan.cohort)


def test_a_tag_that_is_none_is_refused():
    plan = make_plan(3)
    data = bytes(Words.zeros(plan).to_bytes())
    with pytest.raises(ValueError, match="tag that is none"):
        Words.from_bytes(plan, data[:-8] + TAG_PRIME.to_bytes(8, "little"))
    for words, tag in ((Words.zeros(plan), TAG_PRIME), (Words.zeros(make_plan(3, ring_bits=8)), 1)):
        with pytest.raises(ValueError, match="exact sum has a tag"):
            words.put_tag(tag)
