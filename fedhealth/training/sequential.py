"""Any network on many datasets, one after the other: for references of what `StackedTrainer` does not know.

Never used under differential privacy.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedhealth.models.networks import build_network, load_weights, read_weights
from fedhealth.models.weights import Weights, sorted_weights
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of
from fedhealth.training.plain import plain_steps

FloatArray = NDArray[np.float32]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class SequentialTrainer:
    """The study's network, once per dataset, each trained on its own dataset only. The methods of `StackedTrainer`.

    Args:
      datasets: per network, what it takes, each (rows, ...), and labels (rows, targets), NaN where not known; at
        least one row each.
      study: gives the network and its targets.
      optimizer: makes one over a network's parameters, anew whenever weights are loaded.
      batch_size: rows of a step.
      seed: of shuffling and dropout.
    """

    def __init__(
        self,
        datasets: Sequence[tuple[tuple[FloatArray, ...], FloatArray]],
        study: Study,
        *,
        optimizer: MakeOptimizer,
        batch_size: int,
        seed: int,
    ) -> None:
        self._datasets, self._targets, self._batch_size = datasets, targets_of(study), batch_size
        self._shuffle = np.random.default_rng(seed)
        self._optimizer = optimizer
        self._networks = [
            build_network(study, inputs=inputs[0].shape[1], seed=seed + number)
            for number, (inputs, _) in enumerate(datasets)
        ]
        self._optimizers: list[torch.optim.Optimizer] = []

    def load(self, weights: Weights) -> None:
        """Set every network to the same weights and begin with new optimisers."""
        for network in self._networks:
            load_weights(network, weights)
            network.train()
        self._optimizers = [self._optimizer(network.parameters()) for network in self._networks]

    def weights(self) -> list[Weights]:
        """Every network's weights, in the order of the datasets."""
        return [read_weights(network) for network in self._networks]

    def average(self, shares: Sequence[float]) -> Weights:
        """The mean of all networks with the given shares (per dataset, summing to 1)."""
        trained = self.weights()
        return sorted_weights(
            {
                name: np.tensordot(np.asarray(shares), np.stack([each[name] for each in trained]), axes=1)
                for name in trained[0]
            }
        )

    def run_pass(self) -> None:
        """One shuffled pass of every network over its own rows."""
        for (inputs, labels), network, optimizer in zip(
            self._datasets, self._networks, self._optimizers, strict=True
        ):
            plain_steps(
                network,
                inputs,
                labels,
                self._targets,
                steps=math.ceil(len(labels) / self._batch_size),
                batch_size=self._batch_size,
                optimizer=optimizer,
                seed=int(self._shuffle.integers(2**63)),
            )
