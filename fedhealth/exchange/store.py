"""The exchange: a bulletin board of immutable objects, the one way between the parties.

Safety never rests on the store: everything on it is signed, and one that lies, drops,
replays or reorders is found by its readers.
"""

import re
from pathlib import Path
from typing import Protocol

from fedhealth.errors import ConfigError, ProtocolError

MAX_KEY_CHARACTERS = 512
SEGMENT = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?"
"""A regular expression without look-ahead, which pydantic's do not have."""
_KEY = re.compile(rf"{SEGMENT}(?:/{SEGMENT})*\Z")
_PREFIX = re.compile(rf"(?:{SEGMENT}/)*(?:{SEGMENT})?\Z")


class Exchange(Protocol):
    """What every store must do; ``tests/contract`` holds both implementations to it."""

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``; storing the same bytes again does nothing.

        Raises:
          ProtocolError: other bytes are there already, or the key is not valid.
          TransportError: the store failed; may be retried.
        """

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Return the bytes under ``key``.

        Raises:
          MissingObjectError: nothing is there (yet).
          ProtocolError: more than ``max_bytes``, or the key is not valid.
          TransportError: the store failed; may be retried.
        """

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Return the keys that start with ``prefix``, sorted.

        Raises:
          ProtocolError: the prefix is not the beginning of a valid key.
          TransportError: the store failed; may be retried.
        """

    def exists(self, key: str) -> bool:
        """Tell whether something is under ``key``.

        Raises:
          ProtocolError: the key is not valid.
          TransportError: the store failed; may be retried.
        """


def check_key(key: str) -> str:
    """Return ``key`` when it is valid: segments of a-z 0-9 . _ - joined by slashes.

    A segment does not begin with a dot and holds no two dots in a row, so a key never
    leaves the folder that it is put in.

    Raises:
      ProtocolError: it is not valid, or longer than 512 characters.
    """
    if len(key) > MAX_KEY_CHARACTERS or not _KEY.match(key):
        raise ProtocolError("an exchange key is not valid", "use segments of a-z 0-9 . _ - joined by slashes")
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` when some valid key can start with it.

    Raises:
      ProtocolError: it cannot.
    """
    if len(prefix) > MAX_KEY_CHARACTERS or not _PREFIX.match(prefix):
        raise ProtocolError("an exchange prefix is not valid", "use the beginning of a key")
    return prefix


def different_bytes(key: str) -> ProtocolError:
    """Return the error for a put of other bytes under a key that is taken."""
    return ProtocolError(
        f"{key} is on the exchange with other content", "objects never change: use a new key"
    )


def too_large(key: str, max_bytes: int) -> ProtocolError:
    """Return the error for an object that is larger than its reader allows."""
    return ProtocolError(f"{key} is larger than {max_bytes} bytes", "ask its sender why, or raise the limit")


_HASTY = "?durable=no"


def hasty_url(folder: Path) -> str:
    """The URL of a folder whose objects are not flushed to the disk one by one.

    A killed process loses nothing; a power cut may lose the last objects. For runs on one machine, which can be
    repeated.
    """
    return f"file://{folder}{_HASTY}"


def open_exchange(url: str) -> Exchange:
    """Open the exchange that ``url`` names.

    Args:
      url: ``/a/folder``, ``file:///a/folder`` (with ``?durable=no``: see `hasty_url`) or ``s3://bucket/prefix``.

    Raises:
      ConfigError: an unknown kind of url.
    """
    if url.startswith("s3://"):
        from fedhealth.exchange.s3 import S3Exchange  # boto3 takes 0.3 s to import

        return S3Exchange.from_url(url)
    scheme, separator, rest = url.partition("://")
    if separator and scheme != "file":
        raise ConfigError(f"an exchange of kind {scheme} is not known", "use a folder or s3://bucket/prefix")
    from fedhealth.exchange.folder import FolderExchange

    folder = rest.removesuffix(_HASTY) if separator else url
    return FolderExchange(folder, durable=not (separator and rest.endswith(_HASTY)))
