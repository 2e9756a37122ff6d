"""The consortium's certificate authority: an ML-DSA-87 root in a folder of its own, what it issued and what it revoked.

ca.pem           root certificate: what every party pins
ca-key.json      its private key, sealed under a passphrase if one was given; 0600
register.json    what was issued to whom, and what was revoked
crl.pem          the list of revocations, good for `LIST_DAYS`
issued/NAME.json the identity and certificates of a party
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey, MLDSA87PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, Field

from fedhealth.config import RevocationReason
from fedhealth.errors import ConfigError, PolicyError
from fedhealth.identity.certificates import Certified, EnrolmentRequest, digest_of, subject_of
from fedhealth.identity.encoding import PartyName, decode, encode, exactly
from fedhealth.identity.key_files import create_private, private_folder, read_private, write_private
from fedhealth.identity.roster import PublicIdentity, Role

PASSPHRASE = "FEDHEALTH_CA_PASSPHRASE"
"""The environment variable with the passphrase of an authority's key."""
LIST_DAYS = 30
"""How long a list of revocations is good: a party that gets no newer one by then stops."""
SLACK = timedelta(hours=1)
"""How far clocks may be apart: certificates and lists begin so much before they are made."""

_ROOT, _KEY, _REGISTER, _LIST, _ISSUED = "ca.pem", "ca-key.json", "register.json", "crl.pem", "issued"
_STRICT = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)
_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_FLAGS: dict[RevocationReason, x509.ReasonFlags] = {
    "key_compromise": x509.ReasonFlags.key_compromise,
    "cessation_of_operation": x509.ReasonFlags.cessation_of_operation,
    "superseded": x509.ReasonFlags.superseded,
    "privilege_withdrawn": x509.ReasonFlags.privilege_withdrawn,
}


class Revocation(BaseModel):
    """When a party's certificates were revoked, and why."""

    model_config = _STRICT

    at: datetime
    reason: RevocationReason


class Issued(BaseModel):
    """Two certificates of a party.

    Attributes:
      name, role: of the party.
      identity: hex SHA-256 of its public identity; ``keys``: of its Ed25519 and its ML-DSA-65 key.
      serials: of the two certificates, in decimal.
      not_after: when they end.
      revoked: None as long as they are not.
    """

    model_config = _STRICT

    name: PartyName
    role: Role
    identity: _Hash
    keys: tuple[_Hash, _Hash]
    serials: tuple[str, str]
    not_after: datetime
    revoked: Revocation | None = None


class _Register(BaseModel):
    model_config = _STRICT

    schema_version: Literal[1] = 1
    list_number: int = 0
    issued: tuple[Issued, ...] = ()


class _RootKey(BaseModel):
    model_config = _STRICT

    mldsa87: Annotated[str, exactly(32, "an ML-DSA-87 seed")]


