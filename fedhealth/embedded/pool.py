"""One operating-system process per site, forked from a clean server, alive for the whole study."""

import multiprocessing
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedhealth.config import Timeouts
from fedhealth.errors import FedHealthError, TransportError

PRELOAD = "fedhealth.embedded.preload"
_GRACE_S = 1.0
_THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "GX_ANALYTICS_ENABLED": "false",
}


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """What a site process is told: its own name and folder, and the exchange."""

    name: str
    folder: Path
    exchange: str
    derive_from_seed: int | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)


def start_forkserver() -> multiprocessing.context.ForkServerContext:
    """Start the clean process from which sites are forked; its imports run while the launcher goes on.

    Guarantees: no key and no thread exists in it before a fork; one computing thread per site.
    """
    os.environ.update(_THREADS)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    from multiprocessing import forkserver

    forkserver.ensure_running()
    return context


def _serve(connection: Connection, config: SiteConfig) -> None:
    """In the site's process, where everything is imported already; the launcher imports none of it."""
    from fedhealth.embedded.site_process import serve_site

    serve_site(connection, config)


@dataclass(slots=True)
class _Line:
    process: ForkServerProcess
    connection: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)


class SitePool:
    """The site processes. Close it to end them all."""

    def __init__(self, configs: Mapping[str, SiteConfig]) -> None:
        context = start_forkserver()
        self._lines: dict[str, _Line] = {}
        for name, config in sorted(configs.items()):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, config), name=name, daemon=True)
            process.start()
            theirs.close()
            self._lines[name] = _Line(process, ours)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, sorted."""
        return tuple(self._lines)

    def call(self, site: str, command: str, *arguments: Any) -> Any:
        """Run one command in a site's process and wait for what comes back.

        Raises:
          FedHealthError: what the site raised; its text holds no patient value.
          TransportError: the process has ended.
        """
        line = self._lines[site]
        with line.lock:
            try:
                line.connection.send((command, arguments))
                state, result = line.connection.recv()
            except (EOFError, OSError):
                raise TransportError(
                    f"the process of site {site} ended", "see site.log in the folder of that site"
                ) from None
        if isinstance(result, FedHealthError) and state == "error":
            raise result
        return result

    def kill(self, site: str) -> None:
        """End one site's process at once, as a power cut would."""
        self._lines[site].process.kill()

    def close(self) -> None:
        """End all site processes: one that waits for a command ends by itself, one at work is killed."""
        for line in self._lines.values():
            with suppress(OSError):
                line.connection.close()
        deadline = time.monotonic() + _GRACE_S
        for line in self._lines.values():
            line.process.join(timeout=max(0.0, deadline - time.monotonic()))
            line.process.kill()
            line.process.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
