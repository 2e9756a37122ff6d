"""Files that hold private bytes: 0600 in a 0700 folder, written once, whole or not at all.

Under a passphrase a file's content is sealed: scrypt (RFC 7914) to a key, ChaCha20-Poly1305 with the file's name bound.
"""

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import BaseModel, ConfigDict, ValidationError

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity.encoding import decode, encode, exactly

_Model = TypeVar("_Model", bound=BaseModel)
_MAX_BYTES = 1 << 20
PASSPHRASE = "FEDHEALTH_KEY_PASSPHRASE"
"""The environment variable from which processes take the passphrase of their private files."""


def private_folder(folder: Path) -> None:
    """Make ``folder`` one that only this user can enter.

    Guarantees: afterwards its mode is 0700. A missing or empty folder is made so; one
    with content that others may read is refused, as it may hold something else.

    Raises:
      ConfigError: not a folder, not ours, or readable by others and not empty.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
        if stat.S_IMODE(info.st_mode) & 0o077:
            if info.st_uid != os.getuid() or any(folder.iterdir()):
                raise ConfigError(f"others can read the key folder {folder}", f"chmod 700 {folder}")
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"cannot use the key folder {folder} ({error.strerror})", "choose a folder of your own"
        ) from None


def read_private(
    path: Path, model: type[_Model], *, passphrase: str | None = None, variable: str = PASSPHRASE
) -> _Model | None:
    """Read a private file strictly; None when there is none.

    Args:
      path: of the file.
      model: what must be in it.
      passphrase: under which it is sealed; None if it is not.
      variable: where the passphrase comes from, for errors.

    Raises:
      ConfigError: a link, readable by others, or not exactly the expected fields; the passphrase is wrong or
        missing, or is given for a file that is not sealed.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror})", "make it a plain file of your own"
        ) from None
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or stat.S_IMODE(info.st_mode) & 0o077:
            raise ConfigError(f"others can read {path}", f"chmod 600 {path}, and consider new keys")
        data = file.read(_MAX_BYTES + 1)
    try:
        return model.model_validate_json(_opened(path, data, passphrase, variable))
    except ValidationError:
        raise damaged(path) from None


def damaged(path: Path) -> ConfigError:
    """Return the error for a private file whose content cannot be right."""
    return ConfigError(
        f"{path} is damaged or not complete", "restore it from a backup, or move it away and enrol again"
    )


def create_private(path: Path, content: BaseModel, *, passphrase: str | None = None) -> bool:
    """Write a private file that does not exist yet; False when somebody was faster.

    Guarantees: after True the whole file is on the disk; an existing file is never
    touched, and a crash leaves either the whole file or none.

    Raises:
      ConfigError: the folder cannot be written.
    """
    try:
        data = content.model_dump_json().encode()
        _write(path, data if passphrase is None else _sealed(path, data, passphrase), 0o600, os.link)
    except FileExistsError:
        return False
    except OSError as error:
        raise _unwritten(path, error) from None
    return True


def write_private(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file, or replace it, whole or not at all.

    Raises:
      ConfigError: the folder cannot be written.
    """
    try:
        _write(path, data, mode, os.replace)
    except OSError as error:
        raise _unwritten(path, error) from None


class _Sealed(BaseModel):
    """A sealed file: the salt of scrypt, the nonce, and the sealed content, as base64url."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    sealed: Literal["scrypt-chacha20poly1305"] = "scrypt-chacha20poly1305"
    salt: Annotated[str, exactly(16, "a salt")]
    nonce: Annotated[str, exactly(12, "a nonce")]
    content: str


def _sealed(path: Path, data: bytes, passphrase: str) -> bytes:
    salt, nonce = os.urandom(16), os.urandom(12)
    content = ChaCha20Poly1305(_stretched(passphrase, salt)).encrypt(nonce, data, path.name.encode())
    return _Sealed(salt=encode(salt), nonce=encode(nonce), content=encode(content)).model_dump_json().encode()


def _opened(path: Path, data: bytes, passphrase: str | None, variable: str) -> bytes:
    try:
        found = _Sealed.model_validate_json(data)
    except ValidationError:
        if passphrase is not None:
            raise ConfigError(
                f"{path} is not under a passphrase", f"unset {variable}, or make new keys with it"
            ) from None
        return data
    if passphrase is None:
        raise ConfigError(f"{path} is under a passphrase", f"set {variable} for this process")
    key = ChaCha20Poly1305(_stretched(passphrase, decode(found.salt)))
    try:
        return key.decrypt(decode(found.nonce), decode(found.content), path.name.encode())
    except (InvalidTag, ProtocolError):
        raise ConfigError(f"{path} cannot be opened", f"set {variable} to its passphrase") from None


def _stretched(passphrase: str, salt: bytes) -> bytes:
    """32 bytes that cost an attacker 64 MiB and about a fifth of a second a guess."""
    return Scrypt(salt=salt, length=32, n=2**16, r=8, p=1).derive(passphrase.encode())


def _write(path: Path, data: bytes, mode: int, put: Callable[[Path, Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _unwritten(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {path} ({error.strerror})", "check space and permissions")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
