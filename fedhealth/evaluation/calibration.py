"""Logistic recalibration of binned scores."""

import numpy as np
from numpy.typing import NDArray

_STEPS = 50
_STEEPEST = 50.0
"""A slope beyond it means that the bins separate the classes: the likelihood has no maximum."""

FloatArray = NDArray[np.float64]


def recalibrate(
    logits: FloatArray, negatives: FloatArray, positives: FloatArray
) -> tuple[float, float] | None:
    """Fit ``logit P(label) = intercept + slope * logit(score)`` by maximum likelihood.

    A calibrated model has intercept 0 and slope 1; a slope below 1 means scores that are too extreme.

    Args:
      logits: log-odds of each bin, (bins,).
      negatives, positives: counts per bin.

    Returns:
      Intercept and slope; None where there is no maximum: all rows in one bin, or classes that a bin separates.

    Source: Cox 1958; Newton's method with halved steps.
    """
    design = np.column_stack([np.ones_like(logits), logits])
    total = negatives + positives
    fitted = np.zeros(2)
    for _ in range(_STEPS):
        rate = _logistic(design @ fitted)
        gradient = design.T @ (positives - total * rate)
        curvature = (design.T * (total * rate * (1.0 - rate))) @ design
        if np.linalg.det(curvature) <= 1e-12 * max(float(curvature.trace()), 1e-300) ** 2:
            return None
        step = np.linalg.solve(curvature, gradient)
        here = _log_likelihood(design @ fitted, negatives, positives)
        while _log_likelihood(design @ (fitted + step), negatives, positives) < here - 1e-9 * abs(here):
            step = step / 2.0
        fitted = fitted + step
        if abs(fitted[1]) > _STEEPEST:
            return None
        if np.abs(step).max() < 1e-10:
            return float(fitted[0]), float(fitted[1])
    return None


def _logistic(values: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def _log_likelihood(values: FloatArray, negatives: FloatArray, positives: FloatArray) -> float:
    return -float((negatives * np.logaddexp(0.0, values) + positives * np.logaddexp(0.0, -values)).sum())
