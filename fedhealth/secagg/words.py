"""What is masked, uploaded and added up: a vector in the integers modulo 2^m, lanes in those modulo 2^64, and an exact
sum's tag modulo 2^61 - 1. Each is masked in its own ring, so that of each the sum opens and nothing of how it came about.

On the wire: the vector in little-endian words of m bits without gaps (the first bit of the stream is the lowest of the first
word; zeros fill the last byte), then the lanes and the tag in words of 8 bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.prg import LANE_DTYPE, TAG_PRIME, Ring, apply_masks, ring_dtype, tag_mask
from fedhealth.secagg.tags import LARGEST

_BYTE = 8
_PART = 1 << 15


@dataclass(frozen=True, slots=True)
class Words:
    """One site's words, or a sum of several sites'. They change in place.

    Attributes:
      bits: m.
      vector: of words that hold m bits.
      lanes: of 64 bits.
      tag: one word, of a sum that wraps none.
      memory: all of them, one behind the other.
    """

    bits: int
    vector: Ring
    lanes: Ring
    tag: Ring
    memory: NDArray[np.uint8]

    @classmethod
    def zeros(cls, plan: SumPlan) -> Self:
        """The empty sum of a plan."""
        return cls._over(plan, np.zeros(_size(plan), dtype=np.uint8))

    @classmethod
    def of(cls, plan: SumPlan, vector: NDArray[np.int64], lanes: NDArray[np.int64]) -> Self:
        """A site's integers as words, the tag still zero.

        Args:
          plan: of the sum.
          vector: int64 of the plan's length. In a ring of 32 or 64 bits its sum over the cohort must fit, and in 60 bits
            and a sign; in a smaller one sums wrap on purpose, and entries are residues already, in [0, 2^m).
          lanes: int64, as many as the plan has; their sum over the cohort must fit 64 bits.

        Raises:
          ValueError: a wrong type or length, or a value out of range.
        """
        if vector.dtype != np.int64 or vector.shape != (plan.length,):
            raise ValueError("the vector must be int64 of the plan's length")
        if lanes.dtype != np.int64 or lanes.shape != (plan.lanes,):
            raise ValueError("the lanes must be int64, as many as the plan has")
        words, sites = cls._over(plan, np.empty(_size(plan), dtype=np.uint8)), len(plan.cohort)
        _check_room(lanes, largest=2**63 - 1, sites=sites)
        words.lanes[:], words.tag[:] = lanes.view(np.uint64), 0
        for start in range(0, plan.length, _PART):  # checked while it is in the cache
            part = vector[start : start + _PART]
            if plan.wraps:
                _check_residues(part, bits=plan.ring_bits)
            else:
                _check_room(part, largest=min(2 ** (plan.ring_bits - 1) - 1, LARGEST), sites=sites)
            words.vector[start : start + _PART] = part
        return words

    @classmethod
    def from_bytes(cls, plan: SumPlan, data: bytes | memoryview) -> Self:
        """Parse `to_bytes`; the words may share the bytes' memory.

        Raises:
          ValueError: a wrong size, or a tag that is not below `TAG_PRIME`.
        """
        packed = -(-plan.length * plan.ring_bits // _BYTE)
        if len(data) != packed + _BYTE * (plan.lanes + _tags(plan)):
            raise ValueError("the words have a wrong size")
        memory = np.frombuffer(data, dtype=np.uint8)
        if _has_gaps(plan.ring_bits):
            vector = _unpack(memory[:packed], bits=plan.ring_bits, count=plan.length)
            memory = np.concatenate([vector.view(np.uint8), memory[packed:]])
        words = cls._over(plan, memory)
        if (words.tag >= TAG_PRIME).any():
            raise ValueError("the words have a tag that is none")
        return words

    @classmethod
    def _over(cls, plan: SumPlan, memory: NDArray[np.uint8]) -> Self:
        dtype = ring_dtype(plan.ring_bits)
        end = plan.length * dtype.itemsize
        lanes = memory[end:].view(LANE_DTYPE)
        return cls(plan.ring_bits, memory[:end].view(dtype), lanes[: plan.lanes], lanes[plan.lanes :], memory)

    def to_bytes(self) -> bytes | memoryview:
        """The words on the wire: ceil(m * length / 8) bytes, and 8 for each lane and the tag. Words of whole bytes are lent."""
        if not _has_gaps(self.bits):
            return self.memory.data.toreadonly()
        return b"".join((_pack(self.vector, bits=self.bits), self.lanes.tobytes(), self.tag.tobytes()))

    def put_tag(self, tag: int) -> None:
        """Put the tag of an exact sum, below `TAG_PRIME`.

        Raises:
          ValueError: it is not, or the sum wraps.
        """
        if not self.tag.size or not 0 <= tag < TAG_PRIME:
            raise ValueError("an exact sum has a tag below 2^61 - 1, and no other has one")
        self.tag[0] = tag

    def add(self, other: "Words") -> None:
        """Add another's words, modulo the rings."""
        np.add(self.vector, other.vector, out=self.vector)
        np.add(self.lanes, other.lanes, out=self.lanes)
        self._move_tag(int(other.tag.sum()))

    def subtract(self, other: "Words") -> None:
        """Take another's words off again, modulo the rings."""
        np.subtract(self.vector, other.vector, out=self.vector)
        np.subtract(self.lanes, other.lanes, out=self.lanes)
        self._move_tag(-int(other.tag.sum()))

    def apply_masks(self, seeds: Sequence[tuple[bytes, int]]) -> None:
        """Add (sign 1) or subtract (sign -1) the masks of every pair (seed, sign); lanes and tag have masks of their own."""
        apply_masks(self.vector, seeds)
        apply_masks(self.lanes, seeds, use="lanes")
        if self.tag.size:
            self._move_tag(sum(sign * tag_mask(seed) for seed, sign in seeds))

    def _move_tag(self, by: int) -> None:
        if self.tag.size:
            self.tag[0] = (int(self.tag[0]) + by) % TAG_PRIME

    def signed_vector(self) -> NDArray[np.int64]:
        """The vector as the integers in [-2^(m-1), 2^(m-1)) that it stands for."""
        if self.bits == _BYTE * self.vector.itemsize:
            return self.vector.view(f"<i{self.vector.itemsize}").astype(np.int64)
        spare = np.int64(64 - self.bits)
        signed: NDArray[np.int64] = self.vector.astype(np.int64)
        signed <<= spare  # the ring's top bit becomes the sign, and what is above it falls away
        signed >>= spare
        return signed

    def signed_lanes(self) -> NDArray[np.int64]:
        """The lanes, signed."""
        return self.lanes.astype(np.int64)

    def opened_tag(self) -> int | None:
        """The tag; None of a sum that wraps."""
        return int(self.tag[0]) if self.tag.size else None


