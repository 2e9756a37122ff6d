"""What is decoded from a sum of encodings is the sum, whatever the vectors; words come back from the wire as they were."""

import hashlib

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from simulator.sums import make_lanes, make_plan, make_vectors

from fedhealth.compression.codec import Codec, step_for
from fedhealth.compression.rotation import unrotate
from fedhealth.privacy.noise import NoiseSource
from fedhealth.secagg.words import Words

SEED = bytes(range(32))


def rounding(number, seed=0):
    return NoiseSource(hashlib.sha256(f"{seed}/{number}".encode()).digest())


def sites_of(count, length, seed=0):
    return np.random.default_rng(seed).normal(0, 0.01, (count, length))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 12),
    length=st.integers(1, 3000),
    ring_bits=st.integers(4, 16),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_decoded_sum_is_the_sum_of_the_rounded_values_bit_for_bit(count, length, ring_bits, share, seed):
    values = sites_of(count, length, seed)
    room = 2.0 ** (ring_bits - 1) - count  # of steps, for rounding moves every site's entry by up to one
    step = count * np.abs(values).max() * np.sqrt(length) / max(room, 0.5)
    sent = max(1, int(share * length))
    codec = Codec(length=length, sent=sent, ring_bits=ring_bits, step=step, seed=SEED)
    encoded = [codec.encode(each, rounding=rounding(k, seed)) for k, each in enumerate(values)]
    rounded = sum(np.where(each < 2 ** (ring_bits - 1), each, each - 2**ring_bits) for each in encoded)
    assume(np.abs(rounded).max() < 2 ** (ring_bits - 1))
    expected = np.zeros(length)
    expected[codec.coordinates()] = unrotate(rounded * step, codec._signs())
    assert (codec.decode(sum(encoded) % 2**ring_bits) == expected).all()
    assert (codec.decode(sum(encoded)) == expected).all()


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 15), length=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1))
def test_the_error_of_the_sum_is_the_rounding_alone(count, length, seed):
    values = sites_of(count, length, seed)
    total = values.sum(axis=0)
    step = step_for(float(np.sqrt(np.mean(total**2))), ring_bits=16)
    codec = Codec(length=length, sent=length, ring_bits=16, step=step, seed=SEED)
    encoded = sum(codec.encode(each, rounding=rounding(k, seed)) for k, each in enumerate(values))
    error = codec.decode(encoded % 2**16) - total
    assert np.linalg.norm(error) <= count * codec.step * np.sqrt(length)
    # Stochastic rounding has a variance of at most step^2 / 4 an entry and site; 3 times that is out of reach by chance.
    assert np.linalg.norm(error) <= 3 * np.sqrt(count * max(length, 30)) * codec.step / 2


@settings(max_examples=80, deadline=None)
@given(
    ring_bits=st.sampled_from([*range(4, 17), 32, 64]),
    length=st.integers(1, 70),
    lanes=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_words_come_back_from_the_wire_in_as_few_bytes_as_they_need(ring_bits, length, lanes, seed):
    plan = make_plan(3, ring_bits=ring_bits, length=length, lanes=lanes)
    vector, exact = make_vectors(plan, seed)["site-01"], make_lanes(plan, seed)["site-01"]
    tag = None if ring_bits < 32 else seed
    words = Words.of(plan, vector, exact)
    if tag is not None:
        words.put_tag(tag)
    data = words.to_bytes()
    assert len(data) == -(-ring_bits * length // 8) + 8 * (lanes + (tag is not None))
    again = Words.from_bytes(plan, data)
    assert (again.vector == words.vector).all()
    assert again.vector.dtype == words.vector.dtype
    assert (again.signed_lanes() == exact).all()
    assert again.opened_tag() == tag
    assert again.to_bytes() == data
