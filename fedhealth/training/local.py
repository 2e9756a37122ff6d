"""One round of training at one site: from the global weights to an update."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedhealth.errors import DataError, DivergedError
from fedhealth.features.rows import Rows
from fedhealth.models.networks import build_network, load_weights, network_inputs, read_weights
from fedhealth.models.personal import frozen_names
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights, subtract
from fedhealth.privacy.noise import NoiseSource
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of
from fedhealth.training.optimizer import local_optimizer
from fedhealth.training.plain import plain_steps
from fedhealth.training.plan import LocalPlan
from fedhealth.training.private import private_steps
from fedhealth.training.threads import one_thread


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """What a site's round gave.

    Attributes:
      delta: change of the weights. Under DP it is the only part that may leave the site.
      n_examples: training rows, exact.
      steps: gradient steps taken.
      mean_loss: over the rows used, exact; comes from patients.
    """

    delta: Weights
    n_examples: int
    steps: int
    mean_loss: float


def train_local(
    weights: Weights,
    statistics: Statistics,
    rows: Rows,
    study: Study,
    *,
    plan: LocalPlan,
    noise_key: bytes | None,
    seed: int,
    correction: Weights | None = None,
) -> LocalUpdate:
    """Train from given weights on one site's training fold: a round, or a fine-tuning (`plan_tuning`).

    Guarantees: with ``plan.noise_multiplier`` set, ``delta`` is the output of ``plan.steps`` steps of
    patient-level DP-SGD, and every draw (patients, rows, noise, dropout) comes from ``noise_key``: the
    same key gives the same bytes. Without it, everything comes from ``seed``. One thread, so sums have one
    order. The optimiser's own state (momentum, Adam's moments) begins anew in every call. The delta of a frozen
    parameter (``training.initial.freeze``) is exactly zero.

    Args:
      weights: the model to start from, with the site's personal parameters in it.
      statistics: the consortium's.
      rows: the training fold only.
      study: the study.
      plan: of this site, from `plan_local`.
      noise_key: 32 secret bytes of this round (`fedhealth.privacy.noise.derive_key`); None without DP.
      seed: from `local_seed`; unused under DP.
      correction: by name, added to the gradient of every step, under DP after its noise (SCAFFOLD's c - c_i). It
        must be public or differentially private already.

    Raises:
      DataError: the fold is empty.
      DivergedError: training diverged.
      ConfigError: ``freeze`` names no parameter, or all.
      ValueError: a noisy plan without key, or the reverse; a correction that does not fit.
    """
    if (plan.noise_multiplier is None) != (noise_key is None):
        raise ValueError("a noise multiplier and a noise key belong together")
    if len(rows.labels) == 0:
        raise DataError("the training fold has no rows", "check the cohort of the study at this site")
    source = None if noise_key is None else NoiseSource(noise_key)
    dropout_seed = seed if source is None else source.fork("dropout").seed()
    inputs = network_inputs(rows.inputs(), statistics, study)
    network = build_network(study, inputs=inputs[0].shape[1], seed=dropout_seed)
    load_weights(network, weights)
    frozen = frozen_names(weights, study)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    optimizer = local_optimizer(network, study, correction=correction)
    network.train()
    with one_thread():
        steps, loss = _run(
            network, inputs, rows, study, plan=plan, optimizer=optimizer, source=source, seed=seed
        )
    delta = subtract(read_weights(network), weights)
    if not all(np.isfinite(array).all() for array in delta.values()):
        raise DivergedError("training diverged at this site", "lower training.optimizer.lr")
    return LocalUpdate(delta=delta, n_examples=len(rows.labels), steps=steps, mean_loss=loss)


def _run(
    network: nn.Module,
    inputs: tuple[NDArray[np.float32], ...],
    rows: Rows,
    study: Study,
    *,
    plan: LocalPlan,
    optimizer: torch.optim.Optimizer,
    source: NoiseSource | None,
    seed: int,
) -> tuple[int, float]:
    """Train in place; give the steps taken and the mean loss."""
    labels, targets = rows.labels, targets_of(study)
    if source is None:
        batch_size = study.training.batch_size
        a_pass = math.ceil(len(labels) / batch_size)
        steps = plan.steps if plan.passes is None else plan.passes * a_pass
        loss = plain_steps(
            network,
            inputs,
            labels,
            targets,
            steps=steps,
            batch_size=batch_size,
            optimizer=optimizer,
            seed=seed,
        )
        return steps, loss
    clip = study.privacy.l2_clip_norm
    loss = private_steps(
        network,
        inputs,
        labels,
        targets,
        rows.person,
        plan=plan,
        optimizer=optimizer,
        l2_clip_norm=clip,
        source=source,
    )
    return plan.steps, loss
