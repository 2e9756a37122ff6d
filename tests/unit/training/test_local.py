from dataclasses import replace

import numpy as np
import pytest
import torch

from fedhealth.errors import DataError
from fedhealth.features.rows import Rows
from fedhealth.models import weights as w
from fedhealth.models.networks import Perceptron, initial_weights, read_weights
from fedhealth.models.scoring import predict
from fedhealth.privacy.noise import NoiseSource
from fedhealth.study.targets import Target
from fedhealth.training.local import train_local
from fedhealth.training.plan import LocalPlan, plan_local
from fedhealth.training.private import private_steps

KEY = bytes(range(32))
NONE = {"mode": "none", "legal_basis": "public"}


@pytest.fixture(scope="module")
def rows(make_rows):
    return make_rows(0, 60)


@pytest.fixture(scope="module")
def train(make_study, rows, make_statistics):
    """Run one local round; keyword arguments override."""

    def run(*, privacy=None, key=KEY, seed=1, data=rows, plan=None, **sections):
        study = make_study(**({"privacy": privacy} if privacy else {}), **sections)
        weights = initial_weights(study, inputs=128, seed=0)
        chosen = plan or plan_local(study, declared_patients=60)
        return train_local(weights, make_statistics(rows), data, study, plan=chosen, noise_key=key, seed=seed)

    return run


def test_private_training_gives_the_same_bytes_for_the_same_key(train):
    torch.manual_seed(1)
    first = train()
    torch.manual_seed(2)
    assert w.digest(train().delta) == w.digest(first.delta)
    assert w.digest(train(seed=2).delta) == w.digest(first.delta)
    assert w.digest(train(key=bytes(32)).delta) != w.digest(first.delta)
    assert first.n_examples > 60
    assert first.steps == 3


def test_plain_training_gives_the_same_bytes_for_the_same_seed(train):
    torch.manual_seed(1)
    first = train(privacy=NONE, key=None)
    torch.manual_seed(2)
    assert w.digest(train(privacy=NONE, key=None).delta) == w.digest(first.delta)
    assert w.digest(train(privacy=NONE, key=None, seed=2).delta) != w.digest(first.delta)


@pytest.mark.parametrize(
    "model",
    [{"kind": "linear"}, {"kind": "multitask"}, {"kind": "lstm", "units": [6, 4], "dense": [5]}],
    ids=lambda each: each["kind"],
)
@pytest.mark.parametrize("algorithm", ["fedavg", "fedbn"])
def test_every_kind_trains_alike_with_and_without_privacy(train, rows, with_series, model, algorithm):
    sections = {
        "model": model,
        "training": {"algorithm": algorithm, "batch_size": 16},
        "data": with_series(rows),
    }
    private, again = train(**sections), train(**sections)
    assert w.digest(private.delta) == w.digest(again.delta)
    plain = train(privacy=NONE, key=None, **sections)
    assert w.digest(plain.delta) != w.digest(private.delta)
    for delta in (plain.delta, private.delta):
        assert all(np.isfinite(array).all() and array.any() for array in delta.values())


def test_plain_training_learns(train, rows, make_study, make_statistics):
    training = {
        "rounds": 1,
        "local": {"epochs": 20},
        "batch_size": 16,
        "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9},
    }
    update = train(privacy=NONE, key=None, training=training)
    study = make_study(training=training)
    start = initial_weights(study, inputs=128, seed=0)
    after = {name: start[name] + update.delta[name] for name in start}
    scores = predict(after, make_statistics(rows), study, rows.inputs())
    accuracy = ((scores > 0.5) == (rows.labels > 0.5)).mean()
    assert accuracy > 0.9


def test_noise_and_key_belong_together(train):
    with pytest.raises(ValueError, match="belong together"):
        train(key=None)
    with pytest.raises(ValueError, match="belong together"):
        train(privacy=NONE, key=KEY)


def test_an_empty_fold_is_refused(train):
    empty = Rows(
        features=np.zeros((0, 128), dtype=np.float32),
        labels=np.zeros((0, 1), dtype=np.float32),
        person=np.zeros(0, dtype=np.int64),
        is_test=np.zeros(0, dtype=np.bool_),
    )
    with pytest.raises(DataError, match="no rows"):
        train(data=empty)


