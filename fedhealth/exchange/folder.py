"""An exchange in a folder: for one machine, or a file system that all parties mount."""

import os
import secrets
from pathlib import Path

from fedhealth.errors import ConfigError, MissingObjectError, TransportError
from fedhealth.exchange.store import check_key, check_prefix, different_bytes, too_large

_STAGING = ".staging"  # no valid key begins with a dot


class FolderExchange:
    """Objects as files: 0600 in 0700 folders, complete or absent, never overwritten.

    Guarantees: of two parties that put different bytes at once, one gets the error
    (``os.link`` fails when the name is taken); a reader never sees part of an object.
    """

    def __init__(self, root: str | Path, *, durable: bool = True) -> None:
        """Open the exchange in ``root``, which is made if needed.

        Args:
          root: the folder.
          durable: wait for the disk (fsync) on every put; False is for runs that are
            started again from nothing after a power cut.

        Raises:
          ConfigError: the folder cannot be made.
        """
        self.root = Path(root)
        self._durable = durable
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.root / _STAGING).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot use the folder {root} ({error.strerror})", "name a folder of your own"
            ) from None

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key`` (see ``Exchange.put``)."""
        path = self.root / check_key(key)
        if self._holds_same(path, key, data):
            return
        staged = self.root / _STAGING / secrets.token_hex(16)
        try:
            _make_private(path.parent)
            try:
                self._write(staged, data)
                os.link(staged, path)
            finally:
                staged.unlink(missing_ok=True)
            if self._durable:
                self._sync_folders(path.parent)
        except (FileExistsError, NotADirectoryError):
            if not self._holds_same(path, key, data):
                raise different_bytes(key) from None
        except OSError as error:
            raise _failed(error) from None

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Return the bytes under ``key`` (see ``Exchange.get``)."""
        path = self.root / check_key(key)
        try:
            with open(path, "rb") as file:
                if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
                    raise too_large(key, max_bytes)
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise MissingObjectError(f"{key} is not on the exchange", "wait for its sender") from None
        except OSError as error:
            raise _failed(error) from None

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Return the keys that start with ``prefix``, sorted (see ``Exchange.list``)."""
        start = self.root / check_prefix(prefix).rpartition("/")[0]
        found: list[str] = []
        for folder, folders, files in os.walk(start, onerror=_raise_unless_missing):
            folders[:] = [name for name in folders if not name.startswith(".")]
            within = Path(folder).relative_to(self.root)
            found.extend((within / name).as_posix() for name in files)
        return tuple(sorted(key for key in found if key.startswith(prefix)))

    def exists(self, key: str) -> bool:
        """Tell whether something is under ``key`` (see ``Exchange.exists``)."""
        try:
            return (self.root / check_key(key)).is_file()
        except OSError as error:
            raise _failed(error) from None

    def _holds_same(self, path: Path, key: str, data: bytes) -> bool:
        """Tell whether ``path`` has these bytes; raise when it has others."""
        try:
            if path.stat().st_size == len(data) and path.read_bytes() == data:
                return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _failed(error) from None
        raise different_bytes(key)

    def _write(self, path: Path, data: bytes) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            if self._durable:
                os.fsync(file.fileno())

    def _sync_folders(self, folder: Path) -> None:
        """Flush the new name, and the folders that may be new, up to the root."""
        while True:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            if folder == self.root:
                return
            folder = folder.parent


def _make_private(folder: Path) -> None:
    """Make a folder and its parents 0700 (``mkdir(parents=True)`` ignores the mode for parents)."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise _failed(error) from None


def _failed(error: OSError) -> TransportError:
    return TransportError(f"the exchange folder failed ({error.strerror})", "check space and permissions")
