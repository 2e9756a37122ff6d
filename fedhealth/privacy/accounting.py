"""From epsilon to noise and back, for DP-SGD: the Poisson-subsampled Gaussian mechanism, composed.

The mechanism is described as an event (`dp_sgd_event`) and dp-accounting accounts for it. Calibration uses
RDP, which is valid also when later parameters depend on earlier outputs; the report may use the tighter
PLD, as every parameter was fixed by a signed plan. Both take a while, so results are cached per process.

Unit: the patient; neighbouring: one patient added or removed.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq

TOLERANCE = 1e-3
"""Relative width to which the noise multiplier is found; rounding is always up."""
_MAX_NOISE = 1e6
_PLD_INTERVAL = 1e-3
_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
"""Integer orders only: the subsampled Gaussian has a finite closed sum there, a slow series elsewhere."""


def dp_sgd_event(
    *, noise_multiplier: float, sampling_probability: float, steps: int
) -> dp_accounting.DpEvent:
    """``steps`` Gaussian sums over Poisson samples, as data."""
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(sampling_probability, gaussian)
    return dp_accounting.SelfComposedDpEvent(sampled, steps)


@lru_cache(maxsize=256)
def noise_multiplier_for(*, epsilon: float, delta: float, sampling_probability: float, steps: int) -> float:
    """The least noise with which ``steps`` DP-SGD steps spend at most ``epsilon`` at ``delta``.

    Guarantees: `epsilon_spent` of the result is at most ``epsilon`` (RDP), and above 0.99 ``epsilon``.

    Args:
      epsilon: > 0.
      delta: in (0, 1).
      sampling_probability: of each patient in each step, in (0, 1].
      steps: over the entire study, > 0.

    Returns:
      The standard deviation of the noise in units of the clip norm.

    Raises:
      ValueError: an argument out of range, or no multiplier below 10^6 is enough.

    Source: Abadi et al. 2016; Mironov, Talwar and Zhang 2019.
    """
    _check(delta=delta, sampling_probability=sampling_probability, steps=steps)
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError("epsilon must be positive and finite")

    def spent(noise: float) -> float:
        return epsilon_spent(
            noise_multiplier=noise, sampling_probability=sampling_probability, steps=steps, delta=delta
        )

    low, high = _bracket(spent, epsilon)
    root = brentq(lambda log: math.log(spent(math.exp(log)) / epsilon), low, high, xtol=TOLERANCE / 4)
    noise = math.exp(root)
    while spent(noise) > epsilon:
        noise *= 1.0 + TOLERANCE / 2
    return noise


def _bracket(spent: Callable[[float], float], epsilon: float) -> tuple[float, float]:
    """Logarithms of two multipliers, a factor 2 apart, between which the budget is reached."""
    high = 1.0
    while spent(high) > epsilon:
        high *= 2.0
        if high > _MAX_NOISE:
            raise ValueError("no noise is enough for this epsilon")
    while spent(high / 2.0) <= epsilon:
        high /= 2.0
    return math.log(high / 2.0), math.log(high)


@lru_cache(maxsize=1024)
def epsilon_spent(
    *,
    noise_multiplier: float,
    sampling_probability: float,
    steps: int,
    delta: float,
    accountant: Literal["rdp", "pld"] = "rdp",
) -> float:
    """Epsilon of ``steps`` DP-SGD steps at ``delta``.

    Guarantees: an upper bound for both accountants; PLD is never reported above RDP.

    Args:
      noise_multiplier: noise in units of the clip norm, > 0.
      sampling_probability: of each patient in each step, in (0, 1].
      steps: composed steps; 0 spends nothing.
      delta: in (0, 1).
      accountant: ``rdp``, or ``pld`` for reports over parameters that were fixed beforehand.

    Raises:
      ValueError: an argument out of range.
    """
    if steps == 0:
        return 0.0
    _check(delta=delta, sampling_probability=sampling_probability, steps=steps)
    if not (noise_multiplier > 0 and math.isfinite(noise_multiplier)):
        raise ValueError("the noise multiplier must be positive and finite")
    event = dp_sgd_event(
        noise_multiplier=noise_multiplier, sampling_probability=sampling_probability, steps=steps
    )
    bound = float(RdpAccountant(_ORDERS).compose(event).get_epsilon(delta))
    if accountant == "rdp":
        return bound
    pld = PLDAccountant(value_discretization_interval=_PLD_INTERVAL).compose(event)
    return min(bound, float(pld.get_epsilon(delta)))


def _check(*, delta: float, sampling_probability: float, steps: int) -> None:
    if not 0.0 < delta < 1.0 or not 0.0 < sampling_probability <= 1.0 or steps < 1:
        raise ValueError("delta and the sampling probability must be in (0, 1), steps at least 1")
