"""The study's network, its initial weights, and scoring with given weights.

No network has batch normalisation (it would mix patients, which patient-level privacy forbids). A perceptron's
parameters are named ``layers.{i}.weight`` and ``layers.{i}.bias``.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedhealth.errors import ConfigError
from fedhealth.models.inputs import RawInputs
from fedhealth.models.preprocess import static_inputs
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights, sorted_weights
from fedhealth.study.spec import Study
from fedhealth.study.targets import Target, output_slices, targets_of


class SeededDropout(nn.Module):
    """Dropout whose masks come from a generator of its own, so that a restart draws the same ones.

    Scales what is kept by ``1 / (1 - probability)`` while training and does nothing otherwise.
    """

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability = probability
        self.generator = generator

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return values
        draws = torch.rand(values.shape, generator=self.generator, dtype=values.dtype)
        return values * (draws >= self.probability) / (1.0 - self.probability)


class Perceptron(nn.Module):
    """ReLU layers with dropout after the first ones; (rows, inputs) -> (rows, outputs)."""

    def __init__(self, sizes: Sequence[int], dropout: Sequence[float], generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.drops = nn.ModuleList(SeededDropout(probability, generator) for probability in dropout)

    def forward(self, values: Tensor) -> Tensor:
        *hidden, last = self.layers
        for index, layer in enumerate(hidden):
            values = torch.relu(layer(values))
            if index < len(self.drops):
                values = self.drops[index](values)
        outputs: Tensor = last(values)
        return outputs


def _perceptron(study: Study, inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
    return Perceptron([inputs, *study.model.hidden, outputs], study.model.dropout, generator)


def _linear(study: Study, inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
    return Perceptron([inputs, outputs], (), generator)


_BUILDERS: dict[str, Callable[[Study, int, int, torch.Generator], nn.Module]] = {
    "linear": _linear,
    "mlp": _perceptron,
}


def build_network(study: Study, *, inputs: int, seed: int = 0) -> nn.Module:
    """Build the study's network, with dropout masks drawn from ``seed``.

    It takes the arrays of `network_inputs` as tensors and gives (rows, outputs), the targets' outputs side by
    side. Its weights are arbitrary until `load_weights`.

    Raises:
      ConfigError: the study asks for a kind that is not built.
    """
    kind = study.model.kind
    if kind not in _BUILDERS:
        raise ConfigError(f"the model kind {kind} is not built", f"use {' or '.join(_BUILDERS)}")
    outputs = sum(target.outputs for target in targets_of(study))
    with torch.random.fork_rng(devices=[]):
        return _BUILDERS[kind](study, inputs, outputs, torch.Generator().manual_seed(seed))


def network_inputs(rows: RawInputs, statistics: Statistics, study: Study) -> tuple[NDArray[np.float32], ...]:
    """What the study's network sees of rows: the prepared features, shape (rows, inputs)."""
    return (static_inputs(rows, statistics, study),)


def initial_weights(study: Study, *, inputs: int, seed: int) -> Weights:
    """Draw initial weights: He normal for the weights, zero for the biases.

    Guarantees: a function of the study's layer sizes, ``inputs`` and ``seed`` only.

    Source: He et al. 2015, equation 10.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build_network(study, inputs=inputs)
    named = {}
    for name, parameter in sorted(network.named_parameters()):
        values = torch.zeros(parameter.shape)
        if parameter.ndim == 2:
            values.normal_(0.0, (2.0 / parameter.shape[1]) ** 0.5, generator=generator)
        named[name] = values.numpy()
    return sorted_weights(named)


def load_weights(network: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy named weights into a network.

    Raises:
      ValueError: names or shapes differ.
    """
    named = dict(network.named_parameters())
    if {name: tuple(value.shape) for name, value in named.items()} != {
        name: array.shape for name, array in weights.items()
    }:
        raise ValueError("the weights do not fit the network")
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weights[name])))


def read_weights(network: nn.Module) -> Weights:
    """Copy a network's parameters out, sorted by name."""
    return sorted_weights({name: value.detach().numpy() for name, value in network.named_parameters()})


def predict(
    weights: Mapping[str, NDArray[np.float32]], statistics: Statistics, study: Study, rows: RawInputs
) -> NDArray[np.float32]:
    """Score raw rows: imputation, clipping and standardisation inside, dropout off.

    Args:
      weights: of the study's network.
      statistics: the consortium's.
      study: gives the columns, their public bounds, and the targets.
      rows: in raw units.

    Returns:
      float32 (rows, outputs): a probability for yes or no, one per class, the number in its unit, or per interval
      the probability that the event comes in it if not before.

    Raises:
      ValueError: shapes do not fit.
    """
    arrays = network_inputs(rows, statistics, study)
    network = build_network(study, inputs=arrays[0].shape[1])
    load_weights(network, weights)
    network.eval()
    with torch.no_grad():
        outputs: NDArray[np.float32] = network(*map(torch.from_numpy, arrays)).numpy()
    targets = targets_of(study)
    parts = [
        _ACTIVATIONS[t.kind](outputs[:, place], t)
        for t, place in zip(targets, output_slices(targets), strict=True)
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _number(outputs: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
    return np.asarray(np.clip(outputs * target.spread + target.center, target.low, target.high))


def _softmax(outputs: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
    raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function without overflow, float32."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float32)


_ACTIVATIONS: dict[str, Callable[[NDArray[np.float32], Target], NDArray[np.float32]]] = {
    "binary": lambda outputs, target: sigmoid(outputs),
    "classes": _softmax,
    "number": _number,
    "hazard": lambda outputs, target: sigmoid(outputs),
}
