"""Who takes part: names, roles and public keys, pinned by one digest.

The digest is the root of trust: whoever knows it can check every later signature. A
certificate authority can stand behind the same interface.
"""

from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Literal, Self, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity.encoding import PartyName, exactly, pae
from fedhealth.identity.signatures import Signatures, check_signatures

Role = Literal["coordinator", "site"]
ROSTER_TYPE = "application/vnd.fedhealth.roster.v1+json"
_KEY_FIELDS = ("ed25519", "mldsa65", "x25519", "mlkem768")
_STRICT = ConfigDict(frozen=True, strict=True, extra="forbid")
_Model = TypeVar("_Model", "PublicIdentity", "Roster", "SignedRoster")


class PublicIdentity(BaseModel):
    """The public half of one party: what everybody else needs to know of it."""

    model_config = _STRICT

    name: PartyName
    role: Role
    ed25519: Annotated[str, exactly(32, "an Ed25519 key")]
    mldsa65: Annotated[str, exactly(1952, "an ML-DSA-65 key")]
    x25519: Annotated[str, exactly(32, "an X25519 key")]
    mlkem768: Annotated[str, exactly(1184, "an ML-KEM-768 key")]

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 form."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> "PublicIdentity":
        """Read what ``to_bytes`` wrote, and nothing else.

        Raises:
          ProtocolError: unknown or missing fields, wrong sizes, another spelling.
        """
        return _parse(PublicIdentity, data, "a public identity")

    def check(self, message: bytes, signatures: Signatures) -> None:
        """Return only when both signatures of this party over ``message`` verify.

        Raises:
          ProtocolError: either does not.
        """
        check_signatures(message, signatures, ed25519=self.ed25519, mldsa65=self.mldsa65, who=self.name)


class Roster(BaseModel):
    """The parties of a consortium, sorted by name: one coordinator and its sites.

    Guarantees: names are distinct, and so is every public key, so that no party can
    appear twice under two names.
    """

    model_config = _STRICT

    schema_version: Literal[1] = 1
    parties: tuple[PublicIdentity, ...]

    @field_validator("parties")
    @classmethod
    def _check_parties(cls, parties: tuple[PublicIdentity, ...]) -> tuple[PublicIdentity, ...]:
        for field in ("name", *_KEY_FIELDS):
            if len({getattr(party, field) for party in parties}) != len(parties):
                raise ValueError(f"two parties have the same {field}")
        if sum(party.role == "coordinator" for party in parties) != 1:
            raise ValueError("a roster has exactly one coordinator")
        return tuple(sorted(parties, key=lambda party: party.name))

    @classmethod
    def of(cls, parties: Iterable[PublicIdentity]) -> Self:
        """Build a roster in any order of ``parties``.

        Raises:
          ConfigError: a duplicate name or key, or not exactly one coordinator.
        """
        try:
            return cls(parties=tuple(parties))
        except ValidationError as error:
            raise ConfigError(
                f"the roster is not valid: {error.errors()[0]['msg']}",
                "list every party once, with one coordinator",
            ) from None

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 form, which the digest is taken of."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Roster":
        """Read what ``to_bytes`` wrote, and nothing else.

        Raises:
          ProtocolError: not a valid roster, or not in canonical form and order.
        """
        return _parse(Roster, data, "a roster")

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of ``to_bytes()``: the name of this roster and the root of trust."""
        return sha256(self.to_bytes()).hexdigest()

    @cached_property
    def _by_name(self) -> dict[str, PublicIdentity]:
        return {party.name: party for party in self.parties}

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, sorted."""
        return tuple(party.name for party in self.parties if party.role == "site")

    @cached_property
    def coordinator(self) -> str:
        """Name of the coordinator."""
        return next(party.name for party in self.parties if party.role == "coordinator")

    def party(self, name: str) -> PublicIdentity:
        """Return the public identity called ``name``.

        Raises:
          ProtocolError: nobody of that name is on the roster.
        """
        if name not in self._by_name:
            raise ProtocolError(
                "an object is signed by a party that is not on the roster", "check the roster digest"
            )
        return self._by_name[name]

    def verify(self, name: str, role: Role, message: bytes, signatures: Signatures) -> None:
        """Return only when ``name`` holds ``role`` and signed ``message`` with both keys.

        Raises:
          ProtocolError: unknown name, another role, or either signature does not verify.
        """
        party = self.party(name)
        if party.role != role:
            raise ProtocolError(f"{name} is a {party.role}, not a {role}", "check who may post this object")
        party.check(message, signatures)


class SignedRoster(BaseModel):
    """A roster with the coordinator's signatures: what the launcher hands to every process."""

    model_config = _STRICT

    roster: Roster
    signatures: Signatures

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 form."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> "SignedRoster":
        """Read what ``to_bytes`` wrote; verifies nothing (see ``verify``).

        Raises:
          ProtocolError: not a signed roster in canonical form.
        """
        return _parse(SignedRoster, data, "a signed roster")

    def verify(self, *, expected_digest: str | None = None) -> Roster:
        """Return the roster once it is known to be the right one.

        Guarantees: with ``expected_digest`` the roster is the pinned one. Without it,
        only that its own coordinator signed it: trust on first use.

        Raises:
          ProtocolError: another digest, or the coordinator's signatures do not verify.
        """
        if expected_digest is not None and self.roster.digest != expected_digest:
            raise ProtocolError(
                f"the roster is {self.roster.digest[:16]}, not the pinned {expected_digest[:16]}",
                "ask the coordinator which roster is in force",
            )
        message = pae(ROSTER_TYPE, self.roster.to_bytes())
        self.roster.verify(self.roster.coordinator, "coordinator", message, self.signatures)
        return self.roster


def _parse(model: type[_Model], data: bytes, what: str) -> _Model:
    """Parse strictly: re-encoding must give the same bytes (also finds duplicate JSON keys)."""
    try:
        value = model.model_validate_json(data)
    except ValidationError:
        raise ProtocolError(f"{what} does not have the expected fields", "ask for it again") from None
    if value.to_bytes() != data:
        raise ProtocolError(f"{what} is not in canonical form", "ask for it again")
    return value