def _tags(plan: SumPlan) -> int:
    return 0 if plan.wraps else 1


def _size(plan: SumPlan) -> int:
    """Bytes of all words in memory."""
    return plan.length * ring_dtype(plan.ring_bits).itemsize + _BYTE * (plan.lanes + _tags(plan))


def _has_gaps(bits: int) -> bool:
    """Whether words in memory are wider than those on the wire."""
    return bits != _BYTE * ring_dtype(bits).itemsize


def _check_room(values: NDArray[np.int64], *, largest: int, sites: int) -> None:
    if len(values) and max(int(values.max()), -int(values.min())) > largest // sites:
        raise ValueError("a value is so large that the sum could leave the ring")


def _check_residues(values: NDArray[np.int64], *, bits: int) -> None:
    if int(values.min()) < 0 or int(values.max()) >= 1 << bits:
        raise ValueError("a value is no residue of the ring")


def _pack(words: Ring, *, bits: int) -> bytes:
    """Words without gaps. Bits above the ring's, which sums in wider words leave, fall away."""
    wide = words.view(np.uint8).reshape(len(words), words.itemsize)
    return np.packbits(
        np.unpackbits(wide, axis=1, count=bits, bitorder="little"), bitorder="little"
    ).tobytes()


def _unpack(data: NDArray[np.uint8], *, bits: int, count: int) -> Ring:
    stream = np.unpackbits(data, count=bits * count, bitorder="little")
    words = np.packbits(stream.reshape(count, bits), axis=1, bitorder="little")
    return words.reshape(-1).view(ring_dtype(bits))
