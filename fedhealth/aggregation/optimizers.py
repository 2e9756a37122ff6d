"""The server's step from a round's mean update to the next model. Coordinator and sites run the same code.

What a server optimiser remembers follows from the mean updates that everybody has seen, so nothing of it travels.

    symbol  name                     symbol  name
    x       weights                  eta     server.lr
    D       mean_delta               tau     server.tau
    m       momentum                 beta_1  server.beta_1
    v       variance                 beta_2  server.beta_2
    c       control                  K, h    local.steps, optimizer.lr
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.weights import Weights
from fedhealth.study.language import Server
from fedhealth.study.spec import Study

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ServerState:
    """A model and what the server remembers of the updates so far; a memory that is not kept is empty.

    Attributes:
      weights: the model, or of a study with personal parameters its shared part.
      momentum: mean of the updates (m), of adaptive optimisers.
      variance: mean of their squares (v), likewise.
      control: SCAFFOLD's control variate (c): the mean gradient that the sites follow.
    """

    weights: Weights
    momentum: Weights = field(default_factory=dict)
    variance: Weights = field(default_factory=dict)
    control: Weights = field(default_factory=dict)


def first_state(weights: Weights, study: Study) -> ServerState:
    """The state before the first update: no momentum, variance tau^2, no control."""
    if study.training.server.kind != "sgd":
        floor = np.float32(study.training.server.tau) ** 2
        variance = {name: np.full_like(array, floor) for name, array in weights.items()}
        return ServerState(weights, momentum=_zeros(weights), variance=variance)
    if study.training.algorithm == "scaffold":
        return ServerState(weights, control=_zeros(weights))
    return ServerState(weights)


def server_step(state: ServerState, mean_delta: Weights, study: Study, *, share: float = 1.0) -> ServerState:
    """The next model from the mean update.

    Guarantees: float32 arithmetic in one fixed order, so whoever replays the round gets the same bytes; with
    ``server: {kind: sgd, lr: 1.0}`` the model moves by the mean update: federated averaging.

    Args:
      state: from `first_state` or the step before.
      mean_delta: the weighted mean change of the sites in the sum.
      study: names optimiser and algorithm.
      share: the sites in the sum as a part of all; only SCAFFOLD looks at it.

    Raises:
      ValueError: the update has other parameters than the model.

    Source: Reddi et al. 2021, Algorithm 2 (adam, yogi, adagrad); Karimireddy et al. 2020, Algorithm 1, option II.
    """
    if {name: array.shape for name, array in state.weights.items()} != {
        name: array.shape for name, array in mean_delta.items()
    }:
        raise ValueError("the update has other parameters than the model")
    server = study.training.server
    if server.kind == "sgd":
        rate = np.float32(server.lr)
        moved = {
            name: _float32(state.weights[name] + rate * mean_delta[name]) for name in sorted(state.weights)
        }
        return ServerState(moved, control=_next_control(state, mean_delta, study, share))
    return _adaptive_step(state, mean_delta, server)


def site_control(control: Weights, own: Weights, delta: Weights, study: Study) -> Weights:
    """A site's control variate after a round in whose sum it was: own - control - delta / (K h).

    Source: Karimireddy et al. 2020, equation 4, option II.
    """
    scale = _per_step(study)
    return {name: _float32(own[name] - control[name] - delta[name] * scale) for name in sorted(own)}


def _next_control(state: ServerState, mean_delta: Weights, study: Study, share: float) -> Weights:
    """c + share * mean(change of the sites' controls), which is -c - D / (K h): it need not be sent."""
    if not state.control:
        return {}
    scale, part = _per_step(study), np.float32(share)
    return {
        name: _float32(c - part * (c + mean_delta[name] * scale)) for name, c in sorted(state.control.items())
    }


def _per_step(study: Study) -> np.float32:
    """1 / (K h); the study language lets SCAFFOLD through with a number of local steps alone."""
    return np.float32(1.0 / ((study.training.local.steps or 1) * study.training.optimizer.lr))


def _adaptive_step(state: ServerState, mean_delta: Weights, server: Server) -> ServerState:
    rate, tau = np.float32(server.lr), np.float32(server.tau)
    keep = np.float32(server.beta_1)
    weights, momentum, variance = {}, {}, {}
    for name in sorted(state.weights):
        delta = mean_delta[name]
        momentum[name] = _float32(keep * state.momentum[name] + (np.float32(1) - keep) * delta)
        variance[name] = _VARIANCES[server.kind](
            state.variance[name], delta * delta, np.float32(server.beta_2)
        )
        step = momentum[name] / (np.sqrt(variance[name]) + tau)
        weights[name] = _float32(state.weights[name] + rate * step)
    return ServerState(weights, momentum=momentum, variance=variance)


def _adam(variance: Array, square: Array, beta: np.float32) -> Array:
    return _float32(beta * variance + (np.float32(1) - beta) * square)


def _yogi(variance: Array, square: Array, beta: np.float32) -> Array:
    return _float32(variance - (np.float32(1) - beta) * square * np.sign(variance - square))


def _adagrad(variance: Array, square: Array, beta: np.float32) -> Array:
    return _float32(variance + square)


_VARIANCES: dict[str, Callable[[Array, Array, np.float32], Array]] = {
    "adam": _adam,
    "yogi": _yogi,
    "adagrad": _adagrad,
}


def _zeros(weights: Weights) -> Weights:
    return {name: np.zeros_like(array) for name, array in weights.items()}


def _float32(values: NDArray[np.floating]) -> Array:
    return values.astype(np.float32, copy=False)
