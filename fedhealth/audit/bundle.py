"""A released model's whole history in one file, to be verified by anybody, offline, without a server.

A zip file of

    model.json          the model's name and version, and its tags
    model/PATH          the registered version's files
    roster.json         the roster, signed by the coordinator
    exchange/KEY        the whole log, and every object of the run, its study and its roster

Equal histories give equal bytes. A masked upload is what it was on the exchange: it tells nobody anything.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fedhealth.audit.checkpoints import Checkpoint
from fedhealth.audit.log import Entry, entry_key
from fedhealth.audit.statements import INDEX_TAG, MAX_ENTRY_BYTES, entry_digest, open_statement
from fedhealth.audit.verify import AuditResult, Finding, released_from, verify_exchange
from fedhealth.errors import ConfigError, MissingObjectError, ProtocolError
from fedhealth.exchange.envelope import LIMITS
from fedhealth.exchange.store import Exchange, check_key, check_prefix, too_large
from fedhealth.identity.roster import Roster, SignedRoster

_OBJECTS, _MODEL = "exchange/", "model/"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAX_MODEL_BYTES = 1 << 32
_MAX_TEXT_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class BundleResult:
    """What verifying a bundle found.

    Attributes:
      model: name and version.
      run: the run that it came from, by the log; empty if nothing releases it.
      roster: hex digest of the roster that the history was checked against.
      audit: the findings; ``ok`` only if everything is proven.
    """

    model: str
    run: str
    roster: str
    audit: AuditResult


class _Packed:
    """The exchange in a bundle: it is only read."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        names = [name for name in archive.namelist() if name.startswith(_OBJECTS)]
        self._keys = {check_key(name.removeprefix(_OBJECTS)) for name in names}
        if len(self._keys) != len(names):
            raise ProtocolError("the bundle holds an object twice", "ask for it again")

    def put(self, key: str, data: bytes) -> None:
        """Nothing is put into a bundle."""
        raise ProtocolError("a bundle is only read", "export it again")

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes of an object."""
        if not self.exists(key):
            raise MissingObjectError(f"{key} is not in the bundle", "ask for it again")
        return _read(self._archive, _OBJECTS + key, max_bytes or LIMITS.max_bytes)

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """The keys that start with ``prefix``, sorted."""
        check_prefix(prefix)
        return tuple(sorted(key for key in self._keys if key.startswith(prefix)))

    def exists(self, key: str) -> bool:
        """Whether an object is there."""
        return check_key(key) in self._keys


def export_bundle(
    path: Path,
    exchange: Exchange,
    signed_roster: SignedRoster,
    *,
    model: str,
    files: Path,
    tags: Mapping[str, str],
) -> str:
    """Write the history of a released model to a new file; returns the run's id.

    Args:
      path: the zip file; whole or not at all.
      exchange: where the run was.
      signed_roster: of the run.
      model: name and version, such as ``readmission/1``.
      files: folder of the version's files.
      tags: the version's tags.

    Raises:
      ConfigError: no log entry releases the model, or the file is there already.
    """
    roster = signed_roster.verify()
    run = _run_of(exchange, roster, model, tags)
    told = {"model": model, "tags": dict(sorted(tags.items()))}
    if path.exists():
        raise ConfigError(f"{path} is there already", "name a new file")
    temporary = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            _add(archive, "model.json", json.dumps(told, sort_keys=True, indent=2).encode())
            _add(archive, "roster.json", signed_roster.to_bytes())
            for file in sorted(each for each in files.rglob("*") if each.is_file()):
                _add(archive, _MODEL + file.relative_to(files).as_posix(), file.read_bytes())
            for key in exchange.list():
                if _belongs(key, run, roster):
                    _add(archive, _OBJECTS + key, exchange.get(key))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return run


Check = Callable[[Exchange, Roster, str], tuple[Finding, ...]]
"""A further check of a run: of the exchange, its roster and the run's id."""


