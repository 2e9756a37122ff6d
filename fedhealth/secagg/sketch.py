"""Sketches: a few public projections of a site's vector, by which it can be judged while its mask is still on.

    symbol  name          symbol  name
    q_i     vector        S       directions: entries +1 or -1, one row for each direction
    y_i     upload        S q_i   sketch

The directions come from a seed that nobody knows before every upload is fixed: it hashes the digests of all uploads with
a nonce to which the coordinator committed before them. A vector made to look harmless in them would have to be made
first. The projection is exact and linear, so the sketches of the survivors must add up to the sketch of the opened sum.

A sketch tells as many linear numbers of one site's vector as there are directions: only for vectors that may be seen so far.
"""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.secagg.messages import SketchMessage, decode, encode
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.prg import commit, derive

MAX_DIRECTIONS = 64
MIN_DIRECTIONS = 32
ENTRIES_PER_DIRECTION = 8
"""At least so many entries of the vector stand behind each number that is told of it."""
_ROWS = 1 << 13
_MAX_ENTRY = 1 << 38
"""Sums of so many rows of such entries are exact in float64."""

_SIGNS_OF_BYTE = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1) - 1.0
"""By value of a byte its eight signs: entries are summed by their byte first, which is eight times fewer steps."""

Vector = NDArray[np.int64]


def directions_for(length: int) -> int:
    """How many directions a vector of this length is projected on: 32 to 64.

    Raises:
      PolicyError: so few entries that so many projections would tell too much of them.
    """
    directions = min(MAX_DIRECTIONS, length // ENTRIES_PER_DIRECTION)
    if directions < MIN_DIRECTIONS:
        least = MIN_DIRECTIONS * ENTRIES_PER_DIRECTION
        raise PolicyError(
            f"the update has {length} entries, and {MIN_DIRECTIONS} projections would tell too much of fewer than {least}",
            "use a larger network, or aggregation.robust none",
        )
    return directions


def commit_nonce(plan: SumPlan, nonce: bytes) -> bytes:
    """What the coordinator posts before the uploads: a commitment to its share of the seed, 32 bytes."""
    return commit("sketch nonce", plan.digest, nonce)


def sketch_seed(plan: SumPlan, *, nonce: bytes, uploads: Mapping[str, str]) -> bytes:
    """The public seed of a sum's directions, 32 bytes.

    Args:
      plan: of the sum.
      nonce: the coordinator's, of 32 bytes.
      uploads: by site the hex digest of its signed masked vector; all of U1 that uploaded.
    """
    listed = "".join(f" {site} {digest}" for site, digest in sorted(uploads.items()))
    return hashlib.sha256(f"fedhealth sketch 1 {plan.digest}{listed} ".encode() + nonce).digest()


def project(vector: Vector, *, seed: bytes, directions: int) -> tuple[int, ...]:
    """The exact projections of a vector on pseudorandom directions of +1 and -1.

    Guarantees: linear over the integers; the same seed gives the same directions everywhere (bit j of the i-th 8 bytes of
    AES-256-CTR under HKDF(seed, "sketch"), most significant first, is the sign of entry i in direction j); memory
    does not grow with the vector.

    Args:
      vector: int64, every entry below 2^38 in size.
      seed: from `sketch_seed`.
      directions: 1 to 64.

    Raises:
      ValueError: an entry is too large to be exact.
    """
    if len(vector) and max(int(vector.max()), -int(vector.min())) >= _MAX_ENTRY:
        raise ValueError("an entry is too large for an exact projection")
    stream = Cipher(algorithms.AES(derive(seed, "sketch")), modes.CTR(bytes(16))).encryptor()
    totals = [0] * MAX_DIRECTIONS
    for start in range(0, len(vector), _ROWS):
        part = vector[start : start + _ROWS].astype(np.float64)
        signs = np.frombuffer(stream.update(bytes(8 * len(part))), dtype=np.uint8).reshape(-1, 8)
        by_value = [np.bincount(column, weights=part, minlength=256) for column in signs.T]
        sums = (np.stack(by_value) @ _SIGNS_OF_BYTE).ravel()
        totals = [done + int(more) for done, more in zip(totals, sums, strict=True)]
    return tuple(totals[:directions])


def sketch(vector: Vector, plan: SumPlan, *, seed: bytes) -> bytes:
    """What a site posts: the projections of its vector, under the seed that it was shown."""
    return encode(SketchMessage(seed, project(vector, seed=seed, directions=directions_for(plan.length))))


def read_sketch(site: str, payload: bytes, plan: SumPlan, *, seed: bytes) -> tuple[int, ...]:
    """The projections that a site posted, checked for what can be checked of them before the sum is open.

    Raises:
      ProtocolError: another seed, another number of directions, or a size that no vector of the plan has.
    """
    message = decode(payload, SketchMessage, sender=site)
    largest = plan.length * ((2 ** (plan.ring_bits - 1) - 1) // len(plan.cohort))
    if message.seed != seed or len(message.values) != directions_for(plan.length):
        raise ProtocolError(f"the sketch of site {site} is not of these directions", f"leave {site} out")
    if max(map(abs, message.values)) > largest:
        raise ProtocolError(f"the sketch of site {site} is of no vector of this plan", f"leave {site} out")
    return message.values


def check_sketches(total: Vector, sketches: Mapping[str, Iterable[int]], *, seed: bytes) -> None:
    """Refuse an opened sum whose sketch is not the sum of the survivors' sketches.

    Guarantees: a site whose sketch was of another vector than the one it uploaded does not get that into a result, but for a
    difference that all directions are blind to: a fixed one is missed by one direction with chance 1/2 or less.

    Raises:
      ProtocolError: they differ. Which of the sites lied cannot be told from the sum.
    """
    values = list(sketches.values())
    shown = tuple(sum(column) for column in zip(*values, strict=True))
    if project(total, seed=seed, directions=len(shown)) != shown:
        raise ProtocolError(
            f"the sketches of {', '.join(sorted(sketches))} do not add up to the sketch of their sum: one of them"
            " uploaded another vector than it showed",
            "start the round again without one of them after another, and keep the one without whom it adds up out",
        )
