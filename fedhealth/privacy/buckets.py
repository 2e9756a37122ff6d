"""Sizes in buckets, so that what a site declares does not tell an exact count."""

import math


def bucket(count: int) -> int:
    """The largest of 1, 2, 4, 5, 8, 11, 16, 22, 32, 45, ... = floor(2^(k/2)) that is at most ``count``.

    Rounded **down**: the sampling probability batch / bucket is then never below batch / patients, so
    neither the noise calibrated from it nor the epsilon reported understates. Idempotent.

    Args:
      count: patients, >= 1.

    Raises:
      ValueError: fewer than one.
    """
    if count < 1:
        raise ValueError("a bucket needs at least one patient")
    power = 2 * (count.bit_length() - 1)
    return math.isqrt(1 << power + 1) if math.isqrt(1 << power + 1) <= count else 1 << power // 2
