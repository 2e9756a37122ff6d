"""Sketches are exact, linear and unknown beforehand; what does not fit them is refused."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from simulator.sums import DIGEST, key_of, make_plan, make_sites, make_vectors

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.messages import SketchMessage, encode
from fedhealth.secagg.prg import derive
from fedhealth.secagg.sketch import (
    check_sketches,
    commit_nonce,
    directions_for,
    project,
    read_sketch,
    sketch,
    sketch_seed,
)

SEED = key_of("sketch")
NO_LANES = np.zeros(0, dtype=np.int64)
PLAN = make_plan(5, length=600)
UPLOADS = dict.fromkeys(PLAN.cohort, DIGEST)


def by_hand(vector, *, seed, directions):
    """The same projections in Python's integers, sign by sign."""
    stream = Cipher(algorithms.AES(derive(seed, "sketch")), modes.CTR(bytes(16))).encryptor()
    totals = [0] * directions
    for entry in vector:
        signs = f"{int.from_bytes(stream.update(bytes(8)), 'big'):064b}"
        totals = [
            total + (int(entry) if sign == "1" else -int(entry))
            for total, sign in zip(totals, signs, strict=False)
        ]
    return tuple(totals)


@pytest.mark.parametrize("length", [1, 256, 8192, 8193, 20_000])
@pytest.mark.parametrize("directions", [32, 61, 64])
def test_projections_are_those_of_integers_sign_by_sign(length, directions):
    vector = np.random.default_rng(length).integers(-(2**38) + 1, 2**38, length)
    assert project(vector, seed=SEED, directions=directions) == by_hand(
        vector, seed=SEED, directions=directions
    )


def test_the_largest_entries_are_exact():
    vector = np.full(20_000, 2**38 - 1)
    assert project(vector, seed=SEED, directions=64) == by_hand(vector, seed=SEED, directions=64)
    with pytest.raises(ValueError, match="too large"):
        project(vector + 1, seed=SEED, directions=64)


@given(seed=st.integers(0, 2**32))
def test_the_sketch_of_a_sum_is_the_sum_of_the_sketches(seed):
    vectors = make_vectors(PLAN, seed)
    sketches = {site: project(vector, seed=SEED, directions=64) for site, vector in vectors.items()}
    check_sketches(sum(vectors.values()), sketches, seed=SEED)


@given(place=st.integers(0, 599), change=st.integers(1, 2**30), sign=st.sampled_from([-1, 1]))
def test_a_vector_other_than_the_one_shown_is_noticed_when_the_sum_is_open(place, change, sign):
    vectors = make_vectors(PLAN)
    sketches = {site: project(vector, seed=SEED, directions=64) for site, vector in vectors.items()}
    total = sum(vectors.values())
    total[place] += sign * change
    with pytest.raises(ProtocolError, match="do not add up"):
        check_sketches(total, sketches, seed=SEED)


def test_lengths_are_kept_to_the_error_of_so_many_directions():
    generator = np.random.default_rng(0)
    ratios = []
    for number in range(60):
        vector = generator.integers(-(10**6), 10**6, 3000)
        values = np.array(project(vector, seed=key_of(number), directions=64), dtype=float)
        ratios.append((values @ values) / 64 / (vector.astype(float) @ vector))
    assert abs(np.mean(ratios) - 1) < 0.1
    assert 0.12 < np.std(ratios) < 0.25


def test_every_upload_and_the_nonce_and_the_plan_are_in_the_seed():
    nonce = key_of("nonce")
    seed = sketch_seed(PLAN, nonce=nonce, uploads=UPLOADS)
    others = {
        sketch_seed(PLAN, nonce=key_of("other"), uploads=UPLOADS),
        sketch_seed(make_plan(5, length=600, counter=1), nonce=nonce, uploads=UPLOADS),
        sketch_seed(PLAN, nonce=nonce, uploads={**UPLOADS, "site-03": "cd" * 32}),
        sketch_seed(PLAN, nonce=nonce, uploads=dict(list(UPLOADS.items())[1:])),
    }
    assert len(others | {seed}) == 5
    assert sketch_seed(PLAN, nonce=nonce, uploads=dict(reversed(UPLOADS.items()))) == seed
    assert commit_nonce(PLAN, nonce) != commit_nonce(PLAN, key_of("other"))


def test_a_posted_sketch_is_read_back():
    vector = make_vectors(PLAN)["site-01"]
    shown = sketch(vector, PLAN, seed=SEED)
    assert read_sketch("site-01", shown, PLAN, seed=SEED) == project(vector, seed=SEED, directions=64)


@pytest.mark.parametrize(
    "message",
    [
        SketchMessage(key_of("other"), (1,) * 64),
        SketchMessage(SEED, (1,) * 63),
        SketchMessage(SEED, (2**60,) * 64),
        SketchMessage(SEED, ()),
    ],
)
def test_a_sketch_of_other_directions_or_of_no_vector_is_refused_with_its_sender(message):
    with pytest.raises(ProtocolError, match="site-02"):
        read_sketch("site-02", encode(message), PLAN, seed=SEED)


def test_a_sketch_tells_at_most_an_eighth_of_a_vector_and_never_of_a_short_one():
    assert [directions_for(length) for length in (256, 400, 512, 10**7)] == [32, 50, 64, 64]
    with pytest.raises(PolicyError, match="fewer than 256"):
        directions_for(255)


def uploaded(plan):
    sites, vectors, machine = make_sites(plan), make_vectors(plan), CoordinatorSum(plan)
    shares = {name: site.share() for name, site in sites.items()}
    machine.receive_shares(shares)
    uploads = {name: site.mask(shares, vectors[name], NO_LANES) for name, site in sites.items()}
    for name, upload in uploads.items():
        machine.receive_masked(name, upload)
    return machine, sites, vectors, uploads


def test_a_site_left_out_after_its_upload_counts_as_dropped_out():
    machine, sites, vectors, uploads = uploaded(PLAN)
    machine.leave_out("site-02", uploads["site-02"])
    survivors = machine.propose()
    said = {name: sites[name].agree(survivors) for name in survivors}
    opened = machine.unmask({name: sites[name].open(said) for name in survivors})
    assert "site-02" not in survivors
    assert (opened.vector == sum(vectors[name] for name in survivors)).all()


def test_nobody_is_left_out_twice_or_after_the_list_is_closed_or_below_the_threshold():
    machine, _, _, uploads = uploaded(PLAN)
    machine.leave_out("site-02", uploads["site-02"])
    with pytest.raises(RuntimeError, match="between"):
        machine.leave_out("site-02", uploads["site-02"])
    machine.propose()
    with pytest.raises(RuntimeError, match="between"):
        machine.leave_out("site-03", uploads["site-03"])
    machine, _, _, uploads = uploaded(PLAN)
    for name in ("site-02", "site-03"):
        machine.leave_out(name, uploads[name])
    with pytest.raises(PolicyError, match="4 are needed"):
        machine.propose()
