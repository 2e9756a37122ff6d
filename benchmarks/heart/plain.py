"""FLamby's federated averaging in NumPy, without FedHealth: what its published figure is reproduced with.

A logistic regression, mini-batches of 4 without replacement, 100 updates a site and round whatever the site's size,
15 rounds. What else there is to choose is a `Recipe`; ours was chosen by `cross_validate`, which sees training rows only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from heart.protocol import Arrays
from numpy.typing import NDArray

ROUNDS, STEPS, BATCH = 15, 100, 4
PARTS = 5

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How sites train together.

    Attributes:
      lr: learning rate of a site's SGD.
      scaling: whose training rows give the moments by which a site's rows are standardised.
      weighting: what a site counts in the mean of the changes: its training rows, or as much as any other.
      start: initial weights, those of ``torch.nn.Linear`` after ``torch.manual_seed``, or zero.
    """

    lr: float
    scaling: Literal["site", "consortium"]
    weighting: Literal["examples", "uniform"] = "examples"
    start: Literal["random", "zero"] = "random"


FLAMBY = Recipe(lr=0.001, scaling="site")
"""FLamby's FedAvg."""
OURS = Recipe(lr=0.003, scaling="consortium", weighting="uniform", start="zero")
"""That of ``infra/studies/heart.yaml``."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy at 0.5 on every site's test rows, and on all of them together."""

    sites: tuple[float, ...]
    pooled: float

    @property
    def mean_site(self) -> float:
        """The mean over the sites, as FLamby reports it."""
        return float(np.mean(self.sites))


@dataclass(frozen=True, slots=True)
class Scaled:
    """A site's rows as its model sees them, with a column of ones for the bias; pooled tests are scaled apart."""

    inputs: Matrix
    labels: Matrix
    test_inputs: Matrix
    pooled_inputs: Matrix
    test_labels: NDArray[np.bool_]


def federated_average(sites: Sequence[Arrays], recipe: Recipe, *, seed: int) -> Accuracy:
    """Train and test. As in FLamby the pooled test is scaled by the moments of all training rows, whatever the scaling."""
    scaled = _scale_all(sites, recipe)
    weights = _train(scaled, recipe, seed=seed)
    right = [(each.test_inputs @ weights > 0) == each.test_labels for each in scaled]
    pooled = [(each.pooled_inputs @ weights > 0) == each.test_labels for each in scaled]
    return Accuracy(tuple(float(each.mean()) for each in right), float(np.concatenate(pooled).mean()))


def cross_validate(sites: Sequence[Arrays], recipe: Recipe, *, seeds: Sequence[int]) -> float:
    """Log loss of a recipe, mean over the sites, over the parts into which each seed deals the training rows.

    Guarantees: no test row is used. The loss and not the accuracy: of 486 rows that is too coarse to choose by.
    """
    losses = []
    for seed in seeds:
        for part in range(PARTS):
            scaled = _scale_all(_hold_out(sites, part, seed=seed), recipe)
            weights = _train(scaled, recipe, seed=seed)
            losses += [_log_loss(each.test_inputs @ weights, each.test_labels) for each in scaled]
    return float(np.mean(losses))


def _hold_out(sites: Sequence[Arrays], part: int, *, seed: int) -> list[Arrays]:
    """The training rows, of which one part is tested: every `PARTS`-th of a diagnosis, in an order of the seed's."""
    generator, found = np.random.default_rng(seed), []
    for site in sites:
        features, is_diseased = site.features[~site.is_test], site.is_diseased[~site.is_test]
        shuffled = generator.permutation(len(is_diseased))
        order = shuffled[np.argsort(is_diseased[shuffled], kind="stable")]
        is_tested = np.zeros(len(order), dtype=np.bool_)
        is_tested[order[part::PARTS]] = True
        found.append(Arrays(features, is_diseased, is_tested))
    return found


def _log_loss(logits: Matrix, is_diseased: NDArray[np.bool_]) -> float:
    return float(np.logaddexp(0, np.where(is_diseased, -logits, logits)).mean())


def _scale_all(sites: Sequence[Arrays], recipe: Recipe) -> list[Scaled]:
    together = _moments([site.features[~site.is_test] for site in sites])
    found = []
    for site in sites:
        training, test = site.features[~site.is_test], site.features[site.is_test]
        own = _moments([training]) if recipe.scaling == "site" else together
        found.append(
            Scaled(
                inputs=_scale(training, own),
                labels=site.is_diseased[~site.is_test].astype(float),
                test_inputs=_scale(test, own),
                pooled_inputs=_scale(test, together),
                test_labels=site.is_diseased[site.is_test],
            )
        )
    return found


def _moments(parts: Sequence[Matrix]) -> tuple[Matrix, Matrix]:
    rows = np.concatenate(parts)
    return rows.mean(axis=0), rows.std(axis=0, ddof=1) + 1e-9


def _scale(features: Matrix, moments: tuple[Matrix, Matrix]) -> Matrix:
    return np.column_stack([(features - moments[0]) / moments[1], np.ones(len(features))])


def _train(sites: Sequence[Scaled], recipe: Recipe, *, seed: int) -> Matrix:
    width = sites[0].inputs.shape[1]
    weights = np.zeros(width) if recipe.start == "zero" else _random_start(width - 1, seed=seed)
    generator = np.random.default_rng(seed)
    batches = [_batches(len(each.labels), generator) for each in sites]
    counted = np.array(
        [len(each.labels) if recipe.weighting == "examples" else 1 for each in sites], dtype=float
    )
    for _ in range(ROUNDS):
        ends = [
            _local(weights, each, source, lr=recipe.lr) for each, source in zip(sites, batches, strict=True)
        ]
        weights = weights + (counted / counted.sum()) @ (np.array(ends) - weights)
    return weights


def _random_start(inputs: int, *, seed: int) -> Matrix:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(inputs, 1)
    return np.append(layer.weight.detach().numpy()[0], layer.bias.detach().numpy()).astype(float)


def _batches(rows: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        order = generator.permutation(rows)
        yield from (order[start : start + BATCH] for start in range(0, rows, BATCH))


def _local(weights: Matrix, site: Scaled, batches: Iterator[NDArray[np.int64]], *, lr: float) -> Matrix:
    for _ in range(STEPS):
        batch = next(batches)
        inputs = site.inputs[batch]
        scores = 1 / (1 + np.exp(-(inputs @ weights)))
        weights = weights - lr * (scores - site.labels[batch]) @ inputs / len(batch)
    return weights
