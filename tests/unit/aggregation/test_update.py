import numpy as np
import pytest

from fedhealth.aggregation.update import (
    DELTA_CLIP,
    MAX_WEIGHT,
    FixedPoint,
    counted_weight,
    decode_update,
    encode_update,
    update_length,
    update_scale,
    weighted_mean_plain,
)
from fedhealth.models.weights import flatten


def updates(sites, seed=0):
    generator = np.random.default_rng(seed)
    return [
        {
            "layers.0.bias": generator.normal(0, 0.01, 4).astype(np.float32),
            "layers.0.weight": generator.normal(0, 0.05, (4, 9)).astype(np.float32),
        }
        for _ in range(sites)
    ]


WEIGHTS = [17, 350, 4000, 90, 1]


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("lane", [True, False])
def test_the_decoded_sum_is_the_plain_weighted_mean_to_the_quantisation(ring_bits, lane):
    deltas = updates(len(WEIGHTS))
    scale = update_scale(sites=len(WEIGHTS), ring_bits=ring_bits)
    total = sum(
        encode_update(delta, weight=weight, clip=DELTA_CLIP, encode=FixedPoint(scale).encode, lane=lane)
        for delta, weight in zip(deltas, WEIGHTS, strict=True)
    )
    mean, counted = decode_update(
        total, deltas[0], decode=FixedPoint(scale).decode, total_weight=None if lane else float(sum(WEIGHTS))
    )
    step = 0.5 * len(WEIGHTS) / (scale * sum(WEIGHTS))
    expected = weighted_mean_plain(deltas, WEIGHTS)
    assert counted == sum(WEIGHTS)
    assert np.abs(flatten(mean) - flatten(expected)).max() <= step + 1e-8
    assert step < 1e-6


@pytest.mark.parametrize("ring_bits", [32, 64])
@pytest.mark.parametrize("sites", [3, 15, 40])
def test_the_worst_sum_stays_inside_the_ring(sites, ring_bits):
    scale = update_scale(sites=sites, ring_bits=ring_bits)
    worst = {"w": np.full(5, 1e30, dtype=np.float32)}
    vector = encode_update(worst, weight=1e12, clip=DELTA_CLIP, encode=FixedPoint(scale).encode, lane=True)
    assert int(vector.max()) * sites < 2 ** (ring_bits - 1)
    doubled = encode_update(worst, weight=1e12, clip=DELTA_CLIP, encode=FixedPoint(4 * scale).encode)
    assert ring_bits == 64 or int(doubled.max()) * sites >= 2 ** (ring_bits - 1)


def test_the_lane_is_the_weight():
    delta = updates(1)[0]
    assert encode_update(delta, weight=123, clip=1.0, encode=FixedPoint(4.0).encode, lane=True)[-1] == 123
    assert (
        encode_update(delta, weight=10**6, clip=1.0, encode=FixedPoint(4.0).encode, lane=True)[-1]
        == MAX_WEIGHT
    )
    assert counted_weight(10**6) == MAX_WEIGHT
    assert update_length(delta, lane=True) == 41
    assert update_length(delta, lane=False) == 40


def test_order_of_sites_does_not_matter():
    vectors = [
        encode_update(delta, weight=w, clip=1.0, encode=FixedPoint(1024.0).encode)
        for delta, w in zip(updates(5), WEIGHTS, strict=True)
    ]
    np.testing.assert_array_equal(sum(vectors), sum(reversed(vectors)))


def test_bad_values_are_refused():
    delta = updates(1)[0]
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive weight"):
            encode_update(delta, weight=weight, clip=1.0, encode=FixedPoint(1.0).encode)
    broken = {"w": np.array([np.nan], dtype=np.float32)}
    with pytest.raises(ValueError, match="finite"):
        encode_update(broken, weight=1.0, clip=1.0, encode=FixedPoint(1.0).encode)
    with pytest.raises(ValueError, match="does not fit"):
        decode_update(np.array([1, 1, 1]), delta, decode=FixedPoint(1.0).decode)
    with pytest.raises(ValueError, match="not positive"):
        decode_update(np.zeros(41, dtype=np.int64), delta, decode=FixedPoint(1.0).decode)
    with pytest.raises(ValueError, match="too small"):
        update_scale(sites=3 * 10**6, ring_bits=32)
