"""What an embedded run makes of its results: references, the verified log, the report."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedhealth.config import Workdir
from fedhealth.embedded.references import train_references
from fedhealth.exchange import open_exchange, unseal
from fedhealth.features.rows import Rows, load_rows
from fedhealth.identity import SignedRoster
from fedhealth.models.statistics import Statistics
from fedhealth.rounds.aggregate import Aggregate
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
    data = open_exchange(str(workdir.exchange)).get(round_key(run, 0, "aggregate"))
    return Statistics(**Aggregate.from_bytes(unseal(data, roster=roster).payload).tensors)  # type: ignore[arg-type]
