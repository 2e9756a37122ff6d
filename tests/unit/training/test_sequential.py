import numpy as np
import pytest
import torch

from fedhealth.models import weights as w
from fedhealth.models.networks import initial_weights
from fedhealth.training.sequential import SequentialTrainer
from fedhealth.training.stacked import SgdSettings, StackedTrainer

SETTINGS = SgdSettings(lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=64)
SIZES = (5, 40, 17)


@pytest.fixture(scope="module")
def study(make_study):
    return make_study(model={"kind": "mlp", "hidden": [7, 4], "dropout": []})


@pytest.fixture(scope="module")
def datasets():
    generator = np.random.default_rng(0)
    inputs = [generator.normal(size=(rows, 5)).astype(np.float32) for rows in SIZES]
    return [((each,), (each[:, :1] > 0).astype(np.float32)) for each in inputs]


@pytest.fixture
def trainer(study, datasets):
    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01)

    def make(seed=0, study=study):
        return SequentialTrainer(datasets, study, optimizer=sgd, batch_size=SETTINGS.batch_size, seed=seed)

    return make


def test_it_trains_what_the_stacked_trainer_trains(study, datasets, trainer):
    """With whole passes as batches the order of rows does not matter."""
    flat = [(inputs[0], labels[:, 0]) for inputs, labels in datasets]
    start = initial_weights(study, inputs=5, seed=0)
    one, other = trainer(), StackedTrainer(flat, dropout=(), settings=SETTINGS, seed=0)
    for _ in range(2):  # a second load forgets the momentum
        for each in (one, other):
            each.load(start)
            for _ in range(4):
                each.run_pass()
    for mine, stacked in zip(one.weights(), other.weights(), strict=True):
        assert list(mine) == list(stacked)
        np.testing.assert_allclose(w.flatten(mine), w.flatten(stacked), atol=2e-6)
        assert np.abs(w.flatten(mine) - w.flatten(start)).max() > 1e-2
    shares = [0.5, 0.2, 0.3]
    np.testing.assert_allclose(w.flatten(one.average(shares)), w.flatten(other.average(shares)), atol=2e-6)


def test_training_is_a_function_of_the_seed(make_study, trainer):
    study = make_study(model={"kind": "mlp", "hidden": [7, 4], "dropout": [0.3]})

    def run(seed):
        one = trainer(seed, study)
        one.load(initial_weights(study, inputs=5, seed=0))
        one.run_pass()
        return w.flatten(one.weights()[1])

    np.testing.assert_array_equal(run(1), run(1))
    assert (run(1) != run(2)).any()
