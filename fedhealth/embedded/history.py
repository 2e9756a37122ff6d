"""The history of a working directory's runs: checked against the registry, and put into one file."""

import json
from pathlib import Path
from typing import Any

from fedhealth.audit import (
    AuditResult,
    Checkpoint,
    Finding,
    export_bundle,
    verify_bundle,
    verify_exchange,
)
from fedhealth.config import Workdir
from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.exchange import open_exchange
from fedhealth.exchange.board import Reader
from fedhealth.exchange.store import Exchange
from fedhealth.identity import Roster, SignedRoster
from fedhealth.registry import Registry, artifact_folder, choose_store, store_uri


def is_server(tracking_uri: str) -> bool:
    """Whether a store is a server, not a file."""
    return tracking_uri.startswith("http")


def registry_of(workdir: Workdir) -> Registry:
    """The store that the working directory's runs are in, wherever it is."""
    uri = choose_store(workdir.path, None)
    return Registry(uri, artifact_root=None if is_server(uri) else artifact_folder(workdir.path))


def verify_workdir(
    workdir_path: str, *, roster_digest: str | None = None, replay: bool = False
) -> dict[str, Any]:
    """Check log, exchange and registered models of a working directory against each other.

    Args:
      workdir_path: of a demo or study run.
      roster_digest: the roster's digest, as it is known from elsewhere; None trusts the working directory's.
      replay: whether to open every sum of every run anew, and compute every model again.

    Returns:
      ``ok``, ``size``, ``root``, ``objects``, the findings as (kind, key, problem), the ``released`` models, the digest of the
      ``roster``, and of the newest checkpoint that two thirds of the sites have co-signed ``cosigned_size`` and ``cosigners``.

    Raises:
      ConfigError: it is no working directory of a run, or a file of it is damaged.
      ProtocolError: its roster was edited.
    """
    workdir = _checked(workdir_path)
    exchange, signed = open_exchange(str(workdir.exchange)), _signed_roster(workdir)
    files, tags = _registered(workdir)
    result = verify_exchange(
        exchange,
        signed,
        expected_roster_digest=roster_digest,
        model_files=files,
        model_tags=tags,
        expected_checkpoint=_reported_checkpoint(workdir),
    )
    if replay and result.ok:
        runs = sorted({key.split("/")[1] for key in exchange.list("runs/")})
        found = (each for run in runs for each in _replayed(exchange, signed.roster, run))
        result = result.with_findings(tuple(found))
    return _told(result) | {"roster": signed.roster.digest}


def _signed_roster(workdir: Workdir) -> SignedRoster:
    try:
        return SignedRoster.from_bytes(workdir.roster.read_bytes())
    except ProtocolError as error:
        raise ProtocolError(
            f"{workdir.roster}: {error.problem}", "take it from a copy of the working directory"
        ) from None


def _replayed(exchange: Exchange, roster: Roster, run: str) -> tuple[Finding, ...]:
    from fedhealth.rounds.history import replay_run

    return replay_run(Reader(exchange, roster), run)


def _checked(workdir_path: str) -> Workdir:
    workdir = Workdir(Path(workdir_path))
    if not workdir.path.exists():
        raise ConfigError(
            f"{workdir.path} does not exist",
            "name the --workdir of a run, or a bundle of fedhealth audit export",
        )
    has_run = workdir.roster.is_file() and workdir.exchange.is_dir() and _has_begun(workdir)
    if not has_run:
        raise ConfigError(f"{workdir.path} holds no run", "name the --workdir of a demo or study run")
    return workdir


def _has_begun(workdir: Workdir) -> bool:
    """Whether anything was logged, posted or reported of a run."""
    exchange = open_exchange(str(workdir.exchange))
    return workdir.report_json.exists() or any(exchange.list(folder) for folder in ("log/", "runs/"))


def _told(result: AuditResult) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "size": result.log_size,
        "root": result.root,
        "objects": result.objects_checked,
        "cosigned_size": result.cosigned.size,
        "cosigners": list(result.cosigners),
        "released": list(result.released),
        "findings": [(each.kind, each.key, each.problem) for each in result.findings],
    }


def export_model(workdir_path: str, model: str | None, out: str) -> dict[str, str]:
    """Write the bundle of a registered model of a working directory: of the one named, or of the last report's.

    Returns:
      The ``model`` and the ``run`` that it came from.

    Raises:
      ConfigError: it is no working directory of a run, or holds no such model.
    """
    workdir = _checked(workdir_path)
    if model is None and workdir.report_json.exists():
        told = _told_in(workdir.report_json, "model")
        model = f"{told['name']}/{told['version']}"
    registry = registry_of(workdir)
    known = {f"{name}/{version}": (name, version) for name, version in registry.versions()}
    if model not in known:
        raise ConfigError(
            f"{workdir.path} has registered no {model or 'model'}",
            f"name one of {', '.join(known) or 'none'}",
        )
    name, version = known[model]
    with registry.model_copy(name, version) as files:
        run = export_bundle(
            Path(out),
            open_exchange(str(workdir.exchange)),
            _signed_roster(workdir),
            model=model,
            files=files,
            tags=registry.model_tags(name, version),
        )
    return {"model": model, "run": run}


def verify_file(path: str, *, roster_digest: str | None, replay: bool = False) -> dict[str, Any]:
    """Check a bundle, with ``replay`` its run's sums and models too; returns what `verify_workdir` does, with the model, its run
    and the roster's digest.

    Raises:
      ConfigError: it is no bundle, or is cut off or damaged.
    """
    also = _replayed if replay else None
    found = verify_bundle(Path(path), expected_roster_digest=roster_digest, also=also)
    return _told(found.audit) | {"model": found.model, "run": found.run, "roster": found.roster}


def _reported_checkpoint(workdir: Workdir) -> Checkpoint | None:
    """The state of the log that the last report names, so that its end cannot be cut off unseen."""
    if not workdir.report_json.exists():
        return None
    log = _told_in(workdir.report_json, "log")
    return Checkpoint(size=log["size"], root=log["root"]) if log.get("size") else None


def _told_in(path: Path, section: str) -> dict[str, Any]:
    """A section of a run's own report or result, empty where it has none.

    Raises:
      ConfigError: it is damaged.
    """
    try:
        found = json.loads(path.read_bytes()).get(section) or {}
        return dict(found)
    except (OSError, AttributeError, TypeError, ValueError):
        raise ConfigError(f"{path} is damaged", "take it from a copy of the working directory") from None


def _registered(workdir: Workdir) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Files and tags of every version in the working directory's own store; in a shared one, of its runs' versions."""
    registry = registry_of(workdir)
    versions = registry.versions()
    if choose_store(workdir.path, None) != store_uri(workdir.path):
        models = [_told_in(path, "model") for path in workdir.coordinator.glob("runs/*/result.json")]
        versions = tuple((model["name"], int(model["version"])) for model in models)
    files = {f"{name}/{version}": registry.model_file_digests(name, version) for name, version in versions}
    tags = {f"{name}/{version}": registry.model_tags(name, version) for name, version in versions}
    return files, tags
