"""The consortium's certificate authority: an ML-DSA-87 root in a folder of its own, what it issued and what it revoked.

ca.pem           root certificate: what every party pins
ca-key.pem       its private key, PKCS #8, under a passphrase if one was given; 0600
register.json    what was issued to whom, and what was revoked
crl.pem          the list of revocations, good for `LIST_DAYS`
issued/NAME.json the identity and certificates of a party
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedhealth.errors import ConfigError, PolicyError
from fedhealth.identity.certificates import Certified, EnrolmentRequest, digest_of, subject_of
from fedhealth.identity.encoding import PartyName, decode
from fedhealth.identity.key_files import private_folder, write_private
from fedhealth.identity.roster import PublicIdentity, Role

LIST_DAYS = 30
"""How long a list of revocations is good: a party that gets no newer one by then stops."""

Reason = Literal["key_compromise", "cessation_of_operation", "superseded", "privilege_withdrawn"]
_FLAGS: dict[str, x509.ReasonFlags] = {
    "key_compromise": x509.ReasonFlags.key_compromise,
    "cessation_of_operation": x509.ReasonFlags.cessation_of_operation,
    "superseded": x509.ReasonFlags.superseded,
    "privilege_withdrawn": x509.ReasonFlags.privilege_withdrawn,
}
_KEY_USAGE = dict.fromkeys(
    (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


class Revocation(BaseModel):
    """When a certificate was revoked, and why."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    at: datetime
    reason: Reason


class Issued(BaseModel):
    """Two certificates of a party: their serial numbers, how long they are good, and whether they were revoked."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: PartyName
    role: Role
    identity: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    serials: tuple[str, str]
    not_after: datetime
    revoked: Revocation | None = None


class _Register(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: Literal[1] = 1
    list_number: int = 0
    issued: tuple[Issued, ...] = ()


@dataclass(slots=True, repr=False)
class Authority:
    """A certificate authority that is open: its private key is in memory and goes nowhere else."""

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
            raise ConfigError(
                "a consortium's name has 1 to 64 characters", "choose another --consortium"
            ) from None
        root = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, None)
        )
        protection: KeySerializationEncryption = NoEncryption()
        if passphrase is not None:
            protection = BestAvailableEncryption(passphrase.encode())
        write_private(folder / "ca-key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
        write_private(folder / "ca.pem", root.public_bytes(Encoding.PEM), mode=0o644)
        authority = cls(folder, root, key, _Register())
        authority.publish(now)
        return authority

    @classmethod
    def open(cls, folder: Path, *, passphrase: str | None) -> Self:
        """Read an authority.

        Raises:
          ConfigError: there is none, a file is damaged, or the passphrase is wrong.
        """
        try:
            root = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            register = _Register.model_validate_json((folder / "register.json").read_bytes())
            data = (folder / "ca-key.pem").read_bytes()
        except (OSError, ValueError, ValidationError):
            raise ConfigError(f"{folder} holds no authority", "make one with fedhealth pki init") from None
        try:
            key = load_pem_private_key(data, None if passphrase is None else passphrase.encode())
        except (TypeError, ValueError):
            raise ConfigError(
                "the authority's key cannot be opened", "set FEDHEALTH_CA_PASSPHRASE to its passphrase"
            ) from None
        if not isinstance(key, MLDSA87PrivateKey) or key.public_key() != root.public_key():
            raise ConfigError("ca-key.pem is not the key of ca.pem", "restore both from one backup")
        return cls(folder, root, key, register)

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
          PolicyError: the name, or the only coordinator's place, is taken by other keys that are not revoked; or the
            same keys were revoked.
        """
        request.check()
        identity, digest = request.identity, digest_of(request.identity).hex()
        for each in self.issued:
            if each.identity == digest and each.revoked is not None:
                raise PolicyError(f"these keys of {each.name} were revoked", "enroll with new keys")
            if each.name == identity.name and each.identity != digest and each.revoked is None:
                raise PolicyError(
                    f"{each.name} is certified with other keys",
                    f"fedhealth pki revoke {self.folder} {each.name}",
                )
        keys = (
            Ed25519PublicKey.from_public_bytes(decode(identity.ed25519)),
            MLDSA65PublicKey.from_public_bytes(decode(identity.mldsa65)),
        )
        leaves = [self._leaf(identity, key, now, now + timedelta(days=days)) for key in keys]
        pems = [leaf.public_bytes(Encoding.PEM).decode() for leaf in leaves]
        certified = Certified(identity=identity, ed25519=pems[0], mldsa65=pems[1])
        entry = Issued(
            name=identity.name,
            role=identity.role,
            identity=digest,
            serials=(str(leaves[0].serial_number), str(leaves[1].serial_number)),
            not_after=leaves[0].not_valid_after_utc,
        )
        self._keep(self._register.model_copy(update={"issued": (*self.issued, entry)}))
        (self.folder / "issued").mkdir(mode=0o700, exist_ok=True)
        write_private(self.folder / "issued" / f"{identity.name}.json", certified.to_bytes(), mode=0o644)
        return certified

    def revoke(self, name: str, *, reason: Reason, now: datetime) -> int:
        """Revoke all certificates of a party and publish the list; returns how many were revoked now.

        Raises:
          ConfigError: nothing is certified under this name.
        """
        mine = [each for each in self.issued if each.name == name and each.revoked is None]
        if not mine:
            raise ConfigError(f"nothing of {name} is certified", f"see fedhealth pki show {self.folder}")
        told = Revocation(at=now, reason=reason)
        issued = tuple(
            each.model_copy(update={"revoked": told}) if each in mine else each for each in self.issued
        )
        self._keep(self._register.model_copy(update={"issued": issued}))
        self.publish(now)
        return 2 * len(mine)

    def publish(self, now: datetime) -> None:
        """Publish the list of revocations anew, good for `LIST_DAYS`."""
        number = self._register.list_number + 1
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.root.subject)
            .last_update(now)
            .next_update(now + timedelta(days=LIST_DAYS))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for each in self.issued:
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
        self._keep(self._register.model_copy(update={"list_number": number}))
        listed = builder.sign(self._key, None)
        write_private(self.folder / "crl.pem", listed.public_bytes(Encoding.PEM), mode=0o644)

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
            .not_valid_before(start)
            .not_valid_after(min(end, self.root.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier(digest_of(identity)), critical=False)
            .sign(self._key, None)
        )

    def _keep(self, register: _Register) -> None:
        write_private(self.folder / "register.json", register.model_dump_json(indent=2).encode())
        self._register = register


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        **_KEY_USAGE,
    )
