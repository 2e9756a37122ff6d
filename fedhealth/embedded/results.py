"""What an embedded run makes of its results: references, the verified log, the report."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedhealth.audit import Checkpoint, verify_exchange
from fedhealth.config import Workdir
from fedhealth.embedded.references import train_references
from fedhealth.errors import ConfigError
from fedhealth.exchange import open_exchange, read_object
from fedhealth.features.rows import Rows, load_rows
from fedhealth.identity import SignedRoster
from fedhealth.models.statistics import Statistics
from fedhealth.rounds.aggregate import Aggregate, statistics_of
from fedhealth.rounds.objects import round_key
from fedhealth.study import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """Everything the report of one study is made of."""

    study: bytes
    coordinator: str
    references: tuple[dict[str, Any], ...]
    states: dict[str, str]
    attrition: dict[str, Any]
    verified: dict[str, Any]


def reference_rows(
    workdir_path: str, sites: tuple[str, ...], study_bytes: bytes, run: str, seed: int
) -> list[dict[str, Any]]:
    """Train and score the references over the rows of all sites, pooled on this machine."""
    workdir, study = Workdir(Path(workdir_path)), Study.from_canonical(study_bytes)
    rows = {site: _rows_in(workdir.site(site) / "rows", study) for site in sites}
    usable = {site: found for site, found in rows.items() if found is not None and len(found.labels) > 0}
    references = train_references(usable, study, _statistics(workdir, run), seed=seed)
    return [asdict(row) for row in references.rows]


def _rows_in(folder: Path, study: Study) -> Rows | None:
    path = folder / f"{study.name}-{study.digest[:16]}.safetensors"
    return load_rows(path) if path.exists() else None


def _statistics(workdir: Workdir, run: str) -> Statistics:
    """The statistics that the run itself used: the aggregate of its round 0, verified."""
    roster = SignedRoster.from_bytes(workdir.roster.read_bytes()).verify()
    opened = read_object(
        open_exchange(str(workdir.exchange)),
        round_key(run, 0, "aggregate"),
        roster=roster,
        kind="aggregate",
        sender=roster.coordinator,
        role="coordinator",
        run=run,
        round=0,
    )
    return statistics_of(Aggregate.from_bytes(opened.payload))


def verify_workdir(workdir_path: str) -> dict[str, Any]:
    """Check log, exchange and registered models of a working directory against each other.

    Returns:
      ``ok``, ``size``, ``root``, ``objects`` and the findings as (kind, key, problem).

    Raises:
      ConfigError: it is no working directory of a run.
    """
    workdir = Workdir(Path(workdir_path))
    if not workdir.roster.exists() or not workdir.exchange.is_dir():
        raise ConfigError(f"{workdir.path} holds no run", "name the --workdir of a demo or study run")
    files, tags = _registered(workdir)
    result = verify_exchange(
        open_exchange(str(workdir.exchange)),
        SignedRoster.from_bytes(workdir.roster.read_bytes()),
        model_files=files,
        model_tags=tags,
        expected_checkpoint=_reported_checkpoint(workdir),
    )
    return {
        "ok": result.ok,
        "size": result.log_size,
        "root": result.root,
        "objects": result.objects_checked,
        "findings": [(each.kind, each.key, each.problem) for each in result.findings],
    }


def _reported_checkpoint(workdir: Workdir) -> Checkpoint | None:
    """The state of the log that the last report names, so that its end cannot be cut off unseen."""
    if not workdir.report_json.exists():
        return None
    log = json.loads(workdir.report_json.read_bytes()).get("log")
    return None if not log or not log["size"] else Checkpoint(size=log["size"], root=log["root"])


def _registered(workdir: Workdir) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Files and tags of every version that the log of this working directory releases."""
    from fedhealth.registry import Registry, artifact_folder, store_uri

    registry = Registry(store_uri(workdir.path), artifact_root=artifact_folder(workdir.path))
    versions = registry.versions()
    files = {f"{name}/{version}": registry.model_file_digests(name, version) for name, version in versions}
    tags = {f"{name}/{version}": registry.model_tags(name, version) for name, version in versions}
    return files, tags
