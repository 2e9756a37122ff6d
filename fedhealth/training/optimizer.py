"""The optimiser at a site, and what is added to a gradient that depends on no patient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedhealth.models.weights import Weights
from fedhealth.study.language import Optimizer
from fedhealth.study.spec import Study


def local_optimizer(
    network: nn.Module, study: Study, *, correction: Weights | None = None
) -> torch.optim.Optimizer:
    """The study's optimiser over the parameters of a network that require a gradient.

    Before each of its steps ``proximal_mu * (w - w_start)`` and ``correction`` are added to the gradient. Under
    DP the gradient is noised by then (`fedhealth.training.private` writes it before it lets the optimiser
    step), so both of them, decay, momentum and Adam's moments are post-processing of the noisy sum.

    Args:
      network: holds the weights of the start.
      study: gives ``training.optimizer`` and ``training.proximal_mu``.
      correction: by name, from numbers that are public or DP already; of a parameter that is not trained it
        is not used.

    Raises:
      ValueError: the correction lacks a trained parameter, or one has another shape.

    Source: Li et al. 2020 (FedProx), equation 2; Karimireddy et al. 2020 (SCAFFOLD), equation 3.
    """
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    settings = study.training.optimizer
    optimizer = _OPTIMIZERS[settings.kind](list(trained.values()), settings)
    mu = study.training.proximal_mu
    parts = [
        (value, value.detach().clone(), _pull(name, value, correction)) for name, value in trained.items()
    ]

    def add(_optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        for value, start, pull in parts:
            assert value.grad is not None  # every parameter takes part in every loss
            value.grad.add_(value.detach() - start, alpha=mu).add_(pull)

    if mu > 0.0 or correction is not None:
        optimizer.register_step_pre_hook(add)
    return optimizer


def _pull(name: str, value: Tensor, correction: Weights | None) -> Tensor:
    if correction is None:
        return torch.zeros(())
    if name not in correction or correction[name].shape != tuple(value.shape):
        raise ValueError("the correction does not fit the network")
    return torch.from_numpy(np.array(correction[name], dtype=np.float32))  # a copy: it may be read-only


def _sgd(parameters: list[nn.Parameter], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _adam(parameters: list[nn.Parameter], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


def _adamw(parameters: list[nn.Parameter], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


_OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], Optimizer], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}
