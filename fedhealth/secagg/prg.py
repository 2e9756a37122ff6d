"""Keys, commitments and masks: HKDF-SHA256, SHA-256 and AES-256-CTR, each with its own label."""

import hashlib
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

LANE_DTYPE: np.dtype[np.unsignedinteger[Any]] = np.dtype("<u8")
SEED_BYTES = 32
TAG_PRIME = 2**61 - 1
"""Tags of exact sums are integers modulo this prime, and so are their masks (`fedhealth.secagg.tags`)."""
_CHUNK_BYTES = 96 << 10
"""Fits the second-level cache twice, and lies below the size from which an allocator asks for fresh pages."""
_SPARE_BYTES = 15
"""What the cipher wants behind its output."""
_ZEROS = memoryview(bytes(_CHUNK_BYTES))

Ring = NDArray[np.unsignedinteger[Any]]
Use = Literal["vector", "lanes"]


def ring_dtype(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest little-endian word that holds a ring of so many bits, at most 64."""
    return np.dtype(f"<u{next(size for size in (1, 2, 4, 8) if 8 * size >= bits)}")


def derive(key: bytes, *parts: str, size: int = 32) -> bytes:
    """HKDF-SHA256 of a key under a label and parts, each behind its length in bytes.

    Raises:
      ValueError: the key has fewer than 256 bits.
    """
    if len(key) < SEED_BYTES:
        raise ValueError("a key needs at least 256 bits")
    encoded = [part.encode() for part in ("fedhealth secagg 1", *parts)]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(key)


def commit(label: str, plan_digest: str, value: bytes) -> bytes:
    """SHA-256 commitment. Hiding because every value committed to is a key or share of 256 bits or more."""
    head = f"fedhealth secagg 1 {label} {plan_digest} ".encode()
    return hashlib.sha256(head + value).digest()


def apply_mask(vector: Ring, seed: bytes, *, sign: int) -> None:
    """Add (sign 1) or subtract (sign -1) PRG(seed) in place: `apply_masks` of one."""
    apply_masks(vector, [(seed, sign)])


def apply_masks(vector: Ring, seeds: Iterable[tuple[bytes, int]], *, use: Use = "vector") -> None:
    """Add (sign 1) or subtract (sign -1) PRG(seed) of every pair (seed, sign) in place, modulo the ring.

    Guarantees: memory does not grow with the vector; the same seed, use and length give the same mask everywhere
    (little-endian words of AES-256-CTR under HKDF(seed, use), counter from zero). A ring that is smaller than
    its words is right in its own bits; those above them are for the caller to drop.

    Raises:
      ValueError: a seed has fewer than 256 bits.
    """
    if not len(vector):
        return
    streams = [(_stream(seed, use), np.add if sign > 0 else np.subtract) for seed, sign in seeds]
    per_chunk = _CHUNK_BYTES // vector.itemsize
    buffer = bytearray(_CHUNK_BYTES + _SPARE_BYTES)
    mask = np.frombuffer(buffer, dtype=vector.dtype, count=per_chunk)
    for start in range(
        0, len(vector), per_chunk
    ):  # chunks outside: this part stays in the cache for all masks
        part = vector[start : start + per_chunk]
        zeros = _ZEROS[: part.nbytes]
        for stream, combine in streams:
            stream.update_into(zeros, buffer)
            combine(part, mask[: part.size], out=part)


def tag_mask(seed: bytes) -> int:
    """The mask of a tag: an integer below `TAG_PRIME`, uniform to 2^-195."""
    return int.from_bytes(derive(seed, "tag"), "big") % TAG_PRIME


def _stream(seed: bytes, use: Use) -> CipherContext:
    return Cipher(algorithms.AES(derive(seed, use)), modes.CTR(bytes(16))).encryptor()
