"""What the log records: in-toto statements in DSSE envelopes, signed by the coordinator.

A statement names subjects by SHA-256 and holds a few settings. Names of subjects are

    key of an exchange object     digest of its envelope
    model:PATH                    digest of a file of a released model
    roster:current                digest of the roster in force

It never holds personal data: no rows, no per-site figures below the cohort's minimum.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Final, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fedhealth.errors import ProtocolError
from fedhealth.exchange.store import check_key
from fedhealth.identity.encoding import pae
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import Roster
from fedhealth.identity.signatures import ED25519_BYTES, MLDSA65_BYTES, Signatures

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MODEL_PREFIX = "model:"
ROSTER_SUBJECT = "roster:current"
INDEX_TAG = "fedhealth.log_index"
DIGEST_TAG = "fedhealth.log_digest"
"""Tags of a released version: the index of its log entry, and that entry's digest."""
MAX_PREDICATE_BYTES = 1 << 15
MAX_SUBJECTS = 1 << 16
MAX_ENTRY_BYTES = 1 << 24

_STRICT = ConfigDict(frozen=True, strict=True, extra="forbid")


class StatementKind(StrEnum):
    """What a statement is about."""

    ROSTER = "roster"
    STUDY = "study"
    APPROVAL = "approval"
    ROUND = "round"
    AGGREGATE = "aggregate"
    EVALUATION = "evaluation"
    RELEASE = "release"
    SPEND = "spend"

    @property
    def predicate_type(self) -> str:
        """The in-toto predicate type."""
        return f"https://fedhealth.dev/{self.value}/v1"


_KINDS = {kind.predicate_type: kind for kind in StatementKind}


class _Sha256(BaseModel):
    model_config = _STRICT

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Subject(BaseModel):
    model_config = _STRICT

    name: Annotated[str, Field(min_length=1, max_length=512)]
    digest: _Sha256


class Statement(BaseModel):
    """An in-toto Statement v1."""

    model_config = _STRICT

    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")] = STATEMENT_TYPE
    subject: Annotated[tuple[_Subject, ...], Field(max_length=MAX_SUBJECTS)]
    predicate_type: Annotated[str, Field(alias="predicateType")]
    predicate: dict[str, JsonValue]

    @property
    def kind(self) -> StatementKind:
        """What the statement is about."""
        return _KINDS[self.predicate_type]

    @property
    def subjects(self) -> dict[str, str]:
        """Hex SHA-256 by subject name."""
        return {subject.name: subject.digest.sha256 for subject in self.subject}

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 form."""
        return rfc8785.dumps(self.model_dump(mode="json", by_alias=True))


def make_statement(
    kind: StatementKind | str, predicate: Mapping[str, JsonValue], subjects: Mapping[str, str]
) -> Statement:
    """Build a statement with its subjects sorted by name.

    Raises:
      ValueError: an unknown kind, a subject name or digest that is not valid, or a
        predicate that is not small (32 KiB) and plain.
    """
    named = tuple({"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects))
    try:
        statement = Statement.model_validate(
            {
                "_type": STATEMENT_TYPE,
                "subject": named,
                "predicateType": StatementKind(kind).predicate_type,
                "predicate": dict(predicate),
            }
        )
        _check(statement)
    except (ValidationError, ProtocolError) as error:
        raise ValueError(f"not a valid {kind} statement ({type(error).__name__})") from None
    return statement


def sign_statement(statement: Statement, *, keys: PartyKeys) -> bytes:
    """Return the DSSE envelope (JSON, RFC 8785) with an Ed25519 and an ML-DSA-65 signature."""
    body = statement.to_bytes()
    raw = keys.sign(pae(PAYLOAD_TYPE, body)).to_bytes()
    parts = zip(_key_ids(keys.name), (raw[:ED25519_BYTES], raw[ED25519_BYTES:]), strict=True)
    envelope = _Envelope(
        payload=_b64(body),
        payloadType=PAYLOAD_TYPE,
        signatures=tuple(_Signature(keyid=key_id, sig=_b64(value)) for key_id, value in parts),
    )
    return envelope.to_bytes()


def open_statement(data: bytes, *, roster: Roster) -> Statement:
    """Return the statement of a DSSE envelope once the coordinator's two signatures verify.

    Raises:
      ProtocolError: size, form, signatures or content are not right.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise _bad(f"has more than {MAX_ENTRY_BYTES} bytes")
    envelope = _parse_envelope(data)
    name = roster.coordinator
    if tuple(signature.keyid for signature in envelope.signatures) != _key_ids(name):
        raise _bad("does not have exactly the coordinator's two signatures")
    raw = b"".join(_unb64(signature.sig) for signature in envelope.signatures)
    if len(raw) != ED25519_BYTES + MLDSA65_BYTES:
        raise _bad("has signatures of a wrong size")
    body = _unb64(envelope.payload)
    roster.verify(name, "coordinator", pae(PAYLOAD_TYPE, body), Signatures.from_bytes(raw))
    return _parse_statement(body)


