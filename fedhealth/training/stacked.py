"""Many small networks trained at once, as one batched matrix product: for references on one machine.

The same mathematics as plain SGD on `fedhealth.models.networks` (a test compares them), written out by
hand: the networks of all sites lie behind one another in one tensor per layer, sorted so that those with
the most steps come first, and a site that has no step left in a pass is cut off the end. Never used under
differential privacy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedhealth.models.weights import Weights

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class SgdSettings:
    """Mini-batch SGD as torch defines it: lr and momentum, L2 decay added to the gradient."""

    lr: float
    momentum: float
    weight_decay: float
    batch_size: int


class StackedTrainer:
    """Networks of one shape, one per dataset, each trained on its own dataset only.

    Args:
      datasets: per network, prepared inputs (rows, columns) and labels (rows,); at least one row each.
      dropout: probability after each of the first hidden layers.
      settings: shared by all.
      seed: of shuffling and dropout.
    """

    def __init__(
        self,
        datasets: Sequence[tuple[FloatArray, FloatArray]],
        *,
        dropout: Sequence[float],
        settings: SgdSettings,
        seed: int,
    ) -> None:
        sizes = np.array([len(labels) for _, labels in datasets])
        self._order = np.argsort(-sizes, kind="stable")
        self._sizes = sizes[self._order]
        self._starts = np.concatenate(([0], np.cumsum(self._sizes)[:-1]))
        self._inputs = torch.from_numpy(np.concatenate([datasets[k][0] for k in self._order]))
        self._labels = torch.from_numpy(np.concatenate([datasets[k][1] for k in self._order]))
        self._dropout, self._settings = tuple(dropout), settings
        self._shuffle = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._layers: list[Tensor] = []
        self._biases: list[Tensor] = []
        self._momenta: list[Tensor] = []

    def load(self, weights: Weights) -> None:
        """Set every network to the same weights and forget the momentum."""
        count, depth = len(self._sizes), len(weights) // 2
        kernels = [torch.from_numpy(weights[f"layers.{i}.weight"].T.copy()) for i in range(depth)]
        biases = [torch.from_numpy(weights[f"layers.{i}.bias"].copy()) for i in range(depth)]
        self._layers = [kernel.expand(count, -1, -1).clone() for kernel in kernels]
        self._biases = [bias.expand(count, 1, -1).clone() for bias in biases]
        self._momenta = [torch.zeros_like(values) for values in (*self._layers, *self._biases)]

    def weights(self) -> list[Weights]:
        """Every network's weights, in the order of the datasets."""
        stacked: list[Weights] = [{} for _ in self._sizes]
        for position, dataset in enumerate(self._order):
            for index, (layer, bias) in enumerate(zip(self._layers, self._biases, strict=True)):
                stacked[dataset][f"layers.{index}.weight"] = layer[position].T.numpy().copy()
                stacked[dataset][f"layers.{index}.bias"] = bias[position, 0].numpy().copy()
        return [dict(sorted(weights.items())) for weights in stacked]

    def average(self, shares: Sequence[float]) -> Weights:
        """The mean of all networks with the given shares (per dataset, summing to 1)."""
        factors = torch.tensor([shares[k] for k in self._order], dtype=torch.float64)
        mean: Weights = {}
        for index, (layer, bias) in enumerate(zip(self._layers, self._biases, strict=True)):
            mean[f"layers.{index}.weight"] = torch.tensordot(factors.float(), layer, dims=1).T.numpy().copy()
            mean[f"layers.{index}.bias"] = torch.tensordot(factors.float(), bias, dims=1)[0].numpy().copy()
        return dict(sorted(mean.items()))

    def run_pass(self) -> None:
        """One shuffled pass of every network over its own rows."""
        batch = self._settings.batch_size
        orders = [
            start + self._shuffle.permutation(size)
            for start, size in zip(self._starts, self._sizes, strict=True)
        ]
        for step in range(math.ceil(int(self._sizes[0]) / batch)):
            active = int((self._sizes > step * batch).sum())
            index = np.zeros((active, batch), dtype=np.int64)
            share = np.zeros((active, batch, 1), dtype=np.float32)
            for position in range(active):
                rows = orders[position][step * batch : (step + 1) * batch]
                index[position, : len(rows)] = rows
                share[position, : len(rows)] = 1.0 / len(rows)
            self._step(torch.from_numpy(index), torch.from_numpy(share))

    def _step(self, index: Tensor, share: Tensor) -> None:
        """One SGD step of the first ``len(index)`` networks, on the rows ``index`` weighted by ``share``."""
        active = len(index)
        activations, logits = self._forward(self._inputs[index], active)
        errors = (torch.sigmoid(logits) - self._labels[index].unsqueeze(-1)) * share
        for layer in reversed(range(len(self._layers))):
            below = activations[layer]
            kernel_gradient = torch.bmm(below.transpose(1, 2), errors)
            bias_gradient = errors.sum(dim=1, keepdim=True)
            if layer > 0:
                errors = torch.bmm(errors, self._layers[layer][:active].transpose(1, 2))
                errors = errors.mul_(below > 0).mul_(1.0 / (1.0 - self._rate(layer - 1)))
            self._update(layer, self._layers[layer][:active], kernel_gradient)
            self._update(layer + len(self._layers), self._biases[layer][:active], bias_gradient)

    def _forward(self, values: Tensor, active: int) -> tuple[list[Tensor], Tensor]:
        """The input of every layer, and the logits. A dropped unit is 0, as a silent one is."""
        activations = [values]
        last = len(self._layers) - 1
        for layer in range(last):
            values = torch.baddbmm(
                self._biases[layer][:active], activations[-1], self._layers[layer][:active]
            ).relu_()
            rate = self._rate(layer)
            if rate > 0.0:
                kept = torch.rand(values.shape, generator=self._generator) >= rate
                values = values.mul_(kept).mul_(1.0 / (1.0 - rate))
            activations.append(values)
        return activations, torch.baddbmm(
            self._biases[last][:active], activations[-1], self._layers[last][:active]
        )

    def _update(self, slot: int, values: Tensor, gradient: Tensor) -> None:
        """torch's SGD with momentum and weight decay, in place."""
        settings = self._settings
        momentum = self._momenta[slot][: len(values)]
        gradient.add_(values, alpha=settings.weight_decay)
        momentum.mul_(settings.momentum).add_(gradient)
        values.add_(momentum, alpha=-settings.lr)

    def _rate(self, layer: int) -> float:
        return self._dropout[layer] if layer < len(self._dropout) else 0.0
