"""Prefect for one working directory: its temporary server, with its own home, started before Prefect is imported.

When PREFECT_API_URL is set, that server is used and nothing is started.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

from fedhealth.errors import ConfigError, TransportError

START_TIMEOUT_S = 90.0
KEEP_ALIVE_S = 75
"""Longer than the 5 s for which Prefect's client keeps an idle connection.

At Prefect's own 5 s a server may close the connection that a request is just being sent on, and the client sleeps
two seconds before it asks again: every seventh second of a run was lost to that.
"""
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "5",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
}
"""Quiet, and seldom writing: of two that write at a time SQLite refuses one, and its client sleeps two seconds."""


@dataclass(slots=True)
class PrefectServer:
    """A server on its way up; ``wait`` returns when it answers."""

    url: str
    process: subprocess.Popen[bytes] | None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to talk to this server."""
        return {
            name: os.environ[name]
            for name in ("PREFECT_HOME", "PREFECT_API_URL", *_QUIET)
            if name in os.environ
        }

    def wait(self) -> None:
        """Return when the server is healthy.

        Raises:
          TransportError: it did not come up.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                break
            if _is_healthy(self.url):
                return
            time.sleep(0.1)
        raise TransportError(
            "the Prefect server did not start", "see prefect/server.log in the working directory"
        )


@contextmanager
def prefect_server(home: Path) -> Iterator[PrefectServer]:
    """Start (or find) the Prefect server of a working directory and point this process at it.

    Guarantees: PREFECT_HOME lies in the working directory; the server started here ends with the block.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        yield PrefectServer(configured, None)
        return
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    port = server_port()
    os.environ |= {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    command += ["--timeout-keep-alive", str(KEEP_ALIVE_S)]
    environment = os.environ | {"PREFECT_UI_API_URL": os.environ["PREFECT_API_URL"]}
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield PrefectServer(os.environ["PREFECT_API_URL"], process)
    finally:
        for name in ("PREFECT_API_URL", "PREFECT_HOME"):
            os.environ.pop(name, None)
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def server_port() -> int:
    """The port of PREFECT_SERVER_API_PORT, else any on which nothing listens now.

    Raises:
      ConfigError: that port is in use.
    """
    wanted = os.environ.get("PREFECT_SERVER_API_PORT", "0")
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", int(wanted)))
            port: int = probe.getsockname()[1]
            return port
    except (OSError, ValueError, OverflowError):
        raise ConfigError(
            f"the port {wanted} of PREFECT_SERVER_API_PORT cannot be used, another process may listen on it",
            "unset the variable (any free port is taken then) or name another port",
        ) from None


def check_server() -> None:
    """Refuse settings with which no Prefect server can be used, before anything is started or written.

    Raises:
      ConfigError: the server of PREFECT_API_URL does not answer, or the port that was asked for is in use.
    """
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        server_port()
    elif not _is_healthy(url):
        raise ConfigError(
            f"no Prefect server answers at {url}", "start it, or unset PREFECT_API_URL to use a temporary one"
        )


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError, ValueError):
        return False