def entry_digest(data: bytes) -> str:
    """Return the hex SHA-256 of a log entry's bytes: what a tag refers to it by."""
    return sha256(data).hexdigest()


class _Signature(BaseModel):
    model_config = _STRICT

    keyid: str
    sig: str


class _Envelope(BaseModel):
    model_config = _STRICT

    payload: str
    payloadType: Literal["application/vnd.in-toto+json"]
    signatures: tuple[_Signature, _Signature]

    def to_bytes(self) -> bytes:
        return rfc8785.dumps(self.model_dump(mode="json"))


def _key_ids(name: str) -> tuple[str, str]:
    return f"{name}/ed25519", f"{name}/mldsa65"


def _parse_envelope(data: bytes) -> _Envelope:
    try:
        envelope = _Envelope.model_validate_json(data)
    except ValidationError:
        raise _bad("is not a DSSE envelope with two signatures") from None
    if envelope.to_bytes() != data:
        raise _bad("is not in canonical form")
    return envelope


def _parse_statement(body: bytes) -> Statement:
    try:
        statement = Statement.model_validate_json(body)
        canonical = statement.to_bytes()
    except (ValidationError, rfc8785.CanonicalizationError):
        raise _bad("does not hold an in-toto statement") from None
    if canonical != body:
        raise _bad("holds a statement that is not in canonical form")
    _check(statement)
    return statement


def _check(statement: Statement) -> None:
    if statement.predicate_type not in _KINDS:
        raise _bad("is of an unknown kind")
    names = [subject.name for subject in statement.subject]
    if names != sorted(set(names)):
        raise _bad("has subjects twice or out of order")
    for name in names:
        _check_subject(name)
    try:
        size = len(rfc8785.dumps(statement.predicate))
    except rfc8785.CanonicalizationError:
        raise _bad("has a number that JSON cannot carry exactly") from None
    if size > MAX_PREDICATE_BYTES or not _is_plain(statement.predicate, depth=3):
        raise _bad("has a predicate that is not small and plain")


def _check_subject(name: str) -> None:
    if name == ROSTER_SUBJECT:
        return
    path = name.removeprefix(MODEL_PREFIX)
    if path == name:
        check_key(name)
    elif not path or path.startswith("/") or ".." in path.split("/") or not path.isprintable():
        raise _bad("names a model file by a path that is not valid")


def _is_plain(value: JsonValue, *, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_is_plain(item, depth=depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth=depth - 1) for item in value)
    return not (isinstance(value, float) and not math.isfinite(value))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("is not base64 where it should be") from None
    if _b64(data) != text:
        raise _bad("has base64 that is not canonical")
    return data


def _bad(problem: str) -> ProtocolError:
    return ProtocolError(f"a log entry {problem}", "do not rely on this log; ask the coordinator why")
