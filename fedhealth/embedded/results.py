"""What an embedded run makes of its results: references, the verified log, the report."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from fedhealth.config import Workdir
from fedhealth.embedded.history import is_server, registry_of
from fedhealth.embedded.references import train_references
from fedhealth.embedded.study_report import study_report
from fedhealth.embedded.study_result import StudyResult
from fedhealth.errors import MissingObjectError, ProtocolError
from fedhealth.evaluation import headline_metric, prefix_of
from fedhealth.exchange import open_exchange, read_object
from fedhealth.exchange.board import Reader
from fedhealth.features.rows import Rows, load_rows
from fedhealth.identity import SignedRoster
from fedhealth.models.statistics import Statistics
from fedhealth.registry import choose_store
from fedhealth.reporting import make_report, render_html, write_report_json
from fedhealth.reporting.combined import RoundTold, combining
from fedhealth.reporting.report import Combining
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import Aggregate, statistics_of
from fedhealth.rounds.journal import write_durably
from fedhealth.rounds.objects import round_key, site_key
from fedhealth.rounds.site_consent import people_of
from fedhealth.rounds.site_data import SiteFolder
from fedhealth.study import Study
from fedhealth.study.targets import targets_of
from fedhealth.synthetic import oracle_auc


def reference_rows(
    workdir_path: str, sites: tuple[str, ...], study_bytes: bytes, run: str, seed: int
) -> dict[str, Any]:
    """Train and score the references, pooled on this machine: over the sites that are in the run, and who consents there.

    Returns:
      ``rows`` of the comparison, and ``local``: how each site's own model does on the test rows of the others.
    """
    workdir, study = Workdir(Path(workdir_path)), Study.from_canonical(study_bytes)
    exchange = open_exchange(str(workdir.exchange))
    ready = [site for site in sites if exchange.exists(site_key(run, 0, site, "ready"))]
    rows = {site: _rows_in(SiteFolder(workdir.site(site)), study, run) for site in ready}
    usable = {site: found for site, found in rows.items() if found is not None and len(found.labels) > 0}
    references = train_references(usable, study, _statistics(workdir, run), seed=seed)
    targets = targets_of(study)
    names = [prefix_of(target, targets) + headline_metric(target) for target in targets]
    local = {
        site: {name: None if (value := each.get(name)) is None else round(value, 2) for name in names}
        for site, each in references.elsewhere.items()
    }
    return {"rows": [asdict(row) for row in references.rows], "local": local}


def _rows_in(folder: SiteFolder, study: Study, run: str) -> Rows | None:
    """The rows of those who consented when the run began."""
    path = folder.rows(study)
    if not path.exists():
        return None
    rows = load_rows(path)
    return rows.where(np.isin(rows.person, people_of(folder, run, 0)))


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
    studies = tuple(study_report(result, seconds, bounds, _combined(workdir, result)) for result in results)
    report = make_report(studies, open_with=_open_with(workdir))
    write_durably(workdir.report_html, render_html(report).encode())
    workdir.report_html.chmod(0o644)
    write_report_json(workdir.report_json, report)
    _attach(workdir, results)


def _combined(workdir: Workdir, result: StudyResult) -> Combining | None:
    """How a study's updates became one; None where the exchange is damaged, of which the log's verdict tells."""
    roster = SignedRoster.from_bytes(workdir.roster.read_bytes()).verify()
    board = Reader(open_exchange(str(workdir.exchange)), roster)
    told = json.loads(result.coordinator)
    account = RunAccount(board, roster.coordinator, told["run"], Study.from_canonical(result.study))
    rounds = [RoundTold.from_json(each) for each in told["rounds"]]
    try:
        return combining(account, rounds, blamed=told["blamed"])
    except (MissingObjectError, ProtocolError):
        return None


def _open_with(workdir: Workdir) -> dict[str, str]:
    """Commands to paste into any shell, whatever its PATH."""
    mlflow, prefect, fedhealth = (
        quote(str(Path(sys.executable).parent / name)) for name in ("mlflow", "prefect", "fedhealth")
    )
    uri = choose_store(workdir.path, None)
    return {
        "MLflow UI": uri if is_server(uri) else f"{mlflow} server --backend-store-uri {quote(uri)}",
        "Prefect UI": f"PREFECT_HOME={quote(str(workdir.prefect))} {prefect} server start",
        "Verify": f"{fedhealth} audit verify {quote(str(workdir.path))}",
    }


def _attach(workdir: Workdir, results: tuple[StudyResult, ...]) -> None:
    registry = registry_of(workdir)
    for result in results:
        told = json.loads(result.coordinator)
        run = registry.start_study_run(told["study"], told["run"], params={}, tags={})
        run.log_artifact(workdir.report_html)
        run.log_artifact(workdir.report_json)
        run.finish(succeeded=True)
