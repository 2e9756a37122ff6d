"""What an embedded run makes of its results: references, the verified log, the report."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from fedhealth.audit import Checkpoint, verify_exchange
from fedhealth.config import Workdir
from fedhealth.embedded.references import train_references
from fedhealth.embedded.study_result import StudyResult
from fedhealth.errors import ConfigError
from fedhealth.exchange import open_exchange, read_object
from fedhealth.features.rows import Rows, load_rows
from fedhealth.identity import SignedRoster
from fedhealth.models.statistics import Statistics
from fedhealth.registry import Registry, artifact_folder, choose_store, store_uri
from fedhealth.reporting import StudyReport, make_report, render_html, write_report_json
from fedhealth.reporting.report import (
    ComparisonRow,
    Log,
    ModelName,
    Privacy,
    RegisteredModel,
    RoundFigures,
    SiteQuality,
    SiteState,
)
from fedhealth.rounds.aggregate import Aggregate, statistics_of
from fedhealth.rounds.journal import write_durably
from fedhealth.rounds.objects import round_key
from fedhealth.study import Study
from fedhealth.synthetic import oracle_auc


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


def build_report(
    workdir_path: str, results: tuple[StudyResult, ...], seconds: dict[str, float], synthetic: tuple[str, ...]
) -> None:
    """Write report.json and report.html, and attach the page to every run in MLflow."""
    workdir = Workdir(Path(workdir_path))
    bounds = oracle_auc([Path(folder) for folder in synthetic]) if synthetic else {}
    studies = tuple(_study_report(result, seconds, bounds) for result in results)
    report = make_report(studies, open_with=_open_with(workdir))
    write_durably(workdir.report_html, render_html(report).encode())
    workdir.report_html.chmod(0o644)
    write_report_json(workdir.report_json, report)
    _attach(workdir, results)


def _open_with(workdir: Workdir) -> dict[str, str]:
    """Commands to paste into any shell, whatever its PATH."""
    mlflow, prefect, fedhealth = (
        quote(str(Path(sys.executable).parent / name)) for name in ("mlflow", "prefect", "fedhealth")
    )
    uri = choose_store(workdir.path, None)
    return {
        "MLflow UI": uri if _is_server(uri) else f"{mlflow} server --backend-store-uri {quote(uri)}",
        "Prefect UI": f"PREFECT_HOME={quote(str(workdir.prefect))} {prefect} server start",
        "Verify": f"{fedhealth} audit verify {quote(str(workdir.path))}",
    }


def _study_report(
    result: StudyResult, seconds: dict[str, float], bounds: dict[str, float | None]
) -> StudyReport:
    study, told = Study.from_canonical(result.study), json.loads(result.coordinator)
    private = study.privacy.mode != "none"
    own = _row(study, "federated_dp" if private else "federated", told["metrics"], is_reference=False)
    references = [
        ComparisonRow(**row, is_reference=True)
        for row in result.references
        if private or row["model"] != "federated"
    ]
    upper = bounds.get(study.outcome.kind)
    limit = {"auroc": upper, "low": None, "high": None}
    rows = [*references, own] + ([_row(study, "upper_bound", limit, is_reference=True)] if upper else [])
    sent = sorted(size for each in told["rounds"] for size in each["upload_bytes"].values() if size)
    return StudyReport(
        study=study.name,
        title=study.title,
        outcome=study.outcome_name,
        study_digest=study.digest,
        run=told["run"],
        sites=tuple(_site_state(name, state, result.states) for name, state in told["sites"].items()),
        rounds=study.training.rounds,
        rounds_figures=tuple(_round(each) for each in told["rounds"][1:]),
        comparison=tuple(rows),
        metrics={
            name: value for name, value in told["metrics"].items() if value is None or _is_number(value)
        },
        privacy=Privacy(**{**told["privacy"], "not_covered": tuple(told["privacy"]["not_covered"])}),
        upload_bytes_per_site_round=int(sent[len(sent) // 2]) if sent else 0,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        model=RegisteredModel(**told["model"]),
        log=Log(size=result.verified["size"], root=result.verified["root"], verified=result.verified["ok"]),
        attrition={site: tuple(steps) for site, steps in result.attrition.items()},
        quality={site: _quality(each) for site, each in told["quality"].items()},
        missing_features=tuple(told["missing_columns"]),
        notes=_notes(study),
    )


def _row(study: Study, model: ModelName, metrics: dict[str, Any], *, is_reference: bool) -> ComparisonRow:
    return ComparisonRow(
        outcome=study.outcome_name,
        model=model,
        metric="auroc",
        value=metrics.get("auroc"),
        low=metrics.get("low"),
        high=metrics.get("high"),
        is_reference=is_reference,
    )


def _site_state(name: str, state: str, failed: dict[str, str]) -> SiteState:
    if name in failed:
        return SiteState(name=name, state="failed", reason=failed[name])
    word, _, reason = state.partition(": ")
    words: dict[str, Literal["trained", "abstained", "no answer"]] = {
        "trained": "trained",
        "abstained": "abstained",
    }
    return SiteState(name=name, state=words.get(word, "no answer"), reason=reason or None)


def _quality(told: dict[str, Any]) -> SiteQuality:
    return SiteQuality(
        passed=sum(told["passed"].values()),
        failed=tuple(told["failed_checks"]),
        drift=tuple(sorted(told["drift"])),
    )


def _round(each: dict[str, Any]) -> RoundFigures:
    survivors = min((len(sites) for sites in each["survivors"].values()), default=0)
    return RoundFigures(
        round=each["round"],
        auroc=each["metrics"].get("auroc"),
        sites=survivors,
        seconds=round(each["seconds"], 3),
    )


def _notes(study: Study) -> tuple[str, ...]:
    notes = ["embedded run: all keys were made in the working directory, none by a certificate authority"]
    if study.outcome.kind == "readmission":
        notes.append(
            "readmissions are those to the same site; reasons planned, psychiatric and cancer are empty in this version"
        )
    return tuple(notes)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_server(tracking_uri: str) -> bool:
    return tracking_uri.startswith("http")


def _registry(workdir: Workdir) -> Registry:
    """The store that the working directory's runs are in, wherever it is."""
    uri = choose_store(workdir.path, None)
    return Registry(uri, artifact_root=None if _is_server(uri) else artifact_folder(workdir.path))


def _attach(workdir: Workdir, results: tuple[StudyResult, ...]) -> None:
    registry = _registry(workdir)
    for result in results:
        told = json.loads(result.coordinator)
        run = registry.start_study_run(told["study"], told["run"], params={}, tags={})
        run.log_artifact(workdir.report_html)
        run.log_artifact(workdir.report_json)
        run.finish(succeeded=True)


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
    """Files and tags of every version in the working directory's own store; in a shared one, of its runs' versions."""
    registry = _registry(workdir)
    versions = registry.versions()
    if choose_store(workdir.path, None) != store_uri(workdir.path):
        results = (json.loads(path.read_bytes()) for path in workdir.coordinator.glob("runs/*/result.json"))
        models = [result["model"] for result in results]
        versions = tuple((model["name"], int(model["version"])) for model in models)
    files = {f"{name}/{version}": registry.model_file_digests(name, version) for name, version in versions}
    tags = {f"{name}/{version}": registry.model_tags(name, version) for name, version in versions}
    return files, tags
