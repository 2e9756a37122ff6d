"""Arithmetic whose result does not depend on the processor, so that everybody computes the same model bytes.

LAPACK and sums of arrays promise no order of operations, and the exponential of a C library no last bit.
"""

import math
from decimal import Context, Decimal

import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import ProtocolError

Floats = NDArray[np.float64]
_DIGITS = Context(prec=30)


def solve_positive(matrix: Floats, right: Floats) -> Floats:
    """Solve ``matrix @ x = right`` by Cholesky's factorisation.

    Guarantees: + - * / and square roots in one order, each correctly rounded.

    Args:
      matrix: symmetric and positive definite, (n, n).
      right: (n,).

    Returns:
      x, (n,).

    Raises:
      ProtocolError: the matrix is not positive definite: it is no sum of what sites send.
    """
    rest, lower, x = matrix.copy(), np.zeros_like(matrix), right.copy()
    for k in range(len(rest)):
        if not rest[k, k] > 0 or not math.isfinite(rest[k, k]):
            raise ProtocolError("an opened sum is no curvature", "find out which site sent another vector")
        lower[k:, k] = rest[k:, k] / math.sqrt(rest[k, k])
        rest[k + 1 :, k + 1 :] -= np.multiply.outer(lower[k + 1 :, k], lower[k + 1 :, k])
    for k in range(len(x)):
        x[k] /= lower[k, k]
        x[k + 1 :] -= lower[k + 1 :, k] * x[k]
    for k in reversed(range(len(x))):
        x[k] /= lower[k, k]
        x[:k] -= lower[k, :k] * x[k]
    return x


def exact_dot(left: Floats, right: Floats) -> float:
    """The sum of the products, rounded once."""
    return math.fsum((left * right).tolist())


def exact_exp(value: float) -> float:
    """The exponential, by decimal arithmetic."""
    return float(_DIGITS.exp(Decimal(value)))


def exact_log(value: float) -> float:
    """The natural logarithm of a positive number, by decimal arithmetic."""
    return float(_DIGITS.ln(Decimal(value)))
