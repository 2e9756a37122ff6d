"""The study's network, its initial weights, and scoring with given weights.

No network has batch normalisation (it would mix patients, which patient-level privacy forbids). The names of the
parameters, each with ``.weight`` and ``.bias`` behind it:

    linear, mlp   layers.{i}
    multitask     trunk.{i}, heads.{target}.{i}
    lstm          lstm.{i}.gates, dense.{i}

With the algorithm fedbn every network begins with ``norm.scale`` and ``norm.shift``, one number per input each; a
recurrent one has ``series_norm.scale`` and ``series_norm.shift`` as well, one per channel of a step.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedhealth.errors import ConfigError
from fedhealth.models.inputs import RawInputs
from fedhealth.models.layers import InputNorm, linear_layers, output_layers, relu_layers, seeded_dropout
from fedhealth.models.lstm import LstmLayer
from fedhealth.models.preprocess import static_inputs
from fedhealth.models.series import CHANNELS, prepare_series
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights, sorted_weights
from fedhealth.study.columns import SERIES
from fedhealth.study.spec import Study
from fedhealth.study.targets import Target, output_slices, targets_of

_SCORED_AT_ONCE = 512  # rows: a recurrent network of 128 units takes about half a megabyte for each


class Perceptron(nn.Module):
    """ReLU layers with dropout after the first ones; (rows, inputs) -> (rows, outputs)."""

    def __init__(self, sizes: Sequence[int], dropout: Sequence[float], generator: torch.Generator) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        self.layers = linear_layers(sizes)
        self.drops = seeded_dropout(dropout, generator)

    def forward(self, values: Tensor) -> Tensor:
        return output_layers(self.layers, self.norm(values), drops=list(self.drops))


class Multitask(nn.Module):
    """A trunk that all targets share, and a head for each; (rows, inputs) -> (rows, outputs).

    Args:
      sizes: of the trunk, inputs first.
      heads: by target, the sizes behind the trunk, outputs last.
      dropout: behind the first layers of the trunk.
      generator: of the dropout.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        heads: Mapping[str, Sequence[int]],
        dropout: Sequence[float],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        self.trunk = linear_layers(sizes)
        self.drops = seeded_dropout(dropout, generator)
        self.heads = nn.Module()
        for name, behind in heads.items():
            # not add_module: a target may be called as an attribute of every module is
            self.heads._modules[name] = linear_layers([sizes[-1], *behind])

    def forward(self, values: Tensor) -> Tensor:
        shared = relu_layers(self.trunk, self.norm(values), drops=list(self.drops))
        heads = (output_layers(head.children(), shared) for head in self.heads.children())
        return torch.cat(list(heads), dim=1)


