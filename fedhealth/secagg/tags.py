"""Tags of exact sums: every site can tell the sum of the sites' vectors from anything else, the coordinator cannot make one.

    p = 2^61 - 1        r_k, z_i  words below p from AES-256-CTR under HKDF(tag key, H(plan), use), known to the sites alone
    tag_i = sum_k r_k q_ik + z_i mod p                   travels masked modulo p
    sum_i tag_i = sum_k r_k (sum_i q_ik) + sum_i z_i     modulo p over the survivors, if and only if (to 2^-61) the sum is right

What opens is the sum modulo p and nothing else: it follows from the opened vector, the key and the list of survivors, so it
tells nobody anything of how the sum came about. The z_i hide the products, so that nobody without the key can make the tag of
another sum from those of many. A site with a wrong mask, a vector that was changed, and a coordinator that opened another
sum are found. It is not found who it was; and a site that colludes knows the key: against that stands the replay by more
sites than may collude.

Source: Wegman and Carter 1981 (a universal hash under a one-time pad).
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.prg import TAG_PRIME, derive

_LOW_BITS, _PIECE_BITS = 31, 16
_LOW, _PIECE = (1 << _LOW_BITS) - 1, (1 << _PIECE_BITS) - 1
_CHUNK = 1 << 14
"""Entries at a time: 2^16 products of 31 and 16 bits would still add up to less than 2^63; so many stay in the cache."""


def tag_of(vector: NDArray[np.int64], *, key: bytes, plan: SumPlan, site: str) -> int:
    """One site's tag, below `TAG_PRIME`.

    Args:
      vector: int64 of the plan's length.
      key: the sites' tag key, 32 bytes.
      plan: of the sum.
      site: whose vector it is.

    Raises:
      ValueError: another type or length.
    """
    if vector.dtype != np.int64 or vector.shape != (plan.length,):
        raise ValueError("the vector must be int64 of the plan's length")
    return (_product(vector, key, plan) + _pad(key, plan, site)) % TAG_PRIME


def is_tagged(
    vector: NDArray[np.int64], tag: int | None, *, key: bytes, plan: SumPlan, survivors: tuple[str, ...]
) -> bool:
    """Whether the summed tag is that of the summed vector, over these survivors."""
    pads = sum(_pad(key, plan, site) for site in survivors)
    return tag is not None and tag == (_product(vector, key, plan) + pads) % TAG_PRIME


def _product(vector: NDArray[np.int64], key: bytes, plan: SumPlan) -> int:
    """sum_k r_k q_k mod p."""
    cipher = Cipher(algorithms.AES(derive(key, "tag", plan.digest)), modes.CTR(bytes(16))).encryptor()
    total, zeros = 0, memoryview(bytes(8 * _CHUNK))
    for start in range(0, len(vector), _CHUNK):
        part = vector[start : start + _CHUNK]
        words = np.frombuffer(cipher.update(zeros[: part.nbytes]), dtype="<i8") & TAG_PRIME
        total += _dot(words, part, pieces=plan.ring_bits // _PIECE_BITS)
    return total % TAG_PRIME


def _dot(words: NDArray[np.int64], values: NDArray[np.int64], *, pieces: int) -> int:
    """sum_k words_k values_k exactly, for words below 2^61 and values of so many pieces, the last of which has the sign."""
    halves = (words & _LOW, words >> _LOW_BITS)
    total, rest = 0, values
    for number in range(pieces):
        piece = rest if number == pieces - 1 else rest & _PIECE
        low, high = (int(np.dot(half, piece)) for half in halves)
        total += (low + (high << _LOW_BITS)) << _PIECE_BITS * number
        rest = rest >> _PIECE_BITS
    return total


def _pad(key: bytes, plan: SumPlan, site: str) -> int:
    return int.from_bytes(derive(key, "tag pad", plan.digest, site), "big") % TAG_PRIME