@dataclass(slots=True, repr=False)
class Authority:
    """A certificate authority that is open: its private key is in memory and goes nowhere else.

    Guarantees: what changes the register holds the folder alone and starts from what is on the disk, so that processes beside
    each other lose nothing; a list of revocations that a kill kept back is published by the next that changes anything.
    """

    folder: Path
    root: x509.Certificate
    _key: MLDSA87PrivateKey
    _register: _Register

    @classmethod
    def create(
        cls, folder: Path, *, consortium: str, passphrase: str | None, now: datetime, days: int = 3650
    ) -> Self:
        """Make an authority in a new or empty folder.

        Args:
          folder: afterwards 0700.
          consortium: the consortium's name, in the root's subject.
          passphrase: of the private key; None leaves it to the file's permissions.
          now: the time, with its zone.
          days: how long the root is good.

        Raises:
          ConfigError: the folder holds something already, or the name is empty or too long.
        """
        private_folder(folder)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", "name a new folder for the authority")
        key = MLDSA87PrivateKey.generate()
        try:
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, consortium)])
        except ValueError:
            raise ConfigError("a consortium's name has 1 to 64 characters", "choose another name") from None
        root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SLACK)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, None)
        )
        create_private(
            folder / _KEY, _RootKey(mldsa87=encode(key.private_bytes_raw())), passphrase=passphrase
        )
        authority = cls(folder, root, key, _Register())
        authority._publish((), now)
        write_private(folder / _ROOT, root.public_bytes(Encoding.PEM), mode=0o644)  # last: now it is whole
        return authority

    @classmethod
    def open(cls, folder: Path, *, passphrase: str | None) -> Self:
        """Read an authority.

        Raises:
          ConfigError: there is none, a file is damaged, or the passphrase is wrong.
        """
        if not (folder / _ROOT).exists():
            raise ConfigError(f"{folder} holds no authority", "make one with fedhealth pki init")
        stored = read_private(folder / _KEY, _RootKey, passphrase=passphrase, variable=PASSPHRASE)
        try:
            root = x509.load_pem_x509_certificate((folder / _ROOT).read_bytes())
        except (OSError, ValueError):
            raise _damaged(folder / _ROOT) from None
        key = None if stored is None else MLDSA87PrivateKey.from_seed_bytes(decode(stored.mldsa87))
        if key is None or key.public_key() != root.public_key():
            raise ConfigError(f"{_KEY} is not the key of {_ROOT}", "restore both from one backup")
        return cls(folder, root, key, _read_register(folder))

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the root certificate, 32 bytes: what parties compare."""
        return self.root.fingerprint(SHA256())

    @property
    def issued(self) -> tuple[Issued, ...]:
        """What was issued, oldest first."""
        return self._register.issued

    def sign(self, request: EnrolmentRequest, *, now: datetime, days: int = 365) -> Certified:
        """Certify a party, or certify it again before its certificates end.

        Raises:
          ProtocolError: the request is not signed by the keys that it names.
          PolicyError: the name, a key, or the only coordinator's place is taken by an identity that is not revoked; or
            one of the keys was revoked.
        """
        request.check()
        with self._alone(now):
            self._refuse_taken(request.identity)
            return self._certify(request.identity, now, now + timedelta(days=days))

    def revoke(self, name: str, *, reason: RevocationReason, now: datetime) -> int:
        """Revoke all certificates of a party and publish the list; returns how many were revoked now, 0 if all were before.

        Raises:
          ConfigError: nothing was ever certified under this name.
        """
        with self._alone(now):
            mine = [each for each in self.issued if each.name == name]
            if not mine:
                raise ConfigError(f"nothing of {name} is certified", f"see fedhealth pki show {self.folder}")
            told = Revocation(at=now, reason=reason)
            current = [each for each in mine if each.revoked is None]
            if current:
                issued = [
                    each.model_copy(update={"revoked": told}) if each in current else each
                    for each in self.issued
                ]
                self._publish(tuple(issued), now)
            (self.folder / _ISSUED / f"{name}.json").unlink(missing_ok=True)
            return 2 * len(current)

    def publish(self, now: datetime) -> None:
        """Publish the list of revocations anew, good for `LIST_DAYS`."""
        with self._alone(now):
            self._publish(self.issued, now)

    def published(self) -> tuple[int, datetime]:
        """Number and end of the list in the folder; 0 without one."""
        try:
            found = x509.load_pem_x509_crl((self.folder / _LIST).read_bytes())
            number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            return number, found.next_update_utc or found.last_update_utc
        except (OSError, ValueError, x509.ExtensionNotFound):
            return 0, self.root.not_valid_before_utc

    @contextmanager
    def _alone(self, now: datetime) -> Iterator[None]:
        """Hold the folder, and read what other processes did to it."""
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._register = _read_register(self.folder)
            if self._register.list_number > self.published()[0]:  # killed in between
                self._publish(self.issued, now)
            yield

    def _refuse_taken(self, identity: PublicIdentity) -> None:
        digest, keys = digest_of(identity).hex(), _hashes(identity)
        for each in self.issued:
            has_key = bool(set(each.keys) & set(keys))
            if each.revoked is not None and has_key:
                raise PolicyError(
                    f"keys of {each.name} that were revoked are asked for",
                    "let it move keys/keys.json (that file alone) away and enroll again",
                )
            is_taken = has_key or each.name == identity.name or each.role == identity.role == "coordinator"
            if each.revoked is None and is_taken and each.identity != digest:
                raise PolicyError(
                    f"the {each.role} {each.name} is certified already, with other keys or as another party",
                    f"fedhealth pki revoke {self.folder} {each.name}",
                )

    def _certify(self, identity: PublicIdentity, start: datetime, end: datetime) -> Certified:
        keys = (
            Ed25519PublicKey.from_public_bytes(decode(identity.ed25519)),
            MLDSA65PublicKey.from_public_bytes(decode(identity.mldsa65)),
        )
        ed25519, mldsa65 = (self._leaf(identity, key, start, end) for key in keys)
        entry = Issued(
            name=identity.name,
            role=identity.role,
            identity=digest_of(identity).hex(),
            keys=_hashes(identity),
            serials=(str(ed25519.serial_number), str(mldsa65.serial_number)),
            not_after=ed25519.not_valid_after_utc,
        )
        self._keep(self._register.model_copy(update={"issued": (*self.issued, entry)}))
        certified = Certified(
            identity=identity,
            ed25519=ed25519.public_bytes(Encoding.PEM).decode(),
            mldsa65=mldsa65.public_bytes(Encoding.PEM).decode(),
        )
        (self.folder / _ISSUED).mkdir(mode=0o700, exist_ok=True)
        write_private(self.folder / _ISSUED / f"{identity.name}.json", certified.to_bytes(), mode=0o644)
        return certified

    def _publish(self, issued: tuple[Issued, ...], now: datetime) -> None:
        """Keep what was issued and revoked, and write the list."""
        number = self._register.list_number + 1
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.root.subject)
            .last_update(now - SLACK)
            .next_update(now + timedelta(days=LIST_DAYS))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for each in issued:
            if each.revoked is None:
                continue
            for serial in each.serials:
                builder = builder.add_revoked_certificate(
                    x509.RevokedCertificateBuilder()
                    .serial_number(int(serial))
                    .revocation_date(each.revoked.at)
                    .add_extension(x509.CRLReason(_FLAGS[each.revoked.reason]), critical=False)
                    .build()
                )
        self._keep(self._register.model_copy(update={"list_number": number, "issued": issued}))
        listed = builder.sign(self._key, None)
        write_private(self.folder / _LIST, listed.public_bytes(Encoding.PEM), mode=0o644)

    def _leaf(
        self,
        identity: PublicIdentity,
        key: Ed25519PublicKey | MLDSA65PublicKey,
        start: datetime,
        end: datetime,
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(subject_of(identity))
            .issuer_name(self.root.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - SLACK)
            .not_valid_after(min(end, self.root.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier(digest_of(identity)), critical=False)
            .sign(self._key, None)
        )

    def _keep(self, register: _Register) -> None:
        write_private(self.folder / _REGISTER, register.model_dump_json(indent=2).encode())
        self._register = register


def _read_register(folder: Path) -> _Register:
    try:
        return _Register.model_validate_json((folder / _REGISTER).read_bytes())
    except (OSError, ValueError):
        raise _damaged(folder / _REGISTER) from None


def _damaged(path: Path) -> ConfigError:
    return ConfigError(f"{path} is missing or damaged", "restore the authority's folder from a backup")


def _hashes(identity: PublicIdentity) -> tuple[str, str]:
    """Hex SHA-256 of the two signing keys."""
    ed25519, mldsa65 = (sha256(decode(key)).hexdigest() for key in (identity.ed25519, identity.mldsa65))
    return ed25519, mldsa65


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
