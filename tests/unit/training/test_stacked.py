import numpy as np
import torch

from fedhealth.models.networks import Perceptron, load_weights, read_weights
from fedhealth.models.weights import flatten
from fedhealth.training.stacked import SgdSettings, StackedTrainer

SETTINGS = SgdSettings(lr=0.1, momentum=0.9, weight_decay=0.01, batch_size=8)


def dataset(seed, rows):
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(rows, 5)).astype(np.float32)
    return inputs, (inputs[:, 0] > 0).astype(np.float32)


def start():
    torch.manual_seed(0)
    return read_weights(Perceptron([5, 7, 4, 1], (), torch.Generator()))


class Recorder:
    """Stands in for the shuffling generator: keeps the order, so that batches can be replayed."""

    def permutation(self, size):
        return np.arange(size)


def by_torch(inputs, labels, passes):
    network = Perceptron([5, 7, 4, 1], (), torch.Generator())
    load_weights(network, start())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(passes):
        for first in range(0, len(labels), 8):
            batch = slice(first, first + 8)
            logits = network(torch.from_numpy(inputs[batch])).squeeze(-1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, torch.from_numpy(labels[batch])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return read_weights(network)


def test_every_stacked_network_is_the_one_torch_trains_alone():
    datasets = [dataset(seed, rows) for seed, rows in enumerate((5, 40, 17, 8, 1))]
    trainer = StackedTrainer(datasets, dropout=(), settings=SETTINGS, seed=0)
    trainer._shuffle = Recorder()
    trainer.load(start())
    for _ in range(3):
        trainer.run_pass()
    for trained, (inputs, labels) in zip(trainer.weights(), datasets, strict=True):
        expected = by_torch(inputs, labels, 3)
        assert list(trained) == list(expected)
        np.testing.assert_allclose(flatten(trained), flatten(expected), atol=2e-5)
        assert np.abs(flatten(trained) - flatten(start())).max() > 1e-3


def test_the_average_has_the_given_shares():
    datasets = [dataset(seed, rows) for seed, rows in enumerate((5, 40, 17))]
    trainer = StackedTrainer(datasets, dropout=(0.2,), settings=SETTINGS, seed=0)
    trainer.load(start())
    trainer.run_pass()
    shares = [0.5, 0.2, 0.3]
    pairs = zip(shares, trainer.weights(), strict=True)
    expected = sum(share * flatten(weights).astype(np.float64) for share, weights in pairs)
    np.testing.assert_allclose(flatten(trainer.average(shares)), expected, atol=1e-6)


def test_training_is_a_function_of_the_seed():
    def run(seed):
        trainer = StackedTrainer([dataset(0, 30)], dropout=(0.3,), settings=SETTINGS, seed=seed)
        trainer.load(start())
        trainer.run_pass()
        return flatten(trainer.weights()[0])

    np.testing.assert_array_equal(run(1), run(1))
    assert (run(1) != run(2)).any()


def test_dropout_is_that_of_autograd_under_the_same_masks():
    inputs, labels = dataset(0, 64)
    settings = SgdSettings(lr=1.0, momentum=0.0, weight_decay=0.0, batch_size=64)
    trainer = StackedTrainer([(inputs, labels)], dropout=(0.5, 0.25), settings=settings, seed=4)
    trainer._shuffle = Recorder()
    trainer.load(start())
    trainer.run_pass()

    network = Perceptron([5, 7, 4, 1], (), torch.Generator())
    load_weights(network, start())
    masks = torch.Generator().manual_seed(4)
    values = torch.from_numpy(inputs)
    for layer, rate in zip(network.layers[:2], (0.5, 0.25), strict=True):
        values = torch.relu(layer(values))
        kept = torch.rand((1, *values.shape), generator=masks)[0] >= rate
        values = values * kept / (1 - rate)
    logits = network.layers[2](values)[:, 0]
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels)).backward()
    torch.optim.SGD(network.parameters(), lr=1.0).step()
    np.testing.assert_allclose(flatten(trainer.weights()[0]), flatten(read_weights(network)), atol=1e-6)
