"""Every kind of network under differential privacy, against autograd one patient at a time."""

import numpy as np
import pytest
import torch

from fedhealth.models.losses import row_losses
from fedhealth.models.networks import build_network, initial_weights, load_weights, read_weights
from fedhealth.models.personal import frozen_names
from fedhealth.models.series import CHANNELS, prepare_series
from fedhealth.models.weights import flatten
from fedhealth.privacy.noise import NoiseSource
from fedhealth.study.targets import targets_of
from fedhealth.training.plan import LocalPlan
from fedhealth.training.private import private_steps

KEY = bytes(range(32))
ROWS, INPUTS, STEPS = 24, 10, 7
OUTCOMES = {
    "death": {"kind": "death", "within": "stay"},
    "los": {"kind": "length_of_stay"},
    "survival": {"kind": "survival"},
    "where": {"kind": "disposition"},
}
KINDS = {
    "linear": {"kind": "linear"},
    "mlp": {"kind": "mlp", "hidden": [8, 6], "dropout": []},
    "multitask": {"kind": "multitask", "shared": [8, 6], "heads": [5], "dropout": []},
    "lstm": {"kind": "lstm", "units": [7, 5], "dense": [6], "dropout": []},
}
FREEZE = {"linear": "layers.0.bias", "mlp": "layers.0.*", "multitask": "heads.los.*", "lstm": "lstm.0.*"}
CASES = [
    *((kind, "fedavg", False) for kind in KINDS),
    *((kind, "fedbn", False) for kind in KINDS),
    *((kind, "fedavg", True) for kind in KINDS),
]


@pytest.fixture
def build(make_study):
    """A study of a kind, its network at a start without dead units, inputs, and labels a third of which are missing."""

    def make(kind, algorithm="fedavg", is_frozen=False):
        freeze = [FREEZE[kind]] if is_frozen else []
        training = {"algorithm": algorithm, "initial": {"freeze": freeze}}
        study = make_study(model=KINDS[kind], outcomes=OUTCOMES, training=training)
        network = build_network(study, inputs=INPUTS)
        weights = initial_weights(study, inputs=INPUTS, seed=0)
        load_weights(network, weights)
        for name in frozen_names(weights, study):
            dict(network.named_parameters())[name].requires_grad_(False)
        return study, network.train(), *data(kind)

    return make


def data(kind):
    generator = np.random.default_rng(0)
    static = generator.normal(size=(ROWS, INPUTS)).astype(np.float32)
    series = generator.uniform(0, 150, (ROWS, STEPS, 20))
    late = np.arange(STEPS)[None, :] < generator.integers(0, 4, ROWS)[:, None]
    series[late | (generator.random((ROWS, STEPS)) < 0.1)] = np.nan
    inputs = (static, prepare_series(series, step_h=1.0)) if kind == "lstm" else (static,)
    labels = np.column_stack([generator.integers(0, top, ROWS) for top in (2, 20, 24, 5)]).astype(np.float32)
    labels[generator.random(labels.shape) < 0.33] = np.nan
    labels[:2] = np.nan
    return inputs, labels


def own_gradient(network, inputs, labels, targets, row):
    """One patient's gradient by autograd, float64 (trained parameters,), in the order of the network's parameters."""
    network.zero_grad()
    outputs = network(*(torch.from_numpy(each[[row]]) for each in inputs))
    row_losses(outputs, torch.from_numpy(labels[[row]]), targets).sum().backward()
    return np.concatenate(
        [p.grad.numpy().ravel() for p in network.parameters() if p.requires_grad], dtype=np.float64
    )


def trained(network):
    return np.concatenate([p.detach().numpy().ravel() for p in network.parameters() if p.requires_grad])


def step(network, inputs, labels, targets, *, clip, noise=0.0, probability=1.0):
    """Minus the change by one step at learning rate 1: the noisy clipped sum."""
    before = trained(network).astype(np.float64)
    private_steps(
        network,
        inputs,
        labels,
        targets,
        np.arange(len(labels)),
        plan=LocalPlan(
            sampling_probability=probability, steps=1, noise_multiplier=noise, expected_batch_size=1
        ),
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0),
        l2_clip_norm=clip,
        source=NoiseSource(KEY),
    )
    return before - trained(network)


@pytest.mark.parametrize(("kind", "algorithm", "is_frozen"), CASES)
def test_the_clipped_sum_is_that_of_autograd_patient_by_patient(build, kind, algorithm, is_frozen):
    study, network, inputs, labels = build(kind, algorithm, is_frozen)
    targets = targets_of(study)
    alone = [own_gradient(network, inputs, labels, targets, row) for row in range(ROWS)]
    lengths = np.linalg.norm(alone, axis=1)
    assert not lengths[:2].any()  # nobody knows anything of them
    clip = float(np.median(lengths))
    assert (lengths > 1.01 * clip).sum() >= 8
    expected = sum(
        each * min(1.0, clip / (length + 1e-6)) for each, length in zip(alone, lengths, strict=True)
    )
    found = step(network, inputs, labels, targets, clip=clip)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=3e-6 * np.abs(expected).max() + 3e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_is_the_keyed_noise_and_nothing_else(build, kind):
    study, network, inputs, labels = build(kind)
    found = step(network, inputs, labels, targets_of(study), clip=0.5, noise=2.0, probability=1e-12)
    noise = NoiseSource(KEY).fork("gaussian").normals(len(found)) * 2.0 * 0.5
    np.testing.assert_allclose(found, noise, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_parameters_stay_and_draw_no_noise(build, kind):
    study, network, inputs, labels = build(kind, is_frozen=True)
    before = read_weights(network)
    found = step(network, inputs, labels, targets_of(study), clip=1e-9, noise=1e9)
    after, frozen = read_weights(network), frozen_names(before, study)
    assert 0 < sum(before[name].size for name in frozen) == len(flatten(before)) - len(found)
    for name in frozen:
        np.testing.assert_array_equal(after[name], before[name])
    noise = NoiseSource(KEY).fork("gaussian").normals(len(found))
    np.testing.assert_allclose(found, noise, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_nobody_knows_change_nothing(build, kind):
    study, network, inputs, labels = build(kind)
    unknown = np.full_like(labels, np.nan)
    assert not step(network, inputs, unknown, targets_of(study), clip=1.0).any()


def test_the_lstm_sees_three_channels_a_feature():
    assert data("lstm")[0][1].shape == (ROWS, STEPS, CHANNELS)
