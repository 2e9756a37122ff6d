"""E0: one 32-byte key that all sites of a roster share and the coordinator does not have, for the tags of exact sums.

The first site by name draws it and seals it to each other under their pair key. It could give sites different keys: then no
tag fits, and rounds stop; nothing is told by that.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import rfc8785
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, ValidationError

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity.encoding import decode, encode
from fedhealth.identity.key_files import create_private, read_private
from fedhealth.identity.roster import Roster

_NONCE = bytes(12)
"""Each sealing key is for one message of one roster."""


class _Sealed(BaseModel):
    """What the first site posts under ``epochs/{roster}/tag/{site}``: by receiver the sealed key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: Literal[1] = 1
    roster: str
    sealed: dict[str, str]


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    key: str


def holder(roster: Roster) -> str:
    """The site that draws the key."""
    return roster.sites[0]


def load_or_draw(folder: Path, roster: Roster, *, passphrase: str | None = None) -> bytes:
    """The key of this roster, kept in the first site's key ``folder`` (0600, sealed with a passphrase), drawn once.

    Raises:
      ConfigError: the file is damaged or open to others.
    """
    path = folder / f"tag-{roster.digest[:32]}.json"
    create_private(path, _KeyFile(key=encode(os.urandom(32))), passphrase=passphrase)
    stored = read_private(path, _KeyFile, passphrase=passphrase)
    if stored is None:
        raise ConfigError(f"{path} vanished while it was made", "run it again")
    return decode(stored.key)


def seal_for_all(key: bytes, roster: Roster, pair_keys: Mapping[str, bytes]) -> bytes:
    """What the first site posts; the same key and roster give the same bytes."""
    sealed = {
        peer: encode(AESGCM(_sealing_key(pair, roster, peer)).encrypt(_NONCE, key, roster.digest.encode()))
        for peer, pair in pair_keys.items()
    }
    return rfc8785.dumps(_Sealed(roster=roster.digest, sealed=sealed).model_dump(mode="json"))


def open_sealed(payload: bytes, roster: Roster, *, site: str, pair_key: bytes) -> bytes:
    """The key as another site reads it.

    Args:
      payload: of the first site, its signature verified.
      roster: the pinned roster.
      site: this site.
      pair_key: that of this site and the first.

    Raises:
      ProtocolError: malformed, of another roster, or not sealed to this site.
    """
    try:
        told = _Sealed.model_validate_json(payload)
        sealed = decode(told.sealed[site])
        key = AESGCM(_sealing_key(pair_key, roster, site)).decrypt(_NONCE, sealed, roster.digest.encode())
    except (ValidationError, KeyError, InvalidTag, ProtocolError):
        key = b""
    if len(key) != 32:
        raise ProtocolError(
            f"{holder(roster)} sealed no tag key to {site}", f"ask {holder(roster)} to enrol again"
        )
    return key


def _sealing_key(pair_key: bytes, roster: Roster, receiver: str) -> bytes:
    info = rfc8785.dumps(["fedhealth/e0/tag/v1", roster.digest, holder(roster), receiver])
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(pair_key)
