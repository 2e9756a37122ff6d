"""The study's network, its initial weights, and scoring with given weights.

A multilayer perceptron without batch normalisation (it would mix patients, which patient-level privacy
forbids), one logit out. Parameters are named ``layers.{i}.weight`` and ``layers.{i}.bias``.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedhealth.errors import ConfigError
from fedhealth.models.preprocess import prepare
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights, sorted_weights
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study


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
    """ReLU layers with dropout after the first ones; (rows, inputs) -> (rows,) logits."""

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
        logits: Tensor = last(values)
        return logits.squeeze(-1)


def build_network(study: Study, *, inputs: int, seed: int = 0) -> Perceptron:
    """Build the study's network, with dropout masks drawn from ``seed``.

    Its weights are arbitrary until `load_weights`.

    Raises:
      ConfigError: the study asks for a kind that is not built.
    """
    if study.model.kind != "mlp":
        raise ConfigError(f"the model kind {study.model.kind} is not built", "set model.kind to mlp")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        return Perceptron([inputs, *study.model.hidden, 1], study.model.dropout, generator)


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
    weights: Mapping[str, NDArray[np.float32]],
    statistics: Statistics,
    study: Study,
    features: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Score raw rows: imputation, clipping and standardisation inside, dropout off.

    Args:
      weights: of the study's network.
      statistics: the consortium's.
      study: gives the columns and their public bounds.
      features: (rows, columns) in raw units, NaN where missing.

    Returns:
      float32 (rows,) probabilities of the outcome.

    Raises:
      ValueError: shapes do not fit.
    """
    values = prepare(features, statistics, feature_columns(study))
    depth = len(weights) // 2
    for index in range(depth):
        values = values @ weights[f"layers.{index}.weight"].T + weights[f"layers.{index}.bias"]
        if index < depth - 1:
            values = np.maximum(values, np.float32(0))
    return sigmoid(values[:, 0])


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function without overflow, float32."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float32)
