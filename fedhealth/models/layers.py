"""What the networks are made of: dropout with a generator of its own, an affine input layer, rows of linear layers."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


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


class InputNorm(nn.Module):
    """``scale * values + shift`` per input, the last dimension; starts as the identity.

    It learns by gradients, from no statistic of a batch: one row's output is a function of that row alone.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(inputs))
        self.shift = nn.Parameter(torch.zeros(inputs))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.scale + self.shift


def linear_layers(sizes: Sequence[int]) -> nn.ModuleList:
    """One linear layer between every two sizes."""
    return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))


def seeded_dropout(probabilities: Sequence[float], generator: torch.Generator) -> nn.ModuleList:
    """One `SeededDropout` per probability, all on one generator."""
    return nn.ModuleList(SeededDropout(probability, generator) for probability in probabilities)


def relu_layers(layers: Iterable[nn.Module], values: Tensor, *, drops: Sequence[nn.Module] = ()) -> Tensor:
    """Each layer with ReLU behind it, and dropout behind the first ones."""
    for index, layer in enumerate(layers):
        values = torch.relu(layer(values))
        if index < len(drops):
            values = drops[index](values)
    return values


def output_layers(layers: Iterable[nn.Module], values: Tensor, *, drops: Sequence[nn.Module] = ()) -> Tensor:
    """`relu_layers`, the last layer without ReLU and dropout."""
    *hidden, last = layers
    outputs: Tensor = last(relu_layers(hidden, values, drops=drops))
    return outputs
