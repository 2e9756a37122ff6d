"""A site's durable memory of the sums it took part in.

Every record is on disk (fsync) before the message that depends on it leaves the site, so that a site killed
at any point answers with the same bytes, and never twice under one counter.
"""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedhealth.errors import ProtocolError


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file atomically, readable by its owner only, on disk when this returns."""
    staged = _staged(path, data)
    try:
        staged.replace(path)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def record_once(path: Path, data: bytes) -> bytes:
    """Write a file unless it stands already; returns what stands then.

    Guarantees: of two processes that write at a time one is first, and both get its bytes; they are on disk.
    """
    if not path.exists():
        staged = _staged(path, data)
        try:
            with suppress(FileExistsError):
                os.link(staged, path)
        finally:
            staged.unlink()
        _sync(path.parent)
    return path.read_bytes()


def _staged(path: Path, data: bytes) -> Path:
    """The bytes, whole and on disk, under another name beside ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.unlink(name)
        raise
    return Path(name)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class SiteJournal:
    """Records of one site, by plan digest, and one counter per run."""

    folder: Path

    def open_plan(self, *, run: str, counter: int, plan_digest: str, secrets: Callable[[], bytes]) -> bytes:
        """Give the secrets of a plan: journaled ones, or new ones journaled now.

        Guarantees: for one (run, counter) at most one plan digest is ever answered, and no counter below the
        highest answered one.

        Raises:
          ProtocolError: the counter is used or too low.
        """
        record = self._path(run, f"{counter:08d}")
        if not record.exists() and any(
            int(path.stem) > counter for path in record.parent.glob("[0-9]*.json")
        ):
            raise ProtocolError(
                "the coordinator rolled its counter back", "restart the run under a new run id"
            )
        content = {"plan": plan_digest, "secrets": secrets().hex()}
        stored = json.loads(record_once(record, json.dumps(content, sort_keys=True).encode()))
        if stored["plan"] != plan_digest:
            raise ProtocolError(
                "the coordinator asked for a second sum under one counter",
                "restart the run under a new run id",
            )
        return bytes.fromhex(stored["secrets"])

    def say_once(self, *, run: str, plan_digest: str, step: str, statement: bytes) -> None:
        """Record the one statement that this site makes in a step of a plan.

        Guarantees: after two calls for one plan and step the statements were equal.

        Raises:
          ProtocolError: another statement was recorded before.
        """
        if record_once(self._path(run, f"{step}-{plan_digest}"), statement) != statement:
            raise ProtocolError(
                f"this site's {step} message changed since it was first made under this plan: the coordinator"
                " showed two lists of sites, or the site's rows changed",
                "restart the run under a new run id; tell the consortium if no rows changed",
            )

    def hear_once(self, *, run: str, plan_digest: str, phase: str, listed: bytes) -> None:
        """Record the one list of a phase that this site goes by: whose objects count, by digest.

        Guarantees: after two calls for one plan and phase the lists were equal. A peer that was restored from an old
        snapshot, and so made other objects, cannot be summed with this site a second time.

        Raises:
          ProtocolError: another list was recorded before.
        """
        if record_once(self._path(run, f"list-{phase}-{plan_digest}"), listed) != listed:
            raise ProtocolError(
                f"the coordinator showed this site two lists of sites in phase {phase} of one plan",
                "report it to the consortium; nothing was said a second time",
            )

    def _path(self, run: str, name: str) -> Path:
        return self.folder / run / f"{name}.json"
