"""The coordinator as one process: it is told the exchange, its own folder, MLflow and the runs; no site path."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import fedhealth.errors
from fedhealth.errors import FedHealthError, PolicyError

KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    "TZ",
    "PYTHONDONTWRITEBYTECODE",
)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A study file and the id under which it runs."""

    run: str
    study_file: Path


class CoordinatorProcess:
    """Start it, wait for one run after the other, read what it may tell."""

    def __init__(
        self,
        *,
        folder: Path,
        exchange: str,
        tracking_uri: str,
        artifacts: Path,
        seed: int,
        runs: tuple[PlannedRun, ...],
        environment: Mapping[str, str],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._log = folder / "coordinator.log"
        variables = {name: os.environ[name] for name in KEPT if name in os.environ} | dict(environment)
        variables |= {
            "FEDHEALTH_EXCHANGE": exchange,
            "FEDHEALTH_COORDINATOR": str(folder),
            "MLFLOW_TRACKING_URI": tracking_uri,
            "FEDHEALTH_MLFLOW_ARTIFACTS": str(artifacts),
        }
        arguments = [f"{planned.run}={planned.study_file}" for planned in runs]
        command = [sys.executable, "-m", "flows.coordinator.process", "--seed", str(seed), *arguments]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def result(self, run: str) -> dict[str, object] | None:
        """What the coordinator tells of a finished run; None while it is under way.

        Raises:
          FedHealthError: the run failed; the coordinator's own error.
        """
        failed = self._folder / "runs" / run / "error.json"
        done = self._folder / "runs" / run / "result.json"
        if failed.exists():
            raise error_from_json(failed.read_bytes())
        if done.exists():
            content: dict[str, object] = json.loads(done.read_bytes())
            return content
        if self._process.poll() is not None and not failed.exists() and not done.exists():
            raise PolicyError("the coordinator's process ended", f"see {self._log}")
        return None

    def stop(self) -> None:
        """End it; it goes on where it was when started again."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def error_to_json(error: FedHealthError) -> bytes:
    """An error as what crosses from the coordinator's process to the launcher."""
    return json.dumps(
        {"kind": type(error).__name__, "problem": error.problem, "fix": error.fix}, sort_keys=True
    ).encode()


def error_from_json(data: bytes) -> FedHealthError:
    """The inverse of `error_to_json`."""
    content = json.loads(data)
    kind = getattr(fedhealth.errors, content["kind"], FedHealthError)
    error = kind(content["problem"], content["fix"])
    return error if isinstance(error, FedHealthError) else FedHealthError(content["problem"], content["fix"])
