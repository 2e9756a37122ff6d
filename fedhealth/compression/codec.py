"""The codec of one sum: which entries are sent, how they are turned, and how they are rounded."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedhealth.compression.rotation import Floats, rotate, signs_needed, unrotate
from fedhealth.privacy.noise import NoiseSource
from fedhealth.secagg.plan import RingBits

LEAST_BITS, MOST_BITS = 4, 16
"""Rings of fewer bits wrap too often to train by; larger ones save nothing over exact sums."""

_TIGHT = {4: 3.3, 5: 3.7}


def half_range(ring_bits: int) -> float:
    """alpha: how many standard deviations of the sum fit into half of the ring.

    A wider range wraps more rarely and rounds more coarsely. 3.3, 3.7, 4 and 4.5 for 4, 5, 6 and 8 bits; above 5 bits it is
    the line through the last two, since there a bit more is spent on safety.

    Raises:
      ValueError: not a ring of 4 to 16 bits.
    """
    if not LEAST_BITS <= ring_bits <= MOST_BITS:
        raise ValueError(f"a codec needs a ring of {LEAST_BITS} to {MOST_BITS} bits")
    return _TIGHT.get(ring_bits, 2.5 + ring_bits / 4)


def step_for(sum_sd: float, *, ring_bits: int) -> float:
    """s: the public step with which a sum of this standard deviation fills the ring: 2 alpha sd / 2^m.

    Args:
      sum_sd: standard deviation of an entry of the sum (not of the mean), from what is public already; > 0.
      ring_bits: m.

    Raises:
      ValueError: a standard deviation that is not positive and finite, or a ring that is not 4 to 16 bits.
    """
    if not (sum_sd > 0.0 and math.isfinite(sum_sd)):
        raise ValueError("a step needs a positive and finite standard deviation")
    return 2.0 * half_range(ring_bits) * sum_sd / 2.0**ring_bits


def owed_growth(sent_share: float, rounds: int) -> float:
    """By how much the entries of a sum grow over those of the round before because sites send what they owed, too.

    An entry that is sent with probability p in each round carries the updates of T rounds; were these all alike, its size
    would grow as the root of E[T^2], which settles after some 1/p rounds.

    Args:
      sent_share: p, 0 < p <= 1.
      rounds: in which a share was sent so far, this one included; the one before them sent all.

    Returns:
      The ratio of two neighbouring roots: 1 in the first round, and where all is sent.
    """
    unsent, mean, square, before = 1.0 - sent_share, 1.0, 1.0, 1.0
    for _ in range(rounds - 1):  # T is 1 after an entry was sent, else 1 more than in the round before
        before = square
        square = 1.0 + unsent * (2.0 * mean + square)
        mean = 1.0 + unsent * mean
    return math.sqrt(square / before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """A linear codec that every party of a sum shares.

    Guarantees, for encodings under one codec and sites' secret rounding: the sum of encodings modulo 2^m is that of the
    sites' rounded values, so decoding it gives their sum exactly while every entry of that sum is within half of the ring;
    each entry's rounding is unbiased and off by less than one step. An entry beyond the ring comes back 2^m steps off, and
    nothing tells: that is why the step follows the standard deviation of the sum.

    Args:
      length: entries of a site's values, d.
      sent: how many of them are sent, 1 <= sent <= length.
      ring_bits: m, 4 to 16.
      step: s, from `step_for`.
      seed: 32 public bytes, of this sum alone.

    Raises:
      ValueError: an argument out of range.
    """

    length: int
    sent: int
    ring_bits: RingBits
    step: float
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        half_range(self.ring_bits)
        if not 1 <= self.sent <= self.length or not (self.step > 0.0 and math.isfinite(self.step)):
            raise ValueError("a codec needs 1 <= sent <= length and a positive step")

    def coordinates(self) -> NDArray[np.int64]:
        """The entries that are sent, in the order in which they are: a random choice, shape (sent,).

        Guarantees: the same on every platform (a stable sort of words of AES-256-CTR under the seed).
        """
        words = NoiseSource(self.seed).fork("order").words(self.length)
        order: NDArray[np.int64] = np.argsort(words, kind="stable")[: self.sent]
        return order

    def encode(self, values: Floats, *, rounding: NoiseSource) -> NDArray[np.int64]:
        """One site's values as residues.

        Args:
          values: finite, shape (length,).
          rounding: a secret source, for this call alone; the same source gives the same residues.

        Returns:
          int64 in [0, 2^m), shape (sent,).

        Raises:
          ValueError: a wrong shape, or a value that is not finite.
        """
        if values.shape != (self.length,) or not np.isfinite(values).all():
            raise ValueError("the values must be finite and of the codec's length")
        turned = rotate(values[self.coordinates()], self._signs())
        turned /= self.step
        turned += rounding.uniforms(self.sent)
        return np.mod(np.floor(turned, out=turned), 2.0**self.ring_bits).astype(np.int64)

    def decode(self, total: NDArray[np.int64]) -> Floats:
        """The sum of the sites' values from the sum of their residues, taken modulo 2^m or not.

        Returns:
          Shape (length,); entries that were not sent are 0.

        Raises:
          ValueError: a wrong shape.
        """
        if total.shape != (self.sent,):
            raise ValueError("the sum must have one entry for each that is sent")
        half = 1 << (self.ring_bits - 1)
        centred = np.mod(total + half, 2 * half) - half
        values: Floats = np.zeros(self.length)
        values[self.coordinates()] = unrotate(centred * self.step, self._signs())
        return values

    def _signs(self) -> Floats:
        """D: 1.0 or -1.0, one for each bit of a stream of its own."""
        count = signs_needed(self.sent)
        words = NoiseSource(self.seed).fork("signs").words(-(-count // 64))
        bits = np.unpackbits(words.view(np.uint8), count=count)
        return 1.0 - 2.0 * bits.astype(np.float64)