class Recurrent(nn.Module):
    """Stacked LSTM layers over the steps, then ReLU layers over the last state beside the static inputs.

    ((rows, inputs), (rows, steps, CHANNELS)) -> (rows, outputs). Steps before a row's first measurement are
    padding: however many there are, the outputs are the same.
    """

    def __init__(
        self,
        inputs: int,
        units: Sequence[int],
        dense: Sequence[int],
        dropout: Sequence[float],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        self.series_norm: nn.Module = nn.Identity()
        self.lstm = nn.ModuleList(LstmLayer(a, b) for a, b in pairwise((CHANNELS, *units)))
        self.dense = linear_layers([units[-1] + inputs, *dense])
        self.drops = seeded_dropout(dropout, generator)

    def forward(self, static: Tensor, series: Tensor) -> Tensor:
        masks = series.detach()[:, :, len(SERIES) : 2 * len(SERIES)]
        active = masks.amax(dim=2, keepdim=True).cummax(dim=1).values
        states = self.series_norm(series)
        for layer in self.lstm:
            states = layer(states, active)
        joined = torch.cat((states[:, -1], self.norm(static)), dim=1)
        return output_layers(self.dense, joined, drops=list(self.drops))


def _perceptron(
    study: Study, inputs: int, targets: tuple[Target, ...], generator: torch.Generator
) -> nn.Module:
    return Perceptron([inputs, *study.model.hidden, _outputs(targets)], study.model.dropout, generator)


def _multitask(
    study: Study, inputs: int, targets: tuple[Target, ...], generator: torch.Generator
) -> nn.Module:
    model = study.model
    heads = {target.name: (*(model.heads or ()), target.outputs) for target in targets}
    return Multitask([inputs, *(model.shared or ())], heads, model.dropout, generator)


def _recurrent(
    study: Study, inputs: int, targets: tuple[Target, ...], generator: torch.Generator
) -> nn.Module:
    model = study.model
    dense = (*(model.dense or ()), _outputs(targets))
    return Recurrent(inputs, model.units or (), dense, model.dropout, generator)


def _outputs(targets: tuple[Target, ...]) -> int:
    return sum(target.outputs for target in targets)


_BUILDERS: dict[str, Callable[[Study, int, tuple[Target, ...], torch.Generator], nn.Module]] = {
    "linear": _perceptron,
    "mlp": _perceptron,
    "multitask": _multitask,
    "lstm": _recurrent,
}


def build_network(study: Study, *, inputs: int, seed: int = 0) -> nn.Module:
    """Build the study's network, with dropout masks drawn from ``seed``.

    It takes the arrays of `network_inputs` as tensors and gives (rows, outputs), the targets' outputs side by
    side. Its weights are arbitrary until `load_weights`.

    Args:
      study: the study.
      inputs: the static ones.
      seed: of the dropout.

    Raises:
      ConfigError: the study asks for a kind that is no network.
    """
    kind = study.model.kind
    if kind not in _BUILDERS:
        raise ConfigError(f"the model kind {kind} is no network", f"use {' or '.join(_BUILDERS)}")
    with torch.random.fork_rng(devices=[]):
        network = _BUILDERS[kind](study, inputs, targets_of(study), torch.Generator().manual_seed(seed))
    if study.training.algorithm == "fedbn":
        network.norm = InputNorm(inputs)
        if kind == "lstm":
            network.series_norm = InputNorm(CHANNELS)
    return network


def network_inputs(rows: RawInputs, statistics: Statistics, study: Study) -> tuple[NDArray[np.float32], ...]:
    """What the study's network sees of rows.

    Returns:
      The prepared static inputs, (rows, inputs); with an lstm also the prepared series, (rows, steps, CHANNELS).

    Raises:
      ValueError: shapes do not fit the study.
    """
    static = static_inputs(rows, statistics, study)
    if study.model.kind != "lstm":
        return (static,)
    return static, prepare_series(rows.series, step_h=study.features.series.step_h)


def initial_weights(study: Study, *, inputs: int, seed: int) -> Weights:
    """Draw initial weights.

    He normal for linear layers and zero for biases; all zero for a linear model, whose loss has one minimum and which
    random weights only delay; for an lstm uniform within 1 / sqrt(units), and one for the bias of the gate that keeps
    the cell. Not orthogonal: a factorisation may give other bytes on another processor, and every site checks the
    initial model by its digest. An input norm starts as the identity.

    Guarantees: a function of the study's layer sizes, ``inputs`` and ``seed`` only.

    Source: He et al. 2015, equation 10; Jozefowicz et al. 2015, section 5.
    """
    generator = torch.Generator().manual_seed(seed)
    network = build_network(study, inputs=inputs)
    named = {}
    for name, parameter in sorted(network.named_parameters()):
        values = torch.full(parameter.shape, 1.0 if name.endswith(".scale") else 0.0)
        if name.endswith(".gates.weight"):
            bound = (4 / parameter.shape[0]) ** 0.5
            values.uniform_(-bound, bound, generator=generator)
        elif name.endswith(".gates.bias"):
            values.chunk(4)[1].fill_(1.0)
        elif parameter.ndim == 2 and study.model.kind != "linear":
            values.normal_(0.0, (2.0 / parameter.shape[1]) ** 0.5, generator=generator)
        named[name] = values.numpy()
    return sorted_weights(named)


def load_weights(network: nn.Module, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy named weights into a network.

    Raises:
      ValueError: names or shapes differ.
    """
    named = dict(network.named_parameters())
    if {name: tuple(value.shape) for name, value in named.items()} != {
        name: array.shape for name, array in weights.items()
    }:
        raise ValueError("the weights do not fit the network")
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weights[name])))


def read_weights(network: nn.Module) -> Weights:
    """Copy a network's parameters out, sorted by name."""
    return sorted_weights({name: value.detach().numpy() for name, value in network.named_parameters()})


def score_network(
    weights: Mapping[str, NDArray[np.float32]], statistics: Statistics, study: Study, rows: RawInputs
) -> NDArray[np.float32]:
    """Score raw rows: imputation, clipping and standardisation inside, dropout off.

    Args:
      weights: of the study's network.
      statistics: the consortium's.
      study: gives the columns, their public bounds, and the targets.
      rows: in raw units.

    Returns:
      float32 (rows, outputs): a probability for yes or no, one per class, the number in its unit, or per interval
      the probability that the event comes in it if not before.

    Raises:
      ValueError: shapes do not fit.
    """
    return score_inputs(weights, study, network_inputs(rows, statistics, study))


def score_inputs(
    weights: Mapping[str, NDArray[np.float32]], study: Study, arrays: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """`score_network` of rows that `network_inputs` has prepared."""
    network = build_network(study, inputs=arrays[0].shape[1])
    load_weights(network, weights)
    network.eval()
    batches = zip(*(torch.split(torch.from_numpy(each), _SCORED_AT_ONCE) for each in arrays), strict=True)
    with torch.no_grad():
        outputs: NDArray[np.float32] = torch.cat([network(*batch) for batch in batches]).numpy()
    targets = targets_of(study)
    parts = [
        _ACTIVATIONS[t.kind](outputs[:, place], t)
        for t, place in zip(targets, output_slices(targets), strict=True)
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _number(outputs: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
    return np.asarray(np.clip(outputs * target.spread + target.center, target.low, target.high))


def _softmax(outputs: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
    raised = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function without overflow, float32."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)), dtype=np.float32)


_ACTIVATIONS: dict[str, Callable[[NDArray[np.float32], Target], NDArray[np.float32]]] = {
    "binary": lambda outputs, target: sigmoid(outputs),
    "classes": _softmax,
    "number": _number,
    "hazard": lambda outputs, target: sigmoid(outputs),
}
