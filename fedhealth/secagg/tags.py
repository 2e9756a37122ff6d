"""Tags of exact sums: every site can tell the sum of the sites' vectors from anything else, the coordinator cannot make one.

    p = 2^61 - 1        r_k = a_{k div B} b_{k mod B} mod p,  B = 4096
    a_i, b_j, z_i       below p, under HKDF(tag key, H(plan), use), known to the sites alone
    tag_i = sum_k r_k q_ik + z_i mod p                   travels masked modulo p
    sum_i tag_i = sum_k r_k (sum_i q_ik) + sum_i z_i     modulo p over the survivors, if and only if the sum is right

"Only if" fails once in 2^59: once in 2^60 for a row of B entries under b (of 2^61 words two are zero modulo p), and again for
the rows' values under a. It needs entries
nearer to zero than 2^60, or two of them could differ by p: `is_tagged` refuses others.

What opens is the sum modulo p and nothing else: it follows from the opened vector, the key and the list of survivors, so it
tells nobody anything of how the sum came about. The z_i hide the products, so that nobody without the key can make the tag of
another sum from those of many. A site with a wrong mask, a vector that was changed, and a coordinator that opened another
sum are found. It is not found who it was; and a site that colludes knows the key: against that stands the replay by more
sites than may collude.

Products are matrix products of doubles. With B random words instead of one for each entry they stay in the cache: digits of
16 bits times pieces of 21 bits add up to less than 2^53, so every one is exact, in any order.

Source: Wegman and Carter 1981 (a universal hash under a one-time pad; a hash of hashes).
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.prg import TAG_PRIME, Ring, derive, ring_dtype

LARGEST = (1 << 60) - 1
"""Entries of a tagged sum are at most so far from zero."""
_ROW = 4096
"""B."""
_ROWS = 16
"""At a time: their digits and the pieces stay in the cache."""
_DIGIT_BITS, _PIECE_BITS, _PIECES = 16, 21, 3
_PRIME_BITS = 61


def tag_of(vector: NDArray[np.int64] | Ring, *, key: bytes, plan: SumPlan, site: str) -> int:
    """One site's tag, below `TAG_PRIME`.

    Args:
      vector: of the plan's length: int64, or the words of its ring that stand for them.
      key: the sites' tag key, 32 bytes.
      plan: of the sum.
      site: whose vector it is.

    Raises:
      ValueError: another type or length.
    """
    return (_product(vector, key, plan) + _pad(key, plan, site)) % TAG_PRIME


def is_tagged(
    vector: NDArray[np.int64], tag: int | None, *, key: bytes, plan: SumPlan, survivors: tuple[str, ...]
) -> bool:
    """Whether the summed tag is that of the summed vector, over these survivors."""
    if tag is None or max(int(vector.max()), -int(vector.min())) > LARGEST:
        return False
    pads = sum(_pad(key, plan, site) for site in survivors)
    return tag == (_product(vector, key, plan) + pads) % TAG_PRIME


def _product(vector: NDArray[np.int64] | Ring, key: bytes, plan: SumPlan) -> int:
    """sum_k r_k q_k mod p: of q_k + 2^(m-1), which is not negative, less that of as many 2^(m-1)."""
    words, rows = ring_dtype(plan.ring_bits), -(-plan.length // _ROW)
    if vector.dtype not in (np.int64, words) or vector.shape != (plan.length,):
        raise ValueError("the vector must be int64 of the plan's length")
    inner, outer = _factors(key, plan, "inner", _ROW), _factors(key, plan, "outer", rows).tolist()
    per_word = 8 * words.itemsize // _DIGIT_BITS
    pieces = _pieces(_powers(inner, count=per_word))
    half = words.type(1 << plan.ring_bits - 1)
    part = np.zeros(_ROWS * _ROW, dtype=words)
    digits = np.empty((_ROWS, _ROW * per_word))
    total = 0
    for start in range(0, rows, _ROWS):
        entries = vector[start * _ROW : (start + _ROWS) * _ROW]
        np.add(entries.astype(words, copy=False), half, out=part[: len(entries)])
        part[len(entries) :] = 0
        digits[:] = part.view("<u2").reshape(digits.shape)
        columns = [(digits @ piece).tolist() for piece in pieces]
        for factor, *sums in zip(outer[start : start + _ROWS], *columns, strict=False):
            total += factor * sum(int(each) << _PIECE_BITS * place for place, each in enumerate(sums))
    last = plan.length - (rows - 1) * _ROW
    every: list[int] = inner.tolist()
    offsets = sum(outer[:-1]) * sum(every) + outer[-1] * sum(every[:last])
    return int(total - (offsets << plan.ring_bits - 1)) % TAG_PRIME


def _factors(key: bytes, plan: SumPlan, use: str, count: int) -> NDArray[np.uint64]:
    """So many words of 61 bits of AES-256-CTR."""
    cipher = Cipher(algorithms.AES(derive(key, f"tag {use}", plan.digest)), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * count)), dtype="<u8") & np.uint64(TAG_PRIME)


def _powers(factors: NDArray[np.uint64], *, count: int) -> NDArray[np.uint64]:
    """Each factor times 1, 2^16, 2^32, ... mod p, next to one another: what the digits of a word count."""
    powers = [factors]
    for _ in range(count - 1):  # times 2^16 mod 2^61 - 1 turns 61 bits round
        low = powers[-1] << np.uint64(_DIGIT_BITS) & np.uint64(TAG_PRIME)
        powers.append(low | powers[-1] >> np.uint64(_PRIME_BITS - _DIGIT_BITS))
    return np.stack(powers, axis=1).reshape(-1)


def _pieces(factors: NDArray[np.uint64]) -> list[NDArray[np.float64]]:
    """Doubles that make the factors when each is shifted 21 bits further than the one before."""
    low = np.uint64((1 << _PIECE_BITS) - 1)
    shifts = (np.uint64(_PIECE_BITS * place) for place in range(_PIECES))
    return [(factors >> shift & low).astype(np.float64) for shift in shifts]


def _pad(key: bytes, plan: SumPlan, site: str) -> int:
    return int.from_bytes(derive(key, "tag pad", plan.digest, site), "big") % TAG_PRIME
