"""Ciphertexts that open as a sum alone: exact, bound to their keys, refused when they are not whole."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from simulator.sums import key_of, make_plan

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.secagg import rlwe
from fedhealth.secagg.ntt import MODULUS, PRIMES, SIZE
from fedhealth.secagg.rlwe import CipherSum, encrypt, secret_key

FOLDER = Path(__file__).parents[2] / "vectors"
KNOWN = json.loads((FOLDER / "rlwe.json").read_text())
LENGTH = SIZE + 5


def make_keys_plan(sites=3, **changes):
    cohort = tuple(f"site-{number:03d}" for number in range(1, sites + 1))
    return make_plan(sites, **{"length": SIZE, "cohort": cohort, **changes})


def make_vector(plan, seed=0, length=LENGTH):
    room = rlwe.LARGEST_SUM // len(plan.cohort)
    return np.random.default_rng(seed).integers(-room, room, length, endpoint=True)


def added(plan, vectors, length=LENGTH):
    """The sum of the ciphertexts of vectors by site, and that of their keys."""
    total, keys = CipherSum(plan, length), np.zeros(SIZE, dtype=np.int64)
    for site, vector in vectors.items():
        total.add(total.read(site, encrypt(plan, vector, seed=key_of(site))))
        keys += secret_key(plan, seed=key_of(site))
    return total, keys


def encode(low, high):
    return np.asarray(low, "<u2").tobytes() + np.asarray(high, "u1").tobytes()


@pytest.mark.parametrize("part", sorted(KNOWN))
def test_the_known_answer_is_computed_again(part):
    spec = spec_from_file_location("regenerate_rlwe", FOLDER / "regenerate_rlwe.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads(json.dumps(module.vectors()[part])) == KNOWN[part]


@pytest.mark.parametrize("length", [1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE])
def test_a_ciphertext_has_six_bytes_an_entry(length):
    plan = make_keys_plan()
    assert len(encrypt(plan, make_vector(plan, length=length), seed=key_of("a"))) == 6 * length


@pytest.mark.parametrize("error", [-rlwe.SHORT, rlwe.SHORT])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_errors_of_the_most_sites_at_the_ends_of_the_ring_change_nothing(
    monkeypatch, error, sign
):
    monkeypatch.setattr(rlwe, "_short", lambda seed, count: np.full(count, error))
    plan = make_keys_plan(rlwe.MAX_SITES)
    vector = np.full(8, sign * (rlwe.LARGEST_SUM // rlwe.MAX_SITES))
    total, keys = added(plan, dict.fromkeys(plan.cohort, vector), length=8)
    assert (total.open(keys) == rlwe.MAX_SITES * vector).all()


def test_the_bounds_of_the_proof_hold():
    errors = rlwe.MAX_SITES * rlwe.SHORT
    assert errors < 2**rlwe.SCALE_BITS / 2
    assert (rlwe.LARGEST_SUM << rlwe.SCALE_BITS) + errors < MODULUS / 2
    assert rlwe.MAX_SITES * (max(PRIMES) - 1) < 2**32


def test_secrets_and_errors_are_binomial_and_within_their_bound():
    drawn = rlwe._short(key_of("draw"), 50 * SIZE)
    assert np.abs(drawn).max() <= rlwe.SHORT
    # 204 800 draws: the mean has deviation 0.009, the variance 0.05; six of them are passed once in 10^9.
    assert abs(drawn.mean()) < 6 * 0.009
    assert abs(drawn.var() - 16.0) < 6 * 0.05


def test_the_public_polynomials_are_uniform_and_differ_by_block_and_plan():
    plan, other = make_keys_plan(), make_keys_plan(run="run-2")
    drawn = np.stack([rlwe._public(plan, block) for block in range(50)])
    assert (drawn < np.array(PRIMES).reshape(2, 1)).all()
    assert len({row.tobytes() for block in drawn for row in block}) == 100
    assert (rlwe._public(other, 0) != drawn[0]).mean() > 0.99
    for row, prime in zip(drawn.swapaxes(0, 1), PRIMES, strict=True):
        counts, _ = np.histogram(row, bins=64, range=(0, prime))
        expected = row.size / 64
        # chi square, 63 degrees of freedom: mean 63, deviation 11.2.
        assert ((counts - expected) ** 2 / expected).sum() < 63 + 6 * 11.2


def test_the_same_seed_repeats_itself_and_another_plan_or_seed_does_not():
    plan = make_keys_plan()
    vector = make_vector(plan)
    first = encrypt(plan, vector, seed=key_of("a"))
    assert encrypt(plan, vector, seed=key_of("a")) == first
    others = [
        encrypt(plan, vector, seed=key_of("b")),
        encrypt(make_keys_plan(round=2), vector, seed=key_of("a")),
    ]
    for other in others:
        assert np.mean(np.frombuffer(other, "u1") == np.frombuffer(first, "u1")) < 0.01


def test_a_ciphertext_looks_uniform_whatever_the_vector():
    plan = make_keys_plan()
    payload = encrypt(plan, np.full(16 * SIZE, 7), seed=key_of("a"))
    low = np.frombuffer(payload, "<u2", count=2 * 16 * SIZE)
    counts = np.bincount(low >> 8, minlength=256)
    expected = low.size / 256
    # chi square, 255 degrees of freedom: mean 255, deviation 22.6.
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * 22.6


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + b"\0", lambda c: b"", lambda c: c[: 6 * SIZE]]
)
def test_a_ciphertext_of_a_wrong_size_is_refused(change):
    plan = make_keys_plan()
    payload = encrypt(plan, make_vector(plan), seed=key_of("a"))
    with pytest.raises(ProtocolError, match="site-002 has a wrong size"):
        CipherSum(plan, LENGTH).read("site-002", change(payload))


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("excess", [0, 1])
def test_a_residue_that_is_not_below_its_prime_is_refused(row, excess):
    residues = np.zeros((2, 3), dtype=np.uint32)
    residues[row, 2] = PRIMES[row] + excess
    total = CipherSum(make_keys_plan(), 3)
    with pytest.raises(ProtocolError, match="site-002 is not in canonical form"):
        total.read("site-002", encode(residues & 0xFFFF, residues >> 16))
    residues[row, 2] = PRIMES[row] - 1
    read = total.read("site-002", encode(residues & 0xFFFF, residues >> 16))
    assert (read.residues(slice(None)) == residues).all()


def test_one_site_alone_is_noise_without_its_key():
    plan = make_keys_plan()
    total, keys = added(plan, {"site-001": make_vector(plan)})
    with pytest.raises(ProtocolError, match="do not fit the keys"):
        total.open(np.zeros(SIZE, dtype=np.int64))
    wrong = keys.copy()
    wrong[0] += 1 if wrong[0] < rlwe.SHORT else -1
    with pytest.raises(ProtocolError, match="do not fit the keys"):
        total.open(wrong)
    assert (total.open(keys) == make_vector(plan)).all()


def test_keys_of_other_sites_than_the_ciphertexts_open_nothing():
    plan = make_keys_plan(4)
    vectors = {site: make_vector(plan, seed) for seed, site in enumerate(plan.cohort)}
    total, _ = added(plan, vectors)
    _, keys = added(plan, {site: vectors[site] for site in plan.cohort[:3]})
    with pytest.raises(ProtocolError, match="do not fit the keys"):
        total.open(keys)


def test_a_key_sum_beyond_what_so_many_secrets_can_be_is_refused():
    total, _ = added(make_keys_plan(), {"site-001": make_vector(make_keys_plan())})
    with pytest.raises(ProtocolError, match="do not fit the keys"):
        total.open(np.full(SIZE, rlwe.SHORT + 1))


def test_a_sum_beyond_the_ring_is_refused():
    plan = make_keys_plan()
    vector = np.full(4, rlwe.LARGEST_SUM // 3)
    total = CipherSum(plan, 4)
    residues = total.read("site-001", encrypt(plan, vector, seed=key_of("a"))).residues(slice(None))
    keys = 3 * secret_key(plan, seed=key_of("a"))
    more = (residues.astype(np.int64) + (1 << 44)) % np.array(PRIMES).reshape(2, 1)  # 2^29 in each entry
    for _ in range(3):
        total.add(total.read("site-001", encode(more & 0xFFFF, more >> 16)))
    with pytest.raises(ProtocolError, match="do not fit the keys"):
        total.open(keys)


def test_a_cohort_has_no_more_ciphertexts_than_sites():
    total, _ = added(make_keys_plan(), dict.fromkeys("abc", np.arange(4)), length=4)
    with pytest.raises(RuntimeError, match="one ciphertext"):
        total.add(total.read("d", bytes(6 * 4)))


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(4, dtype=np.int32),
        np.zeros((2, 2), dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        np.array([rlwe.LARGEST_SUM // 3 + 1]),
        np.array([-rlwe.LARGEST_SUM // 3 - 1]),
    ],
)
def test_a_vector_that_cannot_be_added_exactly_is_not_encrypted(vector):
    with pytest.raises(ValueError, match=r"int64|leave the ring"):
        encrypt(make_keys_plan(), vector, seed=key_of("a"))


@pytest.mark.parametrize("changes", [{"length": SIZE - 1}, {"ring_bits": 64}])
def test_keys_have_a_plan_of_their_own_length(changes):
    with pytest.raises(ValueError, match="keys are summed"):
        CipherSum(make_keys_plan(**changes), 4)


def test_more_sites_than_the_sum_is_exact_for_are_refused():
    plan = make_keys_plan(rlwe.MAX_SITES + 1)
    with pytest.raises(PolicyError, match="would not be exact"):
        CipherSum(plan, 4)
    with pytest.raises(PolicyError, match="would not be exact"):
        encrypt(plan, np.arange(4), seed=key_of("a"))
