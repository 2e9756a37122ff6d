"""An orthonormal rotation of any length: random signs, then the Hadamard transform of blocks of 1024."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST_BLOCK = 1024


def signs_needed(length: int) -> int:
    """How many signs `rotate` takes for a vector of so many entries (at least 1)."""
    return length + _block(length)


def rotate(values: Floats, signs: Floats) -> Floats:
    """Spread every entry over a block.

    Guarantees: linear, orthonormal, undone by `unrotate`; elementwise IEEE arithmetic in one fixed order, so that every
    platform gives the same bytes. The last block overlaps the one before and is turned a second time, with signs of its
    own: no entry is added, whatever the length.

    Args:
      values: shape (n,), n >= 1.
      signs: 1.0 or -1.0, shape (`signs_needed`,).

    Returns:
      A new vector, shape (n,).
    """
    length, block = len(values), _block(len(values))
    rotated = values * signs[:length]
    _transform(rotated[: length - length % block], block)
    rotated[-block:] *= signs[length:]
    _transform(rotated[-block:], block)
    return rotated


def unrotate(rotated: Floats, signs: Floats) -> Floats:
    """The inverse of `rotate` under the same signs."""
    length, block = len(rotated), _block(len(rotated))
    values = rotated.copy()
    _transform(values[-block:], block)
    values[-block:] *= signs[length:]
    _transform(values[: length - length % block], block)
    values *= signs[:length]
    return values


def _block(length: int) -> int:
    """The largest power of two that fits, at most 1024."""
    return min(1 << (length.bit_length() - 1), LARGEST_BLOCK)


def _transform(values: Floats, block: int) -> None:
    """The orthonormal Hadamard transform in place; entries a stride of ``len(values) / block`` apart are one block."""
    stride = len(values) // block
    for half in (1 << stage for stage in range(block.bit_length() - 1)):
        pairs = values.reshape(-1, 2, half * stride)
        difference = pairs[:, 0] - pairs[:, 1]
        pairs[:, 0] += pairs[:, 1]
        pairs[:, 1] = difference
    values *= 1.0 / math.sqrt(block)
