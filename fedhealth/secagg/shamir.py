"""Shamir's secret sharing over the prime field of 2^521 - 1.

Any t shares give the secret back; t - 1 say nothing about it. Source: Shamir 1979.
"""

from collections.abc import Mapping
from functools import lru_cache

from fedhealth.secagg.prg import derive

PRIME = 2**521 - 1
SHARE_BYTES = 66
_WIDE_BYTES = 96
"""Coefficients are reduced from 768 bits, so their distribution is uniform to 2^-247."""


def split(secret: bytes, *, threshold: int, holders: int, polynomial_seed: bytes) -> tuple[bytes, ...]:
    """Split a secret into one share for each of ``holders``, at the points 1 .. holders.

    Guarantees: the same secret and polynomial seed give the same shares, so a restarted site repeats itself.

    Args:
      secret: at most 64 bytes.
      threshold: shares needed to rebuild, 1 <= threshold <= holders.
      holders: number of shares.
      polynomial_seed: 32 secret bytes from which the coefficients are derived.

    Raises:
      ValueError: an argument out of range.
    """
    if not 1 <= threshold <= holders or len(secret) > 64:
        raise ValueError("needs 1 <= threshold <= holders and a secret of at most 64 bytes")
    wide = derive(polynomial_seed, "polynomial", size=32)
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [
        int.from_bytes(derive(wide, "coefficient", str(power), size=_WIDE_BYTES), "big") % PRIME
        for power in range(1, threshold)
    ]
    return tuple(
        _evaluate(coefficients, point).to_bytes(SHARE_BYTES, "big") for point in range(1, holders + 1)
    )


def rebuild(shares: Mapping[int, bytes], *, size: int) -> bytes | None:
    """Rebuild a secret of ``size`` bytes from shares by their points; None when they do not give one.

    The caller passes at least the threshold and compares the result with a commitment.
    """
    points = tuple(sorted(shares))
    total = 0
    for point, weight in zip(points, _weights(points), strict=True):
        total = (total + int.from_bytes(shares[point], "big") * weight) % PRIME
    return total.to_bytes(SHARE_BYTES, "big")[-size:] if total < 1 << 8 * size else None


@lru_cache(maxsize=64)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights at 0. Kept, since all secrets of a sum are rebuilt from the same few sets of points."""
    weights = []
    for point in points:
        numerator = denominator = 1
        for other in points:
            if other != point:
                numerator = numerator * -other % PRIME
                denominator = denominator * (point - other) % PRIME
        weights.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(weights)


def _evaluate(coefficients: list[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value
