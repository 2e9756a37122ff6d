"""R0: the plan of one secure sum. Its digest binds every seed, share and statement of the sum."""

import hashlib
from functools import cached_property
from typing import Annotated, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedhealth.errors import ProtocolError
from fedhealth.exchange.store import SEGMENT

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
RunId = Annotated[str, Field(pattern=rf"^{SEGMENT}$", max_length=128)]
"""A segment of exchange keys and of paths in a site's journal, so it has no separator and cannot climb."""
MAX_LENGTH = 50_000_000
"""Largest vector, in entries."""
Count = Annotated[int, Field(ge=0, lt=2**53)]
"""RFC 8785 writes no larger integer."""
RingBits = Literal[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 32, 64]
"""Exact sums live in 32 or 64 bits; in a smaller ring they wrap, and a codec made them for that."""
MAX_LANES = 64


def threshold_for(sites: int) -> int:
    """t = floor(2n/3) + 1 of n sites: 3 of 3, 11 of 15, 27 of 40."""
    return 2 * sites // 3 + 1


def colluders_withstood(sites: int) -> int:
    """The largest c with 2t > n + c: 2 of 3, 1 of 4, 6 of 15, 13 of 40."""
    return 2 * threshold_for(sites) - sites - 1


class SumPlan(BaseModel):
    """One plan is one secure sum. A second vector under the same plan does not exist.

    Guarantees: the cohort is sorted, without repetition and at least 3 sites; 2t > n + c, so that c colluding
    sites and a coordinator that shows two lists cannot open two sums; every party parses the same bytes.

    ``length`` entries live in the ring, and ``lanes`` further ones, for exact numbers beside a vector that wraps, in 2^64.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: Literal[1] = 1
    study_digest: Digest
    run: RunId
    round: Count
    purpose: Name
    step: Count
    attempt: Count
    model_digest: Digest
    settings_digest: Digest
    roster_digest: Digest
    cohort: tuple[Name, ...]
    threshold: int
    min_survivors: int
    colluders: Annotated[int, Field(ge=0)] = 1
    ring_bits: RingBits
    length: Annotated[int, Field(ge=1, le=MAX_LENGTH)]
    lanes: Annotated[int, Field(ge=0, le=MAX_LANES)] = 0
    counter: Count

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        sites = len(self.cohort)
        if sites < 3:
            raise ValueError("a secure sum needs at least 3 sites")
        if tuple(sorted(set(self.cohort))) != self.cohort:
            raise ValueError("the cohort must be sorted and without repetition")
        if self.threshold != threshold_for(sites) or self.colluders > colluders_withstood(sites):
            raise ValueError(
                "the threshold is not the one of this cohort, or does not withstand so many colluders"
            )
        if not self.threshold <= self.min_survivors <= sites:
            raise ValueError("the smallest number of survivors must lie between the threshold and the cohort")
        return self

    @property
    def wraps(self) -> bool:
        """Whether entries are residues whose sum is only known modulo the ring."""
        return self.ring_bits < 32

    @cached_property
    def digest(self) -> str:
        """H(plan): hex SHA-256 of `to_bytes`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """RFC 8785 bytes."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse `to_bytes`.

        Raises:
          ProtocolError: malformed, not canonical, or unsafe (cohort under 3, wrong threshold).
        """
        try:
            plan = cls.model_validate_json(data)
        except ValidationError:
            raise ProtocolError(
                "a plan is malformed or unsafe", "ask the coordinator which version it runs"
            ) from None
        if plan.to_bytes() != data:
            raise ProtocolError(
                "a plan is not in canonical form", "ask the coordinator which version it runs"
            )
        return plan
