"""The optimisers at a site, FedProx and corrections: what is added comes after the noise, and by the formula."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedhealth.models import weights as w
from fedhealth.models.networks import (
    build_network,
    initial_weights,
    load_weights,
    network_inputs,
    read_weights,
)
from fedhealth.training.local import train_local
from fedhealth.training.plan import LocalPlan, plan_local, plan_tuning

KEY = bytes(range(32))
NONE = {"mode": "none", "legal_basis": "public"}
MODEL = {"kind": "mlp", "hidden": [6], "dropout": []}


def plan(steps, *, noise=1.5):
    return LocalPlan(sampling_probability=0.5, steps=steps, noise_multiplier=noise, expected_batch_size=8)


@pytest.fixture(scope="module")
def rows(make_rows):
    return make_rows(0, 60)


@pytest.fixture(scope="module")
def train(make_study, rows, make_statistics):
    """The flat change of the weights; under DP unless privacy says none."""

    def run(*, plan, optimizer=None, privacy=None, correction=None, data=rows, **training):
        study = make_study(
            model=MODEL,
            training={"optimizer": optimizer or {"kind": "sgd", "lr": 1.0}, "batch_size": 400, **training},
            **({"privacy": privacy} if privacy else {}),
        )
        update = train_local(
            initial_weights(study, inputs=128, seed=0),
            make_statistics(rows),
            data,
            study,
            plan=plan,
            noise_key=None if privacy else KEY,
            seed=1,
            correction=correction,
        )
        return w.flatten(update.delta).astype(np.float64)

    return run


@pytest.fixture(scope="module")
def start(make_study):
    return initial_weights(make_study(model=MODEL), inputs=128, seed=0)


def test_adam_and_adamw_step_on_the_noisy_gradient(train, start):
    gradient, before = -train(plan=plan(1)), w.flatten(start)
    adam = train(plan=plan(1), optimizer={"kind": "adam", "lr": 0.01, "weight_decay": 0.1})
    decayed = gradient + 0.1 * before
    np.testing.assert_allclose(adam, -0.01 * decayed / (np.abs(decayed) + 1e-8), rtol=2e-3, atol=1e-7)
    adamw = train(plan=plan(1), optimizer={"kind": "adamw", "lr": 0.01, "weight_decay": 0.1})
    expected = -0.01 * 0.1 * before - 0.01 * gradient / (np.abs(gradient) + 1e-8)
    np.testing.assert_allclose(adamw, expected, rtol=2e-3, atol=1e-7)


def test_momentum_and_decay_work_on_the_noisy_gradient(train, start):
    one, before = train(plan=plan(1)), w.flatten(start)
    decayed = train(plan=plan(1), optimizer={"kind": "sgd", "lr": 1.0, "weight_decay": 0.5})
    np.testing.assert_allclose(decayed, one - 0.5 * before, atol=1e-6)
    two = train(plan=plan(2))
    rolling = train(plan=plan(2), optimizer={"kind": "sgd", "lr": 1.0, "momentum": 0.9})
    np.testing.assert_allclose(rolling, two + 0.9 * one, atol=1e-5)


def test_the_proximal_pull_comes_after_the_noise_and_is_not_clipped(train):
    one, two = train(plan=plan(1)), train(plan=plan(2))
    near = {"algorithm": "fedprox", "proximal_mu": 0.75}
    np.testing.assert_array_equal(train(plan=plan(1), **near), one)
    np.testing.assert_allclose(train(plan=plan(2), **near), two - 0.75 * one, atol=1e-5)
    assert np.linalg.norm(0.75 * one) > 0.2  # far above the bound of one patient's share, 1 / 8


def test_fedprox_without_privacy_descends_its_objective(train, make_study, rows, make_statistics, start):
    study = make_study(model=MODEL)
    network = build_network(study, inputs=128)
    load_weights(network, start)
    before = [each.detach().clone() for each in network.parameters()]
    (inputs,) = network_inputs(rows.inputs(), make_statistics(rows), study)
    sgd = torch.optim.SGD(network.parameters(), lr=0.2)
    for _ in range(6):
        sgd.zero_grad()
        outputs = network(torch.from_numpy(inputs))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs, torch.from_numpy(rows.labels))
        for value, begun in zip(network.parameters(), before, strict=True):
            loss = loss + 2.0 / 2 * ((value - begun) ** 2).sum()
        loss.backward()
        sgd.step()
    found = train(
        plan=plan(6, noise=None),
        privacy=NONE,
        optimizer={"kind": "sgd", "lr": 0.2},
        algorithm="fedprox",
        proximal_mu=2.0,
    )
    expected = w.flatten(read_weights(network)) - w.flatten(start)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    without = train(plan=plan(6, noise=None), privacy=NONE, optimizer={"kind": "sgd", "lr": 0.2})
    assert np.linalg.norm(found) < 0.7 * np.linalg.norm(without)


@pytest.mark.parametrize("privacy", [None, NONE])
def test_a_correction_is_added_to_every_step_and_never_clipped(train, start, privacy):
    correction = {name: np.full_like(array, 100.0) for name, array in start.items()}
    for each in correction.values():
        each.flags.writeable = False
    steps = plan(1) if privacy is None else plan(1, noise=None)
    plain = train(plan=steps, privacy=privacy)
    np.testing.assert_allclose(
        train(plan=steps, privacy=privacy, correction=correction), plain - 100.0, atol=1e-4
    )


def test_a_correction_of_another_network_is_refused(train, start):
    with pytest.raises(ValueError, match="correction does not fit"):
        train(plan=plan(1), correction={})
    wrong = {name: array.ravel() for name, array in start.items()}
    with pytest.raises(ValueError, match="correction does not fit"):
        train(plan=plan(1), correction=wrong)


def test_frozen_parameters_have_a_delta_of_zero_and_feel_neither_decay_nor_correction(
    make_study, rows, make_statistics, start
):
    study = make_study(
        model=MODEL,
        training={
            "algorithm": "fedprox",
            "proximal_mu": 1.0,
            "optimizer": {"kind": "adamw", "lr": 0.1, "weight_decay": 0.1},
            "initial": {"freeze": ["layers.0.*"]},
        },
    )
    delta = train_local(
        start,
        make_statistics(rows),
        rows,
        study,
        plan=plan(3),
        noise_key=KEY,
        seed=0,
        correction={name: np.ones_like(array) for name, array in start.items()},
    ).delta
    assert list(delta) == list(start)
    assert not delta["layers.0.weight"].any()
    assert not delta["layers.0.bias"].any()
    assert delta["layers.1.weight"].all()


def test_rows_of_no_known_label_weigh_nothing_without_privacy(train, rows):
    labels = rows.labels.copy()
    labels[::2] = np.nan
    some, known = replace(rows, labels=labels), rows.where(~np.isnan(labels[:, 0]))
    steps = plan(2, noise=None)
    np.testing.assert_allclose(
        train(plan=steps, privacy=NONE, data=some), train(plan=steps, privacy=NONE, data=known), atol=1e-6
    )
    none = replace(rows, labels=np.full_like(labels, np.nan))
    assert not train(plan=steps, privacy=NONE, data=none).any()


def test_fine_tuning_has_a_plan_of_its_own_and_needs_no_key(make_study, rows, make_statistics, start):
    study = make_study(model=MODEL, training={"batch_size": 16, "optimizer": {"kind": "sgd", "lr": 0.1}})
    tuning = plan_tuning(plan_local(study, declared_patients=60), passes=4)
    update = train_local(start, make_statistics(rows), rows, study, plan=tuning, noise_key=None, seed=3)
    assert update.steps == 4 * -(-len(rows) // 16)
    untrained = train_local(
        start,
        make_statistics(rows),
        rows,
        study,
        plan=LocalPlan(
            sampling_probability=1.0, steps=1, noise_multiplier=None, expected_batch_size=16, passes=None
        ),
        noise_key=None,
        seed=3,
    )
    assert untrained.steps == 1
    assert update.mean_loss < 0.8 * untrained.mean_loss