def verify_bundle(
    path: Path,
    *,
    expected_roster_digest: str | None = None,
    expected_checkpoint: Checkpoint | None = None,
    also: Check | None = None,
) -> BundleResult:
    """Check everything that a bundle holds; it may come from anybody.

    Guarantees: when ``audit.ok``, what `verify_exchange` guarantees for the log, for every object of the model's run, and for the
    model: it is the one that the log releases, with exactly its files and tags, and its weights are those that
    the manifest of the run's last round names. Nothing is written, and no file is read whole that says it is too large.

    Args:
      path: the zip file.
      expected_roster_digest: the roster's digest, from elsewhere; None trusts the bundle's.
      expected_checkpoint: a state of the log, from elsewhere.
      also: what else to check of the model's run, once all of this holds.

    Raises:
      ConfigError: it is no bundle, or is cut off or damaged.
    """
    try:
        with _opened(path) as archive:
            told = json.loads(_read(archive, "model.json", _MAX_TEXT_BYTES))
            model, tags = str(told["model"]), {str(k): str(v) for k, v in told["tags"].items()}
            signed = SignedRoster.from_bytes(_read(archive, "roster.json", _MAX_TEXT_BYTES))
            names = [name for name in archive.namelist() if name.startswith(_MODEL)]
            files = {
                name.removeprefix(_MODEL): sha256(_read(archive, name, _MAX_MODEL_BYTES)).hexdigest()
                for name in names
            }
            packed = _Packed(archive)
            audit = verify_exchange(
                packed,
                signed,
                expected_roster_digest=expected_roster_digest,
                model_files={model: files},
                model_tags={model: tags},
                expected_checkpoint=expected_checkpoint,
                only=model,
            )
            run = _run_of(packed, signed.roster, model, tags) if audit.ok else ""
            if run and also is not None:
                audit = audit.with_findings(also(packed, signed.roster, run))
    except (AttributeError, KeyError, TypeError, ValueError, ProtocolError):
        raise ConfigError(
            f"{path} is no bundle of a model's history", "make one with fedhealth audit export"
        ) from None
    return BundleResult(model, run, signed.roster.digest, audit)


def _run_of(exchange: Exchange, roster: Roster, model: str, tags: Mapping[str, str]) -> str:
    """The run that a released model came from, by the entry that its tags name."""
    try:
        index = int(tags[INDEX_TAG])
        data = exchange.get(entry_key(index), max_bytes=MAX_ENTRY_BYTES)
        entry = Entry(index, entry_digest(data), open_statement(data, roster=roster))
        run = released_from(entry) if entry.statement.predicate.get("model") == model else ""
    except (KeyError, ValueError, ProtocolError, MissingObjectError):
        run = ""
    if not run:
        raise ConfigError(f"no log entry releases {model}", "name a model that a finished run has registered")
    return run


def _belongs(key: str, run: str, roster: Roster) -> bool:
    return key.startswith(("log/", "studies/", f"epochs/{roster.digest}/", f"runs/{run}/"))


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)


def _opened(path: Path) -> zipfile.ZipFile:
    """The archive, whose list of files is at its end.

    Raises:
      ConfigError: it cannot be read, or has no such end.
    """
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror})", "name a bundle of fedhealth audit export"
        ) from None
    except _DAMAGE:
        with path.open("rb") as file:
            is_begun = file.read(4) == b"PK\3\4"
        if is_begun:
            raise _damaged(path) from None
        raise ValueError("no archive") from None


def _damaged(path: object, name: str = "") -> ConfigError:
    what = f"{path}: {name} is damaged" if name else f"{path} is cut off or damaged"
    return ConfigError(what, "copy the bundle again from where it was exported")


_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
"""What reading a damaged archive raises; RuntimeError of one that says it is encrypted or packed in an unknown way."""


def _read(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """A file of the archive, unless it is, or says that it is, too large.

    Raises:
      ConfigError: it is damaged.
      KeyError: there is none.
    """
    found = archive.getinfo(name)
    if found.file_size > max_bytes:
        raise too_large(name, max_bytes)
    if found.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _damaged(archive.filename, name)
    try:
        with archive.open(found) as file:
            data = file.read(max_bytes + 1)
    except _DAMAGE:
        raise _damaged(archive.filename, name) from None
    if len(data) > max_bytes:
        raise too_large(name, max_bytes)
    return data
