"""Whoever vanishes and when, the sum that is opened is that of the survivors' vectors, bit for bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.sums import make_plan, make_sites, run_sum, secrets_of

from fedhealth.secagg.ntt import SIZE
from fedhealth.secagg.plan import threshold_for
from fedhealth.secagg.rlwe import LARGEST_SUM, CipherSum, encrypt, secret_key


@st.composite
def cohorts(draw):
    """(number of sites, who vanishes before the masked keys): no more than the threshold lets."""
    count = draw(st.integers(3, 10))
    names = [f"site-{number:02d}" for number in range(1, count + 1)]
    gone = draw(st.sets(st.sampled_from(names), max_size=count - threshold_for(count)))
    return count, gone


@settings(max_examples=15, deadline=None)
@given(case=cohorts(), length=st.integers(1, 2 * SIZE + 1), seed=st.integers(0, 2**32 - 1))
def test_the_sum_is_exact_for_every_set_of_survivors(case, length, seed):
    count, gone = case
    plan, room = make_plan(count, length=SIZE), LARGEST_SUM // count
    seeds = {name: secrets_of(name, seed).cipher_seed for name in plan.cohort}
    generator = np.random.default_rng(seed)
    vectors = {name: generator.integers(-room, room, length, endpoint=True) for name in plan.cohort}
    ciphertexts = {name: encrypt(plan, vectors[name], seed=seeds[name]) for name in plan.cohort}
    keys = {name: secret_key(plan, seed=seeds[name]) for name in plan.cohort}

    opened = run_sum(plan, make_sites(plan, seed), keys, silent={"masked": gone})
    total = CipherSum(plan, length)
    for name in opened.survivors:
        total.add(total.read(name, ciphertexts[name]))

    assert set(opened.survivors) == set(plan.cohort) - gone
    assert (total.open(opened.vector) == sum(vectors[name] for name in opened.survivors)).all()
