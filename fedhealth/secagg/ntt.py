"""Products in Z_q[X]/(X^4096 + 1), q = q_0 q_1, by number-theoretic transforms made of matrix products.

A polynomial is a float64 array (2, 4096): its coefficients modulo each of the two primes. All of them are integers
below 2^53, so the arithmetic is exact and gives the same bytes on every machine with IEEE 754 doubles.

With n = 64 n_1 + n_2, k = k_1 + 64 k_2 and psi a root of unity of order 8192, the value at psi^(2k + 1) is

    sum_n2 psi^(128 n_2 k_2) * psi^(n_2 (2 k_1 + 1)) * sum_n1 psi^(64 n_1 (2 k_1 + 1)) x[64 n_1 + n_2]

that is, one 64 x 64 matrix from the left, one product entry by entry, one matrix from the right. Balanced residues are
at most 2^23 in size, so a sum of 64 products is at most 2^52. Source: Bailey 1990, the four-step transform; the twist by
psi, which makes the convolution negacyclic, as in Lyubashevsky et al. 2008 (SWIFFT).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIZE = 4096
"""N, coefficients of a polynomial."""
PRIMES = (16760833, 16736257)
"""q_0 and q_1: the largest primes below 2^24 that are 1 modulo 2N."""
MODULUS = PRIMES[0] * PRIMES[1]
"""q, of 47.995 bits."""
_SIDE = 64
_ORDER = 2 * SIZE
_Q = np.array(PRIMES, dtype=np.float64).reshape(2, 1)

Residues = NDArray[np.float64]


class _Matrices(NamedTuple):
    """Of one direction of the transform; each (2, 64, 64), balanced."""

    left: Residues
    twist: Residues
    right: Residues


def transform(polynomial: Residues) -> Residues:
    """The values of a balanced polynomial at the roots of X^4096 + 1, in a fixed order; balanced, (2, 4096)."""
    left, twist, right = _FORWARD
    rows = balanced(left @ polynomial.reshape(2, _SIDE, _SIDE))
    return balanced(balanced(rows * twist) @ right).reshape(2, SIZE)


def product(first: Residues, second: Residues) -> Residues:
    """The polynomial whose `transform` is the product of these two: their negacyclic convolution.

    Args:
      first: values of a polynomial, balanced or not, (2, 4096).
      second: values of a polynomial, balanced, (2, 4096).

    Returns:
      Balanced coefficients, (2, 4096).
    """
    left, twist, right = _BACKWARD
    values = balanced(first * second).reshape(2, _SIDE, _SIDE)
    return balanced(left @ balanced(balanced(values @ right) * twist)).reshape(2, SIZE)


def balanced(values: Residues) -> Residues:
    """Residues of at most q_j / 2 + 1 in size; shape (2, ...) as the argument, which is at most 2^52 in size."""
    rows = values.reshape(2, -1)
    return (rows - np.rint(rows * (1.0 / _Q)) * _Q).reshape(values.shape)


def canonical(values: Residues) -> Residues:
    """Residues in [0, q_j), shape (2, ...) as the argument, which is at most 2^52 in size."""
    rows = balanced(values).reshape(2, -1)
    return (rows + _Q * (rows < 0)).reshape(values.shape)


def _matrices(*, inverse: bool) -> _Matrices:
    rows = np.arange(_SIDE)
    odd = np.outer(2 * rows + 1, rows)  # odd[k_1, n] = n (2 k_1 + 1)
    left = 64 * odd.T if inverse else 64 * odd
    found = []
    for exponents in (left, odd, 128 * np.outer(rows, rows)):
        signed = (-exponents if inverse else exponents) % _ORDER
        found.append(np.stack([_roots(prime)[signed] for prime in PRIMES]).astype(np.float64))
    if inverse:
        found[0] *= np.array([pow(SIZE, -1, prime) for prime in PRIMES]).reshape(2, 1, 1)
    return _Matrices(*map(balanced, found))


def _roots(prime: int) -> NDArray[np.int64]:
    """The powers 0 .. 8191 of a root of unity of order 8192: the one that the smallest base gives."""
    candidates = (pow(base, (prime - 1) // _ORDER, prime) for base in range(2, prime))
    root = next(candidate for candidate in candidates if pow(candidate, SIZE, prime) == prime - 1)
    powers = [1]
    while len(powers) < _ORDER:
        powers.append(powers[-1] * root % prime)
    return np.array(powers, dtype=np.int64)


_FORWARD, _BACKWARD = _matrices(inverse=False), _matrices(inverse=True)
