"""The server's step from a round's mean update to the next model. Coordinator and sites run the same code."""

import numpy as np

from fedhealth.errors import ConfigError
from fedhealth.models.weights import Weights
from fedhealth.study.spec import Study


def server_step(weights: Weights, mean_delta: Weights, study: Study) -> Weights:
    """Move the model by the server's learning rate times the mean update.

    Guarantees: float32 arithmetic in one fixed order, so whoever replays the round gets the same bytes; with
    ``lr`` 1.0 the result is federated averaging.

    Raises:
      ConfigError: the study asks for a server optimiser that is not built.
      ValueError: the update has other parameters than the model.

    Source: Reddi et al. 2021, Algorithm 1 (ServerOpt = SGD).
    """
    server = study.training.server
    if server.kind != "sgd":
        raise ConfigError(
            f"the server optimiser {server.kind} is not built", "set training.server.kind to sgd"
        )
    if {name: array.shape for name, array in weights.items()} != {
        name: array.shape for name, array in mean_delta.items()
    }:
        raise ValueError("the update has other parameters than the model")
    rate = np.float32(server.lr)
    return {name: weights[name] + rate * mean_delta[name] for name in sorted(weights)}
