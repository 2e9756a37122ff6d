"""Certificates of parties: what a party asks for, what the consortium's authority gives, and who is certified by it.

A party has two leaf certificates, one for its Ed25519 and one for its ML-DSA-65 key, both issued by the authority's
ML-DSA-87 root. Their subject key identifier is the SHA-256 of the whole public identity: so they certify its name,
its role and its two agreement keys too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Self, TypeVar

import rfc8785
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey, MLDSA87PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, ValidationError

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity.encoding import encode
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import PublicIdentity, Roster

_MAX_BYTES = 1 << 20
_UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
)
"""What reading or checking somebody's certificate may end in."""
_Model = TypeVar("_Model", bound="_File")


class _File(BaseModel):
    """A file of JSON in its canonical form."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    identity: PublicIdentity

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 form."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls: type[_Model], data: bytes) -> _Model:
        """Read what ``to_bytes`` wrote.

        Raises:
          ConfigError: it is something else.
        """
        try:
            if len(data) > _MAX_BYTES:
                raise ValueError("too large")
            return cls.model_validate_json(data)
        except (ValidationError, ValueError):
            raise ConfigError(f"this is no {cls.__name__} file", "ask for it again") from None


class EnrolmentRequest(_File):
    """What a party hands to the authority: its public identity, and a signing request by each of its signing keys."""

    ed25519: str
    mldsa65: str

    @classmethod
    def of(cls, keys: PartyKeys) -> Self:
        """The request of a party; it proves that it holds both signing keys."""
        ed25519, mldsa65 = keys.signing_requests(_request(keys.public))
        return cls(identity=keys.public, ed25519=_pem(ed25519), mldsa65=_pem(mldsa65))

    def check(self) -> None:
        """Return only when both requests are of this identity and signed by its keys.

        Raises:
          ProtocolError: either is not.
        """
        for text, wanted in ((self.ed25519, self.identity.ed25519), (self.mldsa65, self.identity.mldsa65)):
            try:
                request = x509.load_pem_x509_csr(text.encode())
                is_own = _raw(request.public_key()) == wanted and request.is_signature_valid
                is_bound = request.subject == subject_of(self.identity) and _identifier(request) == digest_of(
                    self.identity
                )
            except _UNREADABLE:
                is_own = is_bound = False
            if not (is_own and is_bound):
                raise ProtocolError(
                    f"the request of {self.identity.name} is not signed by the keys that it names",
                    "let the party run fedhealth pki enroll again",
                )


class Certified(_File):
    """What the authority gives back: the identity with its two certificates."""

    ed25519: str
    mldsa65: str


@dataclass(frozen=True, slots=True)
class Trust:
    """The consortium's authority as a party knows it: its root certificate and its newest list of revocations."""

    root: x509.Certificate
    revoked: x509.CertificateRevocationList

    @classmethod
    def of(cls, root_pem: bytes, revoked_pem: bytes) -> Self:
        """Read root and list.

        Raises:
          ConfigError: the root is no self-signed ML-DSA-87 authority, or the list is not signed by it.
        """
        try:
            read_root(root_pem)
            root = x509.load_pem_x509_certificate(root_pem)
            revoked, key = x509.load_pem_x509_crl(revoked_pem), root.public_key()
            revoked.extensions.get_extension_for_class(x509.CRLNumber)
            is_own = revoked.issuer == root.subject
            is_sound = is_own and isinstance(key, MLDSA87PublicKey) and revoked.is_signature_valid(key)
        except (ConfigError, *_UNREADABLE):
            is_sound = False
        if not is_sound:
            raise ConfigError(
                "ca.pem and crl.pem are not those of one certificate authority",
                "take both from the consortium's authority and compare the fingerprint of ca.pem with it",
            )
        return cls(root, revoked)

    @property
    def list_number(self) -> int:
        """The number of the list of revocations: it only grows."""
        return self.revoked.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the root certificate, 32 bytes."""
        return self.root.fingerprint(SHA256())

    def check(self, roster: Roster, certificates: Sequence[x509.Certificate], now: datetime) -> None:
        """Return only when every party of a roster is certified at ``now`` (with its time zone).

        Raises:
          ProtocolError: parties (all of them are named) have no valid certificate for one of their signing keys or are
            revoked, or the list of revocations or the root is out of date.
        """
        until = self.revoked.next_update_utc
        if now < self.revoked.last_update_utc:
            raise ProtocolError("the list of revocations is of the future", "set this machine's clock")
        if until is None or now > until:
            raise ProtocolError(
                "the list of revocations is out of date", "take a new crl.pem from the authority"
            )
        if not _is_valid(self.root, now):
            raise ProtocolError("the authority's root is out of date", "ask the authority for a new ca.pem")
        by_identity: dict[bytes, list[x509.Certificate]] = {}
        for certificate in certificates:
            by_identity.setdefault(_identifier(certificate), []).append(certificate)
        found = (self._problem_of(each, by_identity.get(digest_of(each), []), now) for each in roster.parties)
        if problems := [problem for problem in found if problem]:
            raise ProtocolError(
                f"{', '.join(problems)} by the consortium's authority",
                "leave whoever is named out of the roster, or have it enrolled again",
            )

    def end_of(self, roster: Roster, certificates: Sequence[x509.Certificate]) -> datetime:
        """When the first certificate of a checked roster ends; of several for one key the one that lasts longest counts."""
        wanted = [
            (digest_of(party), key) for party in roster.parties for key in (party.ed25519, party.mldsa65)
        ]
        ends: dict[tuple[bytes, str], datetime] = {}
        for each in certificates:
            of = (_identifier(each), _raw(each.public_key()))
            ends[of] = max(ends.get(of, each.not_valid_after_utc), each.not_valid_after_utc)
        return min(ends[of] for of in wanted)

    def _problem_of(
        self, party: PublicIdentity, certificates: Iterable[x509.Certificate], now: datetime
    ) -> str | None:
        """What keeps a party from being certified, with its name; None if nothing does."""
        issued = [each for each in certificates if self._is_issued(each, party)]
        valid = [each for each in issued if _is_valid(each, now)]
        current = [
            each
            for each in valid
            if self.revoked.get_revoked_certificate_by_serial_number(each.serial_number) is None
        ]
        for wanted in (party.ed25519, party.mldsa65):
            if any(_raw(each.public_key()) == wanted for each in current):
                continue
            if any(_raw(each.public_key()) == wanted for each in valid):
                return f"{party.name} is revoked"
            ends = [each.not_valid_after_utc for each in issued if _raw(each.public_key()) == wanted]
            until = f" since {max(ends):%Y-%m-%d}" if ends and max(ends) < now else ""
            return f"{party.name} is not certified{until}"
        return None

    def _is_issued(self, certificate: x509.Certificate, party: PublicIdentity) -> bool:
        """Whether the authority issued a certificate to a party as the end of a chain."""
        try:
            certificate.verify_directly_issued_by(self.root)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except _UNREADABLE:
            return False
        names = {attribute.oid: attribute.value for attribute in certificate.subject}
        wanted = {attribute.oid: attribute.value for attribute in subject_of(party)}
        return not constraints.ca and all(names.get(oid) == value for oid, value in wanted.items())


def digest_of(identity: PublicIdentity) -> bytes:
    """The SHA-256 of an identity's canonical form, 32 bytes: what its certificates are bound to."""
    return sha256(identity.to_bytes()).digest()


