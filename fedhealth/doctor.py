"""Diagnosis of an installation: each finding with one fix. Imports nothing heavy."""

import os
import shutil
import socket
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIB = 1 << 30
NEEDED_DISK_BYTES = 2 * GIB
NEEDED_MEMORY_BYTES = 4 * GIB
PACKAGES = (
    "prefect",
    "mlflow",
    "torch",
    "opacus",
    "pandas",
    "duckdb",
    "great-expectations",
    "fhir.resources",
)
PORTS = {"Prefect": 4200, "MLflow": 5000}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One finding. ``fix`` says what to do when ``ok`` is false."""

    name: str
    ok: bool
    detail: str
    fix: str


def run_checks(*, workdir: Path, ports: dict[str, int] | None = None) -> tuple[CheckResult, ...]:
    """Look at interpreter, packages, cryptography, room, ports and configured servers.

    Args:
      workdir: where runs will be kept.
      ports: by name, ports that should be free; by default those of the Prefect and MLflow UIs.
    """
    checks: list[Callable[[], CheckResult]] = [
        _python,
        _packages,
        _fastapi,
        _post_quantum,
        lambda: _disk(workdir),
        _memory,
        lambda: _writable(workdir),
        lambda: _server("PREFECT_API_URL", "/health"),
        lambda: _server("MLFLOW_TRACKING_URI", "/health"),
    ]
    wanted = PORTS if ports is None else ports
    return (*(check() for check in checks), *(_port(name, port) for name, port in wanted.items()))


def _python() -> CheckResult:
    found = sys.version_info
    is_known = (3, 11) <= (found.major, found.minor) < (3, 13)
    return CheckResult(
        "Python", is_known, f"{found.major}.{found.minor}.{found.micro}", "install Python 3.11 or 3.12"
    )


def _packages() -> CheckResult:
    missing = [name for name in PACKAGES if _version(name) is None]
    detail = (
        f"missing: {', '.join(missing)}"
        if missing
        else f"torch {_version('torch')}, prefect {_version('prefect')}"
    )
    return CheckResult("packages", not missing, detail, "run make setup")


def _fastapi() -> CheckResult:
    found = _version("fastapi") or "0"
    is_known = tuple(int(part) for part in found.split(".")[:2]) < (0, 160)
    return CheckResult(
        "FastAPI fits Prefect", is_known, found, "run make setup: it installs the pinned version"
    )


def _post_quantum() -> CheckResult:
    names = ("mldsa", "mlkem")
    try:
        for name in names:
            import_module(f"cryptography.hazmat.primitives.asymmetric.{name}")
    except ImportError:
        return CheckResult(
            "ML-DSA and ML-KEM", False, "not in cryptography", "install cryptography 50 or later"
        )
    return CheckResult("ML-DSA and ML-KEM", True, f"cryptography {_version('cryptography')}", "")


def _disk(workdir: Path) -> CheckResult:
    place = next(each for each in (workdir.resolve(), *workdir.resolve().parents) if each.exists())
    free = shutil.disk_usage(place).free
    return CheckResult(
        "disk",
        free >= NEEDED_DISK_BYTES,
        f"{free / GIB:.1f} GiB free",
        "free 2 GiB or choose another --workdir",
    )


def _memory() -> CheckResult:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return CheckResult(
        "memory",
        total >= NEEDED_MEMORY_BYTES,
        f"{total / GIB:.1f} GiB, {os.cpu_count()} cores",
        "use fewer hospitals",
    )


def _writable(workdir: Path) -> CheckResult:
    place = next(each for each in (workdir.resolve(), *workdir.resolve().parents) if each.exists())
    return CheckResult(
        "working directory", os.access(place, os.W_OK), str(place), "choose a writable folder with --workdir"
    )


def _server(variable: str, path: str) -> CheckResult:
    url = os.environ.get(variable, "")
    if not url.startswith("http"):
        return CheckResult(variable, True, "not set: a local store is used", "")
    base = url.removesuffix("/")
    try:
        with urllib.request.urlopen(f"{base}{path}", timeout=3) as answer:
            ok = answer.status == 200
    except OSError:
        ok = False
    return CheckResult(
        variable, ok, "answers" if ok else "does not answer", f"start that server or unset {variable}"
    )


def _port(name: str, port: int) -> CheckResult:
    with socket.socket() as probe:
        probe.settimeout(1)
        is_free = probe.connect_ex(("127.0.0.1", port)) != 0
    detail = "free" if is_free else "in use"
    fix = f"stop what listens on {port}, or start the {name} UI with another --port"
    return CheckResult(f"port {port} ({name} UI)", is_free, detail, fix)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
