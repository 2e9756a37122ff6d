"""The envelope of every object: canonical header, binary payload, two signatures.

    offset  bytes
    0       8     magic "FEDHEAL" and the format version 1
    8       4     header length h, big endian
    12      h     header, RFC 8785 JSON
    12+h    p     payload, p = header.payload_bytes
    12+h+p  3373  Ed25519 (64) || ML-DSA-65 (3309)

What is signed is the DSSE pre-authentication encoding of the header; the header holds
the payload's SHA-256 and size, and the key under which the object was posted.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedhealth.errors import ProtocolError
from fedhealth.identity.encoding import PartyName, pae
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import Roster
from fedhealth.identity.signatures import SIGNATURES_BYTES, Signatures

MAGIC = b"FEDHEAL\x01"
HEADER_TYPE = "application/vnd.fedhealth.header.v1+json"
_PREFIX_BYTES = len(MAGIC) + 4

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_DigestOrEmpty = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
_Label = Annotated[str, Field(pattern=r"^[a-z0-9._-]{0,128}$")]
_Kind = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**53)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts at most, checked before anything is parsed.

    Attributes:
      max_bytes: of a whole object.
      max_header_bytes: of its header.
    """

    max_bytes: int = 1 << 30
    max_header_bytes: int = 1 << 14


LIMITS = Limits()


class Header(BaseModel):
    """What the sender says about a payload, and signs.

    Attributes:
      key: where on the exchange the object was posted; elsewhere it is not valid.
      study, plan, payload_digest: hex SHA-256, the first two may be empty.
      time: when it was posted by the sender's clock, UTC; information only.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: Literal[1] = 1
    key: Annotated[str, Field(max_length=512)]
    kind: _Kind
    study: _DigestOrEmpty = ""
    run: _Label = ""
    round: _Count = 0
    purpose: _Label = ""
    step: _Count = 0
    attempt: _Count = 0
    plan: _DigestOrEmpty = ""
    sender: PartyName
    payload_digest: _Digest
    payload_bytes: _Count
    algorithms: tuple[Literal["ed25519"], Literal["mldsa65"]] = ("ed25519", "mldsa65")
    time: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 form."""
        return rfc8785.dumps(self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Opened:
    """An object whose sender is known.

    Attributes:
      header: what the sender signed.
      payload: the bytes that the header's digest is of.
      digest: hex SHA-256 of the whole envelope: what others refer to it by.
    """

    header: Header
    payload: bytes
    digest: str


def timestamp(seconds: float) -> str:
    """Format seconds since 1970 (UTC) as RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seal(payload: bytes | memoryview, header: Header, *, keys: PartyKeys) -> bytes:
    """Return the envelope of ``payload``, signed by ``keys``.

    Raises:
      ValueError: the header names another sender, payload or size.
    """
    if header.sender != keys.name or header.payload_bytes != len(payload):
        raise ValueError("the header is of another sender or payload")
    if header.payload_digest != sha256(payload).hexdigest():
        raise ValueError("the header is of another payload")
    head = header.to_bytes()
    signatures = keys.sign(pae(HEADER_TYPE, head)).to_bytes()
    return b"".join((MAGIC, len(head).to_bytes(4, "big"), head, payload, signatures))


def unseal(data: bytes, *, roster: Roster, limits: Limits = LIMITS) -> Opened:
    """Return the verified content of an envelope, or raise.

    Guarantees: (1) size within limits, (2) magic and version, (3) header whole and
    within limits, (4) every field known, typed and in canonical form, (5) no byte
    missing or left over, (6) payload digest, (7) sender on the roster and both
    signatures. The payload is not parsed.

    Raises:
      ProtocolError: any of these fails.
    """
    if len(data) > limits.max_bytes:
        raise _bad(f"has more than {limits.max_bytes} bytes")
    if data[: len(MAGIC)] != MAGIC:
        raise _bad("has an unknown format or version")
    end = _header_end(data, limits)
    header = _parse_header(data[_PREFIX_BYTES:end])
    if len(data) != end + header.payload_bytes + SIGNATURES_BYTES:
        raise _bad("is truncated or has bytes left over")
    payload = data[end : end + header.payload_bytes]
    if sha256(payload).hexdigest() != header.payload_digest:
        raise _bad("has another payload than its header says")
    signatures = Signatures.from_bytes(data[end + header.payload_bytes :])
    roster.party(header.sender).check(pae(HEADER_TYPE, data[_PREFIX_BYTES:end]), signatures)
    return Opened(header=header, payload=payload, digest=sha256(data).hexdigest())


def _header_end(data: bytes, limits: Limits) -> int:
    if len(data) < _PREFIX_BYTES:
        raise _bad("is truncated")
    size = int.from_bytes(data[len(MAGIC) : _PREFIX_BYTES], "big")
    if size > limits.max_header_bytes:
        raise _bad(f"has a header of more than {limits.max_header_bytes} bytes")
    if len(data) < _PREFIX_BYTES + size + SIGNATURES_BYTES:
        raise _bad("is truncated")
    return _PREFIX_BYTES + size


def _parse_header(data: bytes) -> Header:
    try:
        header = Header.model_validate_json(data)
    except ValidationError:
        raise _bad("has unknown, missing or wrong header fields") from None
    if header.to_bytes() != data:
        raise _bad("has a header that is not in canonical form")
    return header


def _bad(problem: str) -> ProtocolError:
    return ProtocolError(f"an envelope {problem}", "ask its sender to post it again under a new key")
