"""Ordinary mini-batch SGD, for studies without differential privacy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedhealth.models.losses import row_losses
from fedhealth.study.targets import Target


def plain_steps(
    network: nn.Module,
    inputs: tuple[NDArray[np.float32], ...],
    labels: NDArray[np.float32],
    targets: tuple[Target, ...],
    *,
    steps: int,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    seed: int,
) -> float:
    """Run ``steps`` SGD steps in place over shuffled passes through the rows.

    A batch's loss is the mean over its rows of at least one known label, 0 if there is none.

    Guarantees: every row is used once before any is used again; a function of the data and the seed.

    Returns:
      The mean loss over the rows used that have a known label.
    """
    arrays, known = [torch.from_numpy(each) for each in inputs], torch.from_numpy(labels)
    is_known = ~known.isnan().all(dim=1)
    generator = np.random.default_rng(seed)
    total, used = 0.0, 0
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) == 0:
            order = torch.from_numpy(generator.permutation(len(labels)))
        batch, order = order[:batch_size], order[batch_size:]
        optimizer.zero_grad(set_to_none=True)
        loss = row_losses(network(*(each[batch] for each in arrays)), known[batch], targets).sum()
        rows = int(is_known[batch].sum())
        (loss / max(rows, 1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total, used = total + float(loss.detach()), used + rows
    return total / max(used, 1)
