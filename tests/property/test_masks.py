"""Masks cancel: the opened sum is the sum of the survivors' vectors, bit for bit, whoever vanishes and when."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.sums import make_lanes, make_plan, make_sites, make_vectors, run_sum

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.secagg.plan import threshold_for

PHASES = ("share", "masked", "agree", "open")


@st.composite
def dropouts(draw, most):
    """(number of sites, by phase who vanishes): at most ``most(n)`` in all."""
    count = draw(st.integers(3, 12))
    names = draw(st.permutations([f"site-{number:02d}" for number in range(1, count + 1)]))
    gone = names[: draw(most(count))]
    phases = draw(st.lists(st.sampled_from(PHASES), min_size=len(gone), max_size=len(gone)))
    silent = {phase: {name for name, at in zip(gone, phases, strict=True) if at == phase} for phase in PHASES}
    return count, silent


@settings(max_examples=60, deadline=None)
@given(
    case=dropouts(lambda n: st.integers(0, n - threshold_for(n))),
    ring_bits=st.sampled_from([*range(4, 17), 32, 64]),
    lanes=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_sum_is_exact_for_every_dropout_set_and_order(case, ring_bits, lanes, seed, shuffle):
    count, silent = case
    plan = make_plan(count, ring_bits=ring_bits, length=17, lanes=lanes)
    vectors, exact = make_vectors(plan, seed), make_lanes(plan, seed)

    def any_order(among):
        among = sorted(among)
        shuffle.shuffle(among)
        return among

    sites = make_sites(plan, seed)
    opened = run_sum(plan, sites, vectors, lanes=exact, silent=silent, order=any_order)
    gone = silent["share"] | silent["masked"]
    assert opened.survivors == tuple(site for site in plan.cohort if site not in gone)
    half = 1 << (ring_bits - 1)
    expected = sum(vectors[site].astype(object) for site in opened.survivors)
    assert (opened.vector == (expected + half) % (2 * half) - half).all()
    assert (opened.lanes == sum(exact[site].astype(object) for site in opened.survivors)).all()
    assert opened.blamed == {}


@settings(max_examples=30, deadline=None)
@given(case=dropouts(lambda n: st.integers(n - threshold_for(n) + 1, n)), seed=st.integers(0, 99))
def test_one_dropout_more_opens_nothing(case, seed):
    count, silent = case
    plan = make_plan(count, length=5)
    with pytest.raises((PolicyError, ProtocolError), match=r"are needed|enough equal statements"):
        run_sum(plan, make_sites(plan, seed), make_vectors(plan, seed), silent=silent)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), value=st.integers(0, 15), ring_bits=st.sampled_from([4, 6, 9, 32]))
def test_an_upload_looks_uniform_whatever_the_vector(seed, value, ring_bits):
    plan = make_plan(3, length=2**17 // ring_bits, ring_bits=ring_bits)
    sites = make_sites(plan, seed)
    shares = {name: site.share() for name, site in sites.items()}
    upload = sites["site-01"].mask(shares, np.full(plan.length, value, dtype=np.int64))
    counts = np.bincount(np.frombuffer(upload, dtype=np.uint8), minlength=256)
    expected = len(upload) / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # 255 degrees of freedom: mean 255, standard deviation 22.6; 6 of them are passed once in 10^7.
    assert chi_square < 255 + 6 * 22.6
