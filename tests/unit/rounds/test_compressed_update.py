"""A round's update through its layout, exact and compressed: three sites' vectors, their sum, what is published."""

from dataclasses import replace

import numpy as np
import pytest
from simulator.network import make_study

from fedhealth.aggregation.update import weighted_mean_plain
from fedhealth.compression.codec import Codec, step_for
from fedhealth.privacy.noise import NoiseSource
from fedhealth.rounds.layout import UPDATE_SD, RoundShape, decode_sum, encode_weighted, sum_layout

SITES = ("a", "b", "c")


def compressing(**privacy):
    """A study whose updates are compressed, a round's shape, and three sites' updates."""
    study = make_study(aggregation={"ring_bits": 12}, **privacy)
    generator = np.random.default_rng(3)
    deltas = [{"w": generator.normal(0, 0.01, (40, 50)).astype(np.float32)} for _ in SITES]
    purposes = ("evaluation", "update")
    return RoundShape(study=study, purposes=purposes, model=deltas[0], statistics=None), deltas


def summed(shape, deltas, *, declared=None):
    """The aggregate of three sites with 30, 20 and 50 rows."""
    vectors = [
        encode_weighted(
            delta,
            shape,
            examples=examples,
            declared=None if declared is None else declared[place],
            sites=3,
            rounding=NoiseSource(bytes([place] * 32)),
        )
        for place, (delta, examples) in enumerate(zip(deltas, (30, 20, 50), strict=True))
    ]
    layout = sum_layout(shape, "update")
    assert {len(vector) for vector in vectors} == {layout.length + layout.lanes}
    return layout, decode_sum(shape, "update", sum(vectors), cohort=SITES, declared=declared)


def codec_after(aggregate, sent=2000):
    step = step_for(aggregate.metrics[UPDATE_SD], ring_bits=12)
    return Codec(length=2000, sent=sent, ring_bits=12, step=step, seed=bytes(32))


@pytest.mark.parametrize("declared", [None, (32.0, 22.6, 45.3)])
def test_a_compressed_update_is_the_weighted_mean_and_its_weight_a_lane_or_declared(declared):
    privacy = {} if declared is None else {"privacy": {"mode": "local", "epsilon": 1.0}}
    shape, deltas = compressing(**privacy)
    expected = weighted_mean_plain(deltas, declared or (30, 20, 50))["w"]
    layout, exact = summed(shape, deltas, declared=declared)
    assert (layout.ring_bits, layout.lanes) == (32, 0)
    codec = codec_after(exact)
    layout, compressed = summed(replace(shape, codec=codec), deltas, declared=declared)
    assert (layout.ring_bits, layout.length, layout.lanes) == (12, 2000, int(declared is None))
    total = sum(declared or (30, 20, 50))
    np.testing.assert_allclose(exact.tensors["w"], expected, atol=1e-6)
    np.testing.assert_allclose(compressed.tensors["w"], expected, atol=4 * codec.step / total)
    assert ("total_weight" in compressed.metrics) == (declared is not None)


def test_the_published_size_is_that_of_the_entries_that_were_sent():
    shape, deltas = compressing()
    _, exact = summed(shape, deltas)
    expected = float(np.std(weighted_mean_plain(deltas, (30, 20, 50))["w"]) * 100)
    assert exact.metrics[UPDATE_SD] == pytest.approx(expected, rel=0.06)
    _, half = summed(replace(shape, codec=codec_after(exact, sent=1000)), deltas)
    assert half.metrics[UPDATE_SD] == pytest.approx(expected, rel=0.1)
    assert np.count_nonzero(half.tensors["w"]) <= 1000


def test_a_study_that_does_not_compress_publishes_no_size():
    shape, deltas = compressing()
    _, aggregate = summed(replace(shape, study=make_study()), deltas)
    assert aggregate.metrics == {}
