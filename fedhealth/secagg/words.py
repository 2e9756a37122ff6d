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

_BYTE = 8


@dataclass(frozen=True, slots=True)
class Words:
    """One site's words, or a sum of several sites'. They change in place. ``tag`` is one word, of a sum that wraps none."""

    bits: int
    vector: Ring
    lanes: Ring
    tag: Ring

    @classmethod
    def zeros(cls, plan: SumPlan) -> Self:
        """The empty sum of a plan."""
        vector = np.zeros(plan.length, dtype=ring_dtype(plan.ring_bits))
        lanes, tag = (np.zeros(count, dtype=LANE_DTYPE) for count in (plan.lanes, _tags(plan)))
        return cls(plan.ring_bits, vector, lanes, tag)

    @classmethod
    def of(
        cls, plan: SumPlan, vector: NDArray[np.int64], lanes: NDArray[np.int64], *, tag: int | None
    ) -> Self:
        """A site's integers as words.

        Args:
          plan: of the sum.
          vector: int64 of the plan's length. In a ring of 32 or 64 bits its sum over the cohort must fit; in a smaller
            one sums wrap on purpose, and entries are residues already, in [0, 2^m).
          lanes: int64, as many as the plan has; their sum over the cohort must fit 64 bits.
          tag: of an exact sum, below `TAG_PRIME`.

        Raises:
          ValueError: a wrong type or length, or a value out of range.
        """
        if vector.dtype != np.int64 or vector.shape != (plan.length,):
            raise ValueError("the vector must be int64 of the plan's length")
        if lanes.dtype != np.int64 or lanes.shape != (plan.lanes,):
            raise ValueError("the lanes must be int64, as many as the plan has")
        if (tag is None) != plan.wraps:
            raise ValueError("an exact sum has a tag, and no other")
        _check_room(lanes, bits=64, sites=len(plan.cohort))
        if plan.wraps:
            _check_residues(vector, bits=plan.ring_bits)
        else:
            _check_room(vector, bits=plan.ring_bits, sites=len(plan.cohort))
        words = vector.view(np.uint64).astype(ring_dtype(plan.ring_bits))
        tags = np.array([] if tag is None else [tag], dtype=LANE_DTYPE)
        return cls(plan.ring_bits, words, lanes.view(np.uint64).astype(LANE_DTYPE), tags)

    @classmethod
    def from_bytes(cls, plan: SumPlan, data: bytes) -> Self:
        """Parse `to_bytes`; the words may share the bytes' memory.

        Raises:
          ValueError: a wrong size, or a tag that is not below `TAG_PRIME`.
        """
        end = -(-plan.length * plan.ring_bits // _BYTE)
        if len(data) != end + (plan.lanes + _tags(plan)) * LANE_DTYPE.itemsize:
            raise ValueError("the words have a wrong size")
        vector = _unpack(memoryview(data)[:end], bits=plan.ring_bits, count=plan.length)
        lanes, tag = np.split(np.frombuffer(data, dtype=LANE_DTYPE, offset=end), [plan.lanes])
        if (tag >= TAG_PRIME).any():
            raise ValueError("the words have a tag that is none")
        return cls(plan.ring_bits, vector, lanes, tag)

    def to_bytes(self) -> bytes:
        """The words on the wire: ceil(m * length / 8) bytes, and 8 for each lane and the tag."""
        return b"".join((_pack(self.vector, bits=self.bits), self.lanes.tobytes(), self.tag.tobytes()))

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

    def copy(self) -> "Words":
        """Words of their own."""
        return Words(self.bits, self.vector.copy(), self.lanes.copy(), self.tag.copy())

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


def _check_room(values: NDArray[np.int64], *, bits: int, sites: int) -> None:
    room = (2 ** (bits - 1) - 1) // sites
    if len(values) and max(int(values.max()), -int(values.min())) > room:
        raise ValueError("a value is so large that the sum could leave the ring")


def _check_residues(values: NDArray[np.int64], *, bits: int) -> None:
    if int(values.min()) < 0 or int(values.max()) >= 1 << bits:
        raise ValueError("a value is no residue of the ring")


def _pack(words: Ring, *, bits: int) -> bytes | memoryview:
    """Words without gaps. Bits above the ring's, which sums in wider words leave, fall away."""
    if bits == _BYTE * words.itemsize:
        return np.ascontiguousarray(words).data
    lowest = np.unpackbits(_as_bytes(words), axis=1, count=bits, bitorder="little")
    return np.packbits(lowest, bitorder="little").tobytes()


def _unpack(data: memoryview, *, bits: int, count: int) -> Ring:
    dtype = ring_dtype(bits)
    if bits == _BYTE * dtype.itemsize:
        return np.frombuffer(data, dtype=dtype)
    stream = np.unpackbits(np.frombuffer(data, np.uint8), count=bits * count, bitorder="little")
    words = np.packbits(stream.reshape(count, bits), axis=1, bitorder="little")
    return words.reshape(-1).view(dtype)


def _as_bytes(words: Ring) -> NDArray[np.uint8]:
    return words.view(np.uint8).reshape(len(words), words.itemsize)
