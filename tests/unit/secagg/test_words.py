import numpy as np
import pytest
from simulator.sums import make_plan, make_site, make_sites

from fedhealth.secagg.words import Words

NO_LANES = np.zeros(0, dtype=np.int64)


def test_small_words_are_packed_lowest_bits_first():
    plan = make_plan(3, ring_bits=6, length=5)
    data = Words.of(plan, np.array([1, 2, 3, 63, 32]), NO_LANES).to_bytes()
    bits = sum(value << (6 * place) for place, value in enumerate([1, 2, 3, 63, 32]))
    assert data == bits.to_bytes(4, "little")


@pytest.mark.parametrize("ring_bits", [4, 7, 8, 12, 16])
def test_a_signed_entry_is_the_residue_next_to_zero(ring_bits):
    half = 1 << (ring_bits - 1)
    plan = make_plan(3, ring_bits=ring_bits, length=5)
    words = Words.of(plan, np.array([0, 1, half - 1, half, 2 * half - 1]), NO_LANES)
    assert words.signed_vector().tolist() == [0, 1, half - 1, -half, -1]
    words.add(words)
    assert words.signed_vector().tolist() == [0, 2, -2, 0, -2]


@pytest.mark.parametrize("ring_bits", [4, 6, 8, 9, 16])
@pytest.mark.parametrize("beyond", [lambda bits: -1, lambda bits: 1 << bits, lambda bits: 2**40])
def test_what_is_no_residue_is_refused_in_a_small_ring(ring_bits, beyond):
    plan = make_plan(3, ring_bits=ring_bits)
    shares = {name: site.share() for name, site in make_sites(plan).items()}
    vector = np.zeros(plan.length, dtype=np.int64)
    vector[7] = beyond(ring_bits)
    with pytest.raises(ValueError, match="no residue"):
        make_site(plan, "site-01").mask(shares, vector)


@pytest.mark.parametrize(
    "lanes", [NO_LANES, np.zeros(3, dtype=np.int64), np.zeros(2), np.array([0, (2**63 - 1) // 3 + 1])]
)
def test_lanes_that_do_not_fit_are_refused(lanes):
    plan = make_plan(3, ring_bits=6, lanes=2)
    vector = np.zeros(plan.length, dtype=np.int64)
    with pytest.raises(ValueError, match=r"lanes must be|leave the ring"):
        Words.of(plan, vector, lanes)


@pytest.mark.parametrize("ring_bits", [6, 12, 32])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_bytes_of_another_size_are_refused(ring_bits, change):
    plan = make_plan(3, ring_bits=ring_bits, lanes=1)
    data = bytes(Words.zeros(plan).to_bytes())
    with pytest.raises(ValueError, match="wrong size"):
        Words.from_bytes(plan, change(data))


def test_the_lanes_mask_is_not_the_vectors():
    plan = make_plan(3, ring_bits=64, length=4, lanes=4)
    sites = make_sites(plan)
    shares = {name: site.share() for name, site in sites.items()}
    zeros = np.zeros(4, dtype=np.int64)
    upload = np.frombuffer(sites["site-01"].mask(shares, zeros, zeros), dtype="<u8")
    assert (upload[:4] != upload[4:8]).all()


@pytest.mark.parametrize(("ring_bits", "largest"), [(32, 2**31 - 1), (64, 2**60 - 1)])
def test_an_exact_entry_whose_sum_could_leave_the_ring_or_the_tags_range_is_refused(ring_bits, largest):
    plan = make_plan(3, ring_bits=ring_bits, length=40_000)
    vector = np.zeros(plan.length, dtype=np.int64)
    for place in (0, plan.length - 1):
        for sign in (1, -1):
            vector[place] = sign * (largest // 3)
            assert Words.of(plan, vector, NO_LANES).signed_vector()[place] == sign * (largest // 3)
            vector[place] += sign
            with pytest.raises(ValueError, match="could leave the ring"):
                Words.of(plan, vector, NO_LANES)
        vector[place] = 0
