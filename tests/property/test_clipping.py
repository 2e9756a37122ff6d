import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhealth.models.networks import Perceptron, read_weights
from fedhealth.models.weights import flatten
from fedhealth.privacy.noise import NoiseSource
from fedhealth.study.targets import Target
from fedhealth.training.plan import LocalPlan
from fedhealth.training.private import private_steps
from fedhealth.training.sampling import PatientSampler

EVERYBODY = LocalPlan(sampling_probability=1.0, steps=1, noise_multiplier=0.0, expected_batch_size=4)


def clipped_sum(inputs, labels, *, seed, l2_clip_norm):
    """The sum of clipped gradients over everybody: one step without noise, at learning rate 1."""
    torch.manual_seed(seed)
    network = Perceptron([inputs.shape[1], 5, 1], (), torch.Generator())
    before = flatten(read_weights(network)).astype(np.float64)
    private_steps(
        network,
        (inputs,),
        labels[:, None],
        (Target("death", "binary"),),
        np.arange(len(labels)),
        plan=EVERYBODY,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        l2_clip_norm=l2_clip_norm,
        source=NoiseSource(bytes(32)),
    )
    return (before - flatten(read_weights(network))) * EVERYBODY.expected_batch_size


@given(
    seed=st.integers(0, 10**6),
    patients=st.integers(1, 12),
    removed=st.integers(0, 11),
    magnitude=st.sampled_from([0.01, 1.0, 100.0]),
    l2_clip_norm=st.sampled_from([0.01, 0.5, 2.0]),
)
@settings(max_examples=40, deadline=None)
def test_neighbouring_datasets_differ_by_at_most_the_bound(seed, patients, removed, magnitude, l2_clip_norm):
    generator = np.random.default_rng(seed)
    inputs = (magnitude * generator.normal(size=(patients, 3))).astype(np.float32)
    labels = (generator.random(patients) < 0.5).astype(np.float32)
    keep = np.arange(patients) != removed % patients
    whole = clipped_sum(inputs, labels, seed=seed, l2_clip_norm=l2_clip_norm)
    without = clipped_sum(inputs[keep], labels[keep], seed=seed, l2_clip_norm=l2_clip_norm)
    rounding = 1e-5 * (1 + patients * l2_clip_norm)
    assert np.linalg.norm(whole - without) <= l2_clip_norm + rounding


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 9), l2_clip_norm=st.sampled_from([0.01, 0.3, 100.0]))
@settings(max_examples=25, deadline=None)
def test_a_clipped_sum_is_that_of_every_rows_own_clipped_gradient(seed, rows, l2_clip_norm):
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(rows, 3)).astype(np.float32)
    labels = (generator.random(rows) < 0.5).astype(np.float32)
    alone = [clipped_sum(inputs[[row]], labels[[row]], seed=seed, l2_clip_norm=1e9) for row in range(rows)]
    clipped = [gradient * min(1.0, l2_clip_norm / np.linalg.norm(gradient)) for gradient in alone]
    together = clipped_sum(inputs, labels, seed=seed, l2_clip_norm=l2_clip_norm)
    np.testing.assert_allclose(together, sum(clipped), rtol=1e-4, atol=1e-5 * max(l2_clip_norm, 1.0))


def test_the_same_data_breaks_the_bound_without_clipping():
    generator = np.random.default_rng(0)
    inputs = (100 * generator.normal(size=(4, 3))).astype(np.float32)
    labels = np.array([0, 1, 0, 1], dtype=np.float32)
    whole = clipped_sum(inputs, labels, seed=0, l2_clip_norm=1e9)
    without = clipped_sum(inputs[1:], labels[1:], seed=0, l2_clip_norm=1e9)
    assert np.linalg.norm(whole - without) > 2.0


@given(
    rows=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    probability=st.sampled_from([0.0, 0.3, 1.0]),
    key=st.binary(min_size=32, max_size=32),
)
@settings(max_examples=60, deadline=None)
def test_a_sample_holds_at_most_one_row_of_each_patient(rows, probability, key):
    person = np.array(rows, dtype=np.int64)
    drawn = PatientSampler.of(person).draw(NoiseSource(key), sampling_probability=probability)
    assert len(set(person[drawn])) == len(drawn)
    if probability in (0.0, 1.0):
        assert len(drawn) == probability * len(set(rows))


@pytest.mark.parametrize("count", [2, 5])
def test_every_row_of_a_patient_is_equally_likely(count):
    sampler, source = PatientSampler.of(np.zeros(count, dtype=np.int64)), NoiseSource(bytes(32))
    drawn = [int(sampler.draw(source, sampling_probability=1.0)[0]) for _ in range(2000)]
    expected = 2000 / count
    assert np.abs(np.bincount(drawn, minlength=count) - expected).max() < 5 * expected**0.5
