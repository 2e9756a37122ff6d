"""The private half of a party. It stays in its own folder and in its own process."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509 import CertificateSigningRequest, CertificateSigningRequestBuilder
from pydantic import BaseModel, ConfigDict, ValidationError

from fedhealth.errors import ConfigError
from fedhealth.identity.encoding import PartyName, decode, encode, exactly, pae
from fedhealth.identity.key_files import create_private, damaged, private_folder, read_private
from fedhealth.identity.roster import ROSTER_TYPE, PublicIdentity, Role, Roster, SignedRoster
from fedhealth.identity.signatures import Signatures

KEYS_FILE = "keys.json"


class _KeyFile(BaseModel):
    """What is on the disk: seeds, and a digest of the public half that shows damage."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    schema_version: Literal[1] = 1
    name: PartyName
    role: Role
    ed25519: Annotated[str, exactly(32, "an Ed25519 seed")]
    mldsa65: Annotated[str, exactly(32, "an ML-DSA-65 seed")]
    x25519: Annotated[str, exactly(32, "an X25519 key")]
    mlkem768: Annotated[str, exactly(64, "an ML-KEM-768 seed")]
    public_digest: str


@dataclass(frozen=True, slots=True, repr=False)
class PartyKeys:
    """Private keys of one party, with what they are used for.

    Guarantees: never printed, copied or pickled; made from the operating system's
    randomness; a key file is read again, never replaced.
    """

    public: PublicIdentity
    _ed25519: Ed25519PrivateKey
    _mldsa65: MLDSA65PrivateKey
    x25519: X25519PrivateKey
    mlkem768: MLKEM768PrivateKey

    @property
    def name(self) -> str:
        """Name of the party."""
        return self.public.name

    @property
    def role(self) -> Role:
        """Role of the party."""
        return self.public.role

    def __repr__(self) -> str:
        return f"PartyKeys(name={self.name!r}, role={self.role!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys never leave their process")

    @classmethod
    def load_or_create(cls, folder: Path, *, name: str, role: Role, passphrase: str | None = None) -> Self:
        """Read the keys in ``folder``, or make them when there are none; sealed if there is a passphrase.

        Guarantees: ``folder`` is 0700 and ``keys.json`` 0600; of two processes that
        start at once both end with the same keys.

        Raises:
          ConfigError: the file is damaged, open to others, of another name or role, or under another passphrase.
        """
        private_folder(folder)
        path = folder / KEYS_FILE
        stored = read_private(path, _KeyFile, passphrase=passphrase)
        if stored is None:
            create_private(path, _new_key_file(name, role), passphrase=passphrase)
            stored = read_private(path, _KeyFile, passphrase=passphrase)
        if stored is None:
            raise ConfigError(f"{path} vanished while it was made", "run it again")
        if (stored.name, stored.role) != (name, role):
            raise ConfigError(
                f"{path} belongs to the {stored.role} {stored.name}, not to the {role} {name}",
                "give every party its own folder",
            )
        return cls._checked(path, stored)

    @classmethod
    def load(cls, folder: Path, *, passphrase: str | None = None) -> Self:
        """Read the keys in ``folder``, whoever's they are; nothing is made.

        Raises:
          ConfigError: there are none, or the file is damaged, open to others, or under another passphrase.
        """
        path = folder / KEYS_FILE
        stored = read_private(path, _KeyFile, passphrase=passphrase)
        if stored is None:
            raise ConfigError(f"{path} is missing", "make this party's keys with fedhealth pki enroll")
        return cls._checked(path, stored)

    @classmethod
    def _checked(cls, path: Path, stored: _KeyFile) -> Self:
        keys = cls._from_file(stored)
        if _digest(keys.public) != stored.public_digest:
            raise damaged(path)
        return keys

    @classmethod
    def _from_file(cls, stored: _KeyFile) -> Self:
        ed25519 = Ed25519PrivateKey.from_private_bytes(decode(stored.ed25519))
        mldsa65 = MLDSA65PrivateKey.from_seed_bytes(decode(stored.mldsa65))
        x25519 = X25519PrivateKey.from_private_bytes(decode(stored.x25519))
        mlkem768 = MLKEM768PrivateKey.from_seed_bytes(decode(stored.mlkem768))
        public = PublicIdentity(
            name=stored.name,
            role=stored.role,
            ed25519=encode(ed25519.public_key().public_bytes_raw()),
            mldsa65=encode(mldsa65.public_key().public_bytes_raw()),
            x25519=encode(x25519.public_key().public_bytes_raw()),
            mlkem768=encode(mlkem768.public_key().public_bytes_raw()),
        )
        return cls(public, ed25519, mldsa65, x25519, mlkem768)

    def sign(self, message: bytes) -> Signatures:
        """Sign ``message`` with both keys; callers pass a DSSE encoding or a signed note's text."""
        return Signatures(
            ed25519=encode(self._ed25519.sign(message)), mldsa65=encode(self._mldsa65.sign(message))
        )

    def signing_requests(
        self, builder: CertificateSigningRequestBuilder
    ) -> tuple[CertificateSigningRequest, CertificateSigningRequest]:
        """A certificate signing request by the Ed25519 key, and one by the ML-DSA-65 key."""
        return builder.sign(self._ed25519, None), builder.sign(self._mldsa65, None)

    def sign_roster(self, roster: Roster) -> SignedRoster:
        """Pin ``roster`` with the coordinator's signatures.

        Raises:
          ConfigError: this party is not the roster's coordinator.
        """
        if roster.party(roster.coordinator) != self.public:
            raise ConfigError(
                f"{self.name} is not the coordinator of this roster", "sign with its key folder"
            )
        return SignedRoster(roster=roster, signatures=self.sign(pae(ROSTER_TYPE, roster.to_bytes())))


def _digest(public: PublicIdentity) -> str:
    return sha256(public.to_bytes()).hexdigest()


def _new_key_file(name: str, role: Role) -> _KeyFile:
    """Draw four keys from the operating system's randomness."""
    try:
        draft = _KeyFile(
            name=name,
            role=role,
            ed25519=encode(Ed25519PrivateKey.generate().private_bytes_raw()),
            mldsa65=encode(MLDSA65PrivateKey.generate().private_bytes_raw()),
            x25519=encode(X25519PrivateKey.generate().private_bytes_raw()),
            mlkem768=encode(MLKEM768PrivateKey.generate().private_bytes_raw()),
            public_digest="",
        )
    except ValidationError:
        raise ConfigError(
            "a party's name or role is not valid", "use a-z 0-9 . _ - and the role coordinator or site"
        ) from None
    return draft.model_copy(update={"public_digest": _digest(PartyKeys._from_file(draft).public)})