def test_training_that_diverges_is_refused_without_naming_a_value(train):
    training = {"rounds": 1, "local": {"epochs": 9}, "optimizer": {"kind": "sgd", "lr": 1e30}}
    with np.errstate(all="ignore"), pytest.raises(DataError, match="diverged"):
        train(privacy=NONE, key=None, training=training)


def test_one_class_only_trains(train, rows):
    update = train(data=replace(rows, labels=np.zeros_like(rows.labels)))
    assert np.isfinite(w.flatten(update.delta)).all()


def test_each_patient_counts_once_however_many_rows(train, rows):
    """With everybody drawn and noise 0, a patient's row repeated a hundred times changes nothing."""
    plan = LocalPlan(sampling_probability=1.0, steps=2, noise_multiplier=0.0, expected_batch_size=60)
    _, first = np.unique(rows.person, return_index=True)
    single = Rows(
        features=rows.features[first],
        labels=rows.labels[first],
        person=rows.person[first],
        is_test=rows.is_test[first],
    )
    again = np.concatenate([np.arange(len(first)), np.zeros(99, dtype=np.int64)])
    repeated = Rows(
        features=single.features[again],
        labels=single.labels[again],
        person=single.person[again],
        is_test=single.is_test[again],
    )
    assert w.digest(train(data=single, plan=plan).delta) == w.digest(train(data=repeated, plan=plan).delta)


def step(*, noise, patients, expected, probability=1.0, clip=1.0, steps=1):
    """Change of a 40-parameter network after steps at learning rate 1, without dropout."""
    torch.manual_seed(0)
    network = Perceptron([8, 4, 1], (), torch.Generator())
    before = w.flatten(read_weights(network)).astype(np.float64)
    inputs = np.random.default_rng(0).normal(size=(patients, 8)).astype(np.float32)
    plan = LocalPlan(
        sampling_probability=probability, steps=steps, noise_multiplier=noise, expected_batch_size=expected
    )
    private_steps(
        network,
        (inputs,),
        (np.arange(patients) % 2).astype(np.float32)[:, None],
        (Target("death", "binary"),),
        np.arange(patients),
        plan=plan,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        l2_clip_norm=clip,
        source=NoiseSource(KEY),
    )
    return before - w.flatten(read_weights(network))


def test_sums_are_divided_by_the_expected_batch_never_by_the_actual_one():
    np.testing.assert_allclose(
        4 * step(noise=0.0, patients=10, expected=4), 8 * step(noise=0.0, patients=10, expected=8), atol=1e-5
    )


def test_the_clipped_sum_is_that_of_autograd_one_patient_at_a_time():
    torch.manual_seed(0)
    network = Perceptron([8, 4, 1], (), torch.Generator())
    inputs = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    total = np.zeros(w.parameter_count(read_weights(network)))
    names = sorted(name for name, _ in network.named_parameters())
    for row in range(6):
        network.zero_grad()
        logit = network(torch.from_numpy(inputs[row : row + 1]))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, torch.tensor([float(row % 2)]))
        loss.backward()
        named = dict(network.named_parameters())
        gradient = np.concatenate([named[name].grad.numpy().ravel() for name in names])
        total += gradient * min(1.0, 0.3 / np.linalg.norm(gradient))
    np.testing.assert_allclose(step(noise=0.0, patients=6, expected=1, clip=0.3), total, atol=2e-6)


def test_empty_batches_still_add_noise_of_the_stated_size():
    change = np.concatenate(
        [step(noise=2.0, patients=3, expected=5, probability=1e-12, clip=0.5, steps=n) for n in (1, 4)]
    )
    size = len(change) // 2
    one, four = change[:size], change[size:]
    assert one.std() == pytest.approx(2.0 * 0.5 / 5, rel=0.35)
    assert four.std() == pytest.approx(2 * 2.0 * 0.5 / 5, rel=0.35)


def test_noise_is_the_keyed_stream_scaled_by_clip_and_multiplier():
    quiet, loud = (step(noise=noise, patients=5, expected=3, clip=0.5) for noise in (0.0, 2.0))
    noise = NoiseSource(KEY).fork("gaussian").normals(len(quiet)) * 2.0 * 0.5 / 3
    np.testing.assert_allclose(np.sort(loud - quiet), np.sort(noise), atol=1e-6)
