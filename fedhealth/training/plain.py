"""Ordinary mini-batch SGD, for studies without differential privacy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from fedhealth.models.networks import Perceptron


def plain_steps(
    network: Perceptron,
    inputs: NDArray[np.float32],
    labels: NDArray[np.float32],
    *,
    steps: int,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    seed: int,
) -> float:
    """Run ``steps`` SGD steps in place over shuffled passes through the rows.

    Guarantees: every row is used once before any is used again; a function of the data and the seed.

    Returns:
      The mean loss over the rows used.
    """
    features, targets = torch.from_numpy(inputs), torch.from_numpy(labels)
    generator = np.random.default_rng(seed)
    total, used = 0.0, 0
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) == 0:
            order = torch.from_numpy(generator.permutation(len(labels)))
        batch, order = order[:batch_size], order[batch_size:]
        optimizer.zero_grad(set_to_none=True)
        loss = binary_cross_entropy_with_logits(network(features[batch]), targets[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total, used = total + float(loss.detach()) * len(batch), used + len(batch)
    return total / max(used, 1)
