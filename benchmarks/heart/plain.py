"""FLamby's federated averaging in NumPy, without FedHealth: what its published figure is reproduced with.

A logistic regression, mini-batches of 4 without replacement, 100 updates a site and round whatever the site's size,
15 rounds, the mean of the sites' changes weighted by their training rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from heart.protocol import Arrays
from numpy.typing import NDArray

ROUNDS, STEPS, BATCH = 15, 100, 4
PUBLISHED_LR = 0.001

Scaling = Literal["site", "consortium"]
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy at 0.5 on every site's test rows, and on all of them together."""

    sites: tuple[float, ...]
    pooled: float

    @property
    def mean_site(self) -> float:
        """The mean over the sites, as FLamby reports it."""
        return float(np.mean(self.sites))


def federated_average(sites: Sequence[Arrays], *, scaling: Scaling, lr: float, seed: int) -> Accuracy:
    """Train and test. As in FLamby the pooled test is scaled by the moments of all training rows, whatever the scaling.

    Args:
      sites: the hospitals.
      scaling: whose training rows give the moments by which a site's rows are standardised.
      lr: learning rate of a site's SGD.
      seed: of the initial weights (those of ``torch.nn.Linear`` after ``torch.manual_seed``) and of the batches.
    """
    together = _moments([site.features[~site.is_test] for site in sites])
    own = [_moments([site.features[~site.is_test]]) if scaling == "site" else together for site in sites]
    training = [
        (_scaled(site.features[~site.is_test], moments), site.is_diseased[~site.is_test].astype(float))
        for site, moments in zip(sites, own, strict=True)
    ]
    weights = _train(training, lr=lr, seed=seed)
    tests = [(site.features[site.is_test], site.is_diseased[site.is_test]) for site in sites]
    right = [_right(weights, _scaled(x, moments), y) for (x, y), moments in zip(tests, own, strict=True)]
    pooled = [_right(weights, _scaled(x, together), y) for x, y in tests]
    return Accuracy(tuple(float(each.mean()) for each in right), float(np.concatenate(pooled).mean()))


def _moments(parts: Sequence[NDArray[np.float64]]) -> Moments:
    rows = np.concatenate(parts)
    return rows.mean(axis=0), rows.std(axis=0, ddof=1) + 1e-9


def _scaled(features: NDArray[np.float64], moments: Moments) -> NDArray[np.float64]:
    """Standardised, with a column of ones for the bias."""
    return np.column_stack([(features - moments[0]) / moments[1], np.ones(len(features))])


def _right(
    weights: NDArray[np.float64], inputs: NDArray[np.float64], is_diseased: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    return np.asarray((inputs @ weights > 0) == is_diseased)


def _train(
    training: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], *, lr: float, seed: int
) -> NDArray[np.float64]:
    weights = _initial(training[0][0].shape[1] - 1, seed=seed)
    generator = np.random.default_rng(seed)
    batches = [_batches(len(labels), generator) for _, labels in training]
    sizes = np.array([len(labels) for _, labels in training], dtype=float)
    for _ in range(ROUNDS):
        ends = [
            _local(weights, inputs, labels, source, lr=lr)
            for (inputs, labels), source in zip(training, batches, strict=True)
        ]
        weights = weights + (sizes / sizes.sum()) @ (np.array(ends) - weights)
    return weights


def _initial(inputs: int, *, seed: int) -> NDArray[np.float64]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(inputs, 1)
    return np.append(layer.weight.detach().numpy()[0], layer.bias.detach().numpy()).astype(float)


def _batches(rows: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        order = generator.permutation(rows)
        yield from (order[start : start + BATCH] for start in range(0, rows, BATCH))


def _local(
    weights: NDArray[np.float64],
    inputs: NDArray[np.float64],
    labels: NDArray[np.float64],
    batches: Iterator[NDArray[np.int64]],
    *,
    lr: float,
) -> NDArray[np.float64]:
    for _ in range(STEPS):
        batch = next(batches)
        scores = 1 / (1 + np.exp(-(inputs[batch] @ weights)))
        weights = weights - lr * (scores - labels[batch]) @ inputs[batch] / len(batch)
    return weights
