"""E0: one 32-byte key per pair of sites and roster, hybrid X25519 + ML-KEM-768.

Of a pair i < j (by name) site i encapsulates to j's ML-KEM key; both add their static
X25519 secret:

    K_ij = HKDF-SHA256(X25519 || ML-KEM secret, info = label, H(roster), i, j, H(ciphertext))

The roster digest binds the public keys, so a relay that swaps one changes every key.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, NoReturn

import rfc8785
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, ValidationError

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity.encoding import decode, encode
from fedhealth.identity.key_files import create_private, damaged, private_folder, read_private
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import Roster

CIPHERTEXT_BYTES = 1088
PAIR_KEY_BYTES = 32


class _Ciphertexts(BaseModel):
    """The payload that a site posts under ``epochs/{roster}/kem/{site}``."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: Literal[1] = 1
    roster: str
    ciphertexts: dict[str, str]

    def to_bytes(self) -> bytes:
        return rfc8785.dumps(self.model_dump(mode="json"))


class _EpochFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    payload: str
    secrets: dict[str, str]


@dataclass(frozen=True, slots=True, repr=False)
class Encapsulation:
    """One site's half of E0.

    Attributes:
      payload: public; the ciphertexts for the later sites, to be posted.
      secrets: private; by peer, the 32 bytes that each ciphertext carries.
    """

    payload: bytes
    secrets: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Encapsulation(peers={sorted(self.secrets)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("encapsulated secrets never leave their process")


def encapsulate(keys: PartyKeys, roster: Roster) -> Encapsulation:
    """Draw a secret for every later site of ``roster``, sealed to its ML-KEM-768 key.

    Two calls give two different results: post one and keep it (``load_or_encapsulate``).

    Raises:
      ProtocolError: this party is not a site of the roster with these keys.
    """
    _check_member(keys, roster)
    secrets: dict[str, bytes] = {}
    ciphertexts: dict[str, str] = {}
    for peer in (site for site in roster.sites if site > keys.name):
        public = MLKEM768PublicKey.from_public_bytes(decode(roster.party(peer).mlkem768))
        secrets[peer], ciphertext = public.encapsulate()
        ciphertexts[peer] = encode(ciphertext)
    payload = _Ciphertexts(roster=roster.digest, ciphertexts=ciphertexts).to_bytes()
    return Encapsulation(payload, secrets)


def load_or_encapsulate(
    folder: Path, keys: PartyKeys, roster: Roster, *, passphrase: str | None = None
) -> Encapsulation:
    """Return the encapsulation of this roster, kept in the site's key ``folder`` (0600, sealed with a passphrase).

    Guarantees: it is on the disk before it can be posted, so a restarted site still
    knows the secrets of what it has posted.

    Raises:
      ConfigError: the file is damaged or open to others.
      ProtocolError: this party is not a site of the roster with these keys.
    """
    _check_member(keys, roster)
    private_folder(folder)
    path = folder / f"epoch-{roster.digest[:32]}.json"
    stored = read_private(path, _EpochFile, passphrase=passphrase)
    if stored is None:
        create_private(path, _epoch_file(encapsulate(keys, roster)), passphrase=passphrase)
        stored = read_private(path, _EpochFile, passphrase=passphrase)
    if stored is None:
        raise ConfigError(f"{path} vanished while it was made", "run it again")
    try:
        secrets = {peer: decode(secret) for peer, secret in stored.secrets.items()}
        payload = decode(stored.payload)
        is_whole = set(_read_ciphertexts(payload, keys.name, roster)) == set(secrets)
    except ProtocolError:
        raise damaged(path) from None
    if not is_whole or any(len(secret) != 32 for secret in secrets.values()):
        raise damaged(path)
    return Encapsulation(payload, secrets)


def pair_keys(
    keys: PartyKeys,
    roster: Roster,
    own: Encapsulation,
    payloads: Mapping[str, bytes],
    *,
    peers: Iterable[str] | None = None,
) -> dict[str, bytes]:
    """Return this site's 32-byte key with every peer.

    Guarantees: both ends of a pair compute the same key, and only they can; another
    roster, public key or ciphertext gives another key. ML-KEM rejects implicitly: a
    wrong ciphertext of the right size gives a key that nobody shares.

    Args:
      keys: this site's keys.
      roster: the pinned roster.
      own: what this site posted.
      payloads: by sender, the verified payloads of (at least) the earlier sites.
      peers: the sites to agree with; by default all others of the roster.

    Raises:
      ProtocolError: a payload is missing, malformed or for another roster, or a public
        key gives no secret.
    """
    _check_member(keys, roster)
    chosen = sorted(set(roster.sites if peers is None else peers) - {keys.name})
    mine = _read_ciphertexts(own.payload, keys.name, roster)
    result: dict[str, bytes] = {}
    for peer in chosen:
        if peer > keys.name:
            ciphertext, kem_secret = mine[peer], own.secrets[peer]
        else:
            if peer not in payloads:
                raise ProtocolError(f"{peer} posted no key material", "wait for it, or leave it out")
            ciphertext = _read_ciphertexts(payloads[peer], peer, roster)[keys.name]
            kem_secret = keys.mlkem768.decapsulate(ciphertext)
        result[peer] = _derive(keys, roster, peer, kem_secret, ciphertext)
    return result


def _check_member(keys: PartyKeys, roster: Roster) -> None:
    if keys.role != "site" or roster.party(keys.name) != keys.public:
        raise ProtocolError(
            f"{keys.name} is not a site of this roster with these keys", "pin the right roster"
        )


def _read_ciphertexts(payload: bytes, sender: str, roster: Roster) -> dict[str, bytes]:
    """Parse strictly: exactly the later sites of this roster, 1088 bytes each."""
    try:
        parsed = _Ciphertexts.model_validate_json(payload)
    except ValidationError:
        raise _bad(sender) from None
    found = {peer: decode(text) for peer, text in parsed.ciphertexts.items()}
    expected = {site for site in roster.sites if site > sender}
    if parsed.roster != roster.digest or set(found) != expected or parsed.to_bytes() != payload:
        raise _bad(sender)
    if any(len(ciphertext) != CIPHERTEXT_BYTES for ciphertext in found.values()):
        raise _bad(sender)
    return found


def _bad(sender: str) -> ProtocolError:
    return ProtocolError(
        f"the key material of {sender} does not fit this roster", f"leave {sender} out and ask why"
    )


def _derive(keys: PartyKeys, roster: Roster, peer: str, kem_secret: bytes, ciphertext: bytes) -> bytes:
    public = X25519PublicKey.from_public_bytes(decode(roster.party(peer).x25519))
    try:
        x25519_secret = keys.x25519.exchange(public)
    except ValueError:  # a point of small order
        raise _bad(peer) from None
    first, second = sorted((keys.name, peer))
    info = rfc8785.dumps(["fedhealth/e0/v1", roster.digest, first, second, sha256(ciphertext).hexdigest()])
    kdf = HKDF(algorithm=SHA256(), length=PAIR_KEY_BYTES, salt=None, info=info)
    return kdf.derive(x25519_secret + kem_secret)


def _epoch_file(drawn: Encapsulation) -> _EpochFile:
    secrets = {peer: encode(secret) for peer, secret in drawn.secrets.items()}
    return _EpochFile(payload=encode(drawn.payload), secrets=secrets)
