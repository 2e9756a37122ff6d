import hashlib

import numpy as np
import pytest

from fedhealth.compression.codec import Codec, half_range, owed_growth, step_for
from fedhealth.compression.rotation import rotate
from fedhealth.privacy.noise import NoiseSource

SEED = bytes(range(32))


def codec_of(values, *, ring_bits=6, sent=None, seed=SEED):
    """A codec for the sum of these sites' values, with the step that the sum's own deviation asks for."""
    length = values.shape[1]
    sd = float(np.sqrt(np.mean(values.sum(axis=0) ** 2)))
    return Codec(
        length=length,
        sent=sent or length,
        ring_bits=ring_bits,
        step=step_for(sd, ring_bits=ring_bits),
        seed=seed,
    )


def rounding(number, seed=0):
    return NoiseSource(hashlib.sha256(f"{seed}/{number}".encode()).digest())


def sites_of(count, length, seed=0):
    return np.random.default_rng(seed).normal(0, 0.01, (count, length))


def total_of(codec, values, seed=0):
    return sum(codec.encode(each, rounding=rounding(k, seed)) for k, each in enumerate(values))


@pytest.mark.parametrize(("bits", "alpha"), [(4, 3.3), (5, 3.7), (6, 4.0), (7, 4.25), (8, 4.5), (16, 6.5)])
def test_the_range_is_the_one_written_down(bits, alpha):
    assert half_range(bits) == alpha
    assert step_for(0.5, ring_bits=bits) == 2 * alpha * 0.5 / 2**bits


def test_what_is_owed_grows_as_in_a_simulation_and_not_where_all_is_sent():
    generator = np.random.default_rng(0)
    owed, root = np.zeros(400_000), 1.0
    for rounds in range(1, 7):
        owed += 1.0
        grown = np.sqrt(np.mean(owed**2))
        assert owed_growth(0.4, rounds) == pytest.approx(grown / root, rel=0.01)
        root = grown
        owed[generator.random(len(owed)) < 0.4] = 0.0
    assert [owed_growth(1.0, rounds) for rounds in (1, 2, 9)] == [1.0, 1.0, 1.0]
    assert owed_growth(0.5, 50) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("ring_bits", "wraps"), [(4, 0.01), (5, 0.002), (6, 0.0005), (8, 0.0002)])
def test_few_entries_wrap_and_the_sum_is_as_close_as_rounding_lets_it(ring_bits, wraps):
    values = sites_of(15, 20_000)
    values[:, ::20] *= 10.0  # some entries far larger than the others, as biases are
    codec, total = codec_of(values, ring_bits=ring_bits), values.sum(axis=0)
    decoded = codec.decode(total_of(codec, values))
    turned = rotate((decoded - total)[codec.coordinates()], codec._signs())
    is_wrapped = np.abs(turned) > 2 ** (ring_bits - 1) * codec.step
    assert is_wrapped.mean() < wraps
    # A rounding has a variance of step^2 / 6 where values lie anywhere between two steps.
    assert turned[~is_wrapped].std() == pytest.approx(codec.step * np.sqrt(15 / 6), rel=0.05)


def test_rounding_is_unbiased():
    values = sites_of(1, 300)
    codec = codec_of(values, ring_bits=8)
    tries = 2000
    mean = sum(codec.decode(total_of(codec, values, seed)) for seed in range(tries)) / tries
    spread = codec.step / 2 / np.sqrt(tries)
    assert np.abs(mean - values[0]).max() < 5 * spread


def test_the_same_secret_gives_the_same_residues_and_another_gives_others():
    values = sites_of(1, 500)
    codec = codec_of(values)
    first, again, other = (codec.encode(values[0], rounding=rounding(k)) for k in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert first.dtype == np.int64
    assert first.min() >= 0
    assert first.max() < 2**6


def test_residues_and_coordinates_are_the_ones_written_down():
    values = np.linspace(-1.0, 1.0, 12)
    codec = Codec(length=12, sent=6, ring_bits=6, step=0.0625, seed=SEED)
    assert codec.coordinates().tolist() == [9, 6, 3, 4, 0, 8]
    assert codec.encode(values, rounding=NoiseSource(SEED)).tolist() == [54, 57, 11, 7, 51, 63]


def test_what_is_not_sent_is_zero_and_the_choice_changes_with_the_seed():
    values = sites_of(3, 1000)
    codec = codec_of(values, ring_bits=12, sent=500)
    decoded, sent = codec.decode(total_of(codec, values)), codec.coordinates()
    assert len(set(sent)) == 500
    assert (decoded[np.setdiff1d(np.arange(1000), sent)] == 0).all()
    np.testing.assert_allclose(decoded[sent], values.sum(axis=0)[sent], atol=0.002)
    other = codec_of(values, sent=500, seed=bytes(32)).coordinates()
    assert 150 < len(set(other) & set(sent)) < 350


def test_huge_values_wrap_instead_of_failing():
    codec = Codec(length=8, sent=8, ring_bits=4, step=1e-12, seed=SEED)
    encoded = codec.encode(np.full(8, 1e9), rounding=NoiseSource(SEED))
    assert encoded.min() >= 0
    assert encoded.max() < 16


@pytest.mark.parametrize(
    "changes",
    [{"ring_bits": 3}, {"ring_bits": 17}, {"sent": 0}, {"sent": 9}, {"step": 0.0}, {"step": float("inf")}],
)
def test_a_codec_out_of_range_is_refused(changes):
    with pytest.raises(ValueError, match="codec needs"):
        Codec(**{"length": 8, "sent": 8, "ring_bits": 6, "step": 1.0, "seed": SEED} | changes)


@pytest.mark.parametrize("sd", [0.0, -1.0, float("nan"), float("inf")])
def test_no_step_follows_from_a_deviation_that_is_none(sd):
    with pytest.raises(ValueError, match="positive and finite"):
        step_for(sd, ring_bits=6)


@pytest.mark.parametrize("values", [np.zeros(7), np.full(8, np.nan), np.full(8, np.inf)])
def test_values_that_do_not_fit_are_refused(values):
    codec = Codec(length=8, sent=8, ring_bits=6, step=1.0, seed=SEED)
    with pytest.raises(ValueError, match="finite and of the codec's length"):
        codec.encode(values, rounding=NoiseSource(SEED))
    with pytest.raises(ValueError, match="one entry for each"):
        codec.decode(np.zeros(7, dtype=np.int64))