def fingerprint(data: bytes) -> str:
    """Hex SHA-256 in groups of four, to be read over a telephone."""
    text = data.hex()
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def subject_of(identity: PublicIdentity) -> x509.Name:
    """The subject of a party's requests and certificates: its name, and its role as organisational unit."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, identity.role),
            x509.NameAttribute(NameOID.COMMON_NAME, identity.name),
        ]
    )


def read_root(data: bytes) -> tuple[str, bytes]:
    """The consortium's name and the fingerprint of a root certificate.

    Raises:
      ConfigError: it is no self-signed ML-DSA-87 authority.
    """
    try:
        root = x509.load_pem_x509_certificate(data)
        root.verify_directly_issued_by(root)
        constraints = root.extensions.get_extension_for_class(x509.BasicConstraints).value
        name = root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if constraints.ca and isinstance(root.public_key(), MLDSA87PublicKey) and name:
            return str(name[0].value), root.fingerprint(SHA256())
    except _UNREADABLE:
        pass
    raise ConfigError("this is no authority's certificate", "ask the authority for ca.pem")


def read_certificates(data: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file.

    Raises:
      ConfigError: it is none.
    """
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ConfigError(
            "certificates.pem is no file of certificates", "take it from the coordinator"
        ) from None


def _request(identity: PublicIdentity) -> x509.CertificateSigningRequestBuilder:
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject_of(identity))
        .add_extension(x509.SubjectKeyIdentifier(digest_of(identity)), critical=False)
    )


def _identifier(of: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """The subject key identifier; empty where there is none."""
    try:
        return of.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except _UNREADABLE:
        return b""


def _raw(key: object) -> str:
    """A signing key as identities write it; empty for a key of another kind."""
    return encode(key.public_bytes_raw()) if isinstance(key, Ed25519PublicKey | MLDSA65PublicKey) else ""


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(Encoding.PEM).decode()
