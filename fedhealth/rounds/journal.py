"""A site's durable memory of the sums it took part in.

Every record is on disk (fsync) before the message that depends on it leaves the site, so that a site killed
at any point answers with the same bytes, and never twice under one counter.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedhealth.errors import ProtocolError


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file atomically, readable by its owner only, on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
        if record.exists():
            stored = json.loads(record.read_bytes())
            if stored["plan"] != plan_digest:
                raise ProtocolError(
                    "the coordinator asked for a second sum under one counter",
                    "restart the run under a new run id",
                )
            return bytes.fromhex(stored["secrets"])
        if any(int(path.stem) > counter for path in record.parent.glob("[0-9]*.json")):
            raise ProtocolError(
                "the coordinator rolled its counter back", "restart the run under a new run id"
            )
        drawn = secrets()
        content = {"plan": plan_digest, "secrets": drawn.hex()}
        write_durably(record, json.dumps(content, sort_keys=True).encode())
        return drawn

    def say_once(self, *, run: str, plan_digest: str, step: str, statement: bytes) -> None:
        """Record the one statement that this site makes in a step of a plan.

        Guarantees: after two calls for one plan and step the statements were equal.

        Raises:
          ProtocolError: another statement was recorded before.
        """
        record = self._path(run, f"{step}-{plan_digest}")
        if not record.exists():
            write_durably(record, statement)
        elif record.read_bytes() != statement:
            raise ProtocolError(
                f"this site's {step} message changed since it was first made under this plan: the coordinator"
                " showed two lists of sites, or the site's rows changed",
                "restart the run under a new run id; tell the consortium if no rows changed",
            )

    def _path(self, run: str, name: str) -> Path:
        return self.folder / run / f"{name}.json"
