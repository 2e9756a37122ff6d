"""report.json: strict models of what a study's report says. Figures of fewer than 11 people are None."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fedhealth.rounds.journal import write_durably

ModelName = Literal[
    "local_mean", "federated_naive", "federated", "federated_dp", "personalised", "centralised", "upper_bound"
]


Lines = tuple[dict[str, float | str | None], ...]
"""Lines of one table; None where fewer than 11 people would show."""


class Part(BaseModel):
    """A frozen, strict, closed part of a report."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class SiteState(Part):
    """One site and how it took part."""

    name: str
    state: Literal["trained", "abstained", "no answer", "failed"]
    reason: str | None


class SiteQuality(Part):
    """What a site told of its data: how many checks passed, the names of those that did not, and in what it is
    unlike the others (``drift/TABLE/QUANTITY``)."""

    passed: int
    failed: tuple[str, ...]
    drift: tuple[str, ...]


class ComparisonRow(Part):
    """One model's figure; ``is_reference`` models have no privacy guarantee and are never registered."""

    outcome: str
    model: ModelName
    metric: str
    value: float | None
    low: float | None
    high: float | None
    is_reference: bool


class SubgroupRow(Part):
    """How the registered model does for one band of a subgrouping; None where fewer than 11 people would show."""

    outcome: str
    subgrouping: str
    band: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None


class Privacy(Part):
    """What was spent; epsilon None means no guarantee. ``not_covered``: releases outside epsilon."""

    unit: str
    mode: str
    epsilon: float | None
    delta: float | None
    per_site: dict[str, float]
    not_covered: tuple[str, ...]


class RoundFigures(Part):
    """One round: pooled figures of the model it opened with, sites in its sums, wall time.

    ``figures`` holds every outcome's own metric; ``auroc`` that of a study of one yes or no.
    """

    round: int
    auroc: float | None
    figures: dict[str, float | None] = {}
    sites: int
    seconds: float


class Trial(Part):
    """A learning rate that was tried, and the pooled figure of its model; None where too few people would show."""

    learning_rate: float
    signal: float | None
    is_chosen: bool


class RegisteredModel(Part):
    """Where the model is."""

    name: str
    version: str
    uri: str


PROVES = (
    "The log proves the files and digests of the released model, not this report (report.html, report.json): check it by "
    "`fedhealth audit verify WORKDIR`, or elsewhere what `fedhealth audit export WORKDIR --out FILE` writes."
)


class Log(Part):
    """The transparency log at the end of the run, and what it ``proves``.

    ``cosigners`` are the sites that have co-signed its newest checkpoint to which two thirds of them agree.
    """

    size: int
    root: str
    verified: bool
    cosigners: tuple[str, ...] = ()
    proves: str = PROVES


class CombinedRound(Part):
    """How the updates of one training round became one, in numbers and names of sites.

    ``included`` are in the sum (of a growing model: in every sum of the round), ``left_out`` all others, with the reason.
    So many sites as ``agreed`` have opened the sums anew and come to what was published (R5), those ``contradicted`` to something
    else. ``cosigners`` is how many co-signed the log's checkpoint before the next round. ``upload_bytes`` are of all that a site
    put on the exchange in the round.
    """

    round: int
    included: tuple[str, ...]
    left_out: dict[str, str]
    agreed: int
    contradicted: tuple[str, ...]
    cosigners: int
    upload_bytes: dict[str, int]


class Combining(Part):
    """How the sites' updates were combined: what the study says, and what happened in every training round.

    ``attackers`` and ``group_size`` are None where the rule has none. In every round ``reopened_by`` sites, one more than the
    ``colluders``, must come to what was published. ``blamed`` is whom the coordinator blamed since it was started, in its words.
    """

    mode: str
    grows: bool
    weighting: str
    robust: str
    attackers: int | None
    group_size: int | None
    ring_bits: int
    sent_share: float
    colluders: int
    reopened_by: int
    rounds: tuple[CombinedRound, ...]
    blamed: dict[str, str]


class StudyReport(Part):
    """The report of one study. Schema version 1; keys may be added, never renamed.

    ``rounds`` counts training rounds: neither round 0 nor the last one, which only scores the final model. ``rounds_planned`` are
    the study's, of which a run that stops early does fewer. ``combining`` is None in reports of earlier versions.
    ``outcome`` is the first of ``outcomes`` (empty where it is the only one). ``metrics`` and ``tables`` are the
    registered model's, by the flat names of `fedhealth.evaluation.Evaluation`. ``site_figures`` are its headlines at each
    site that shares them; ``local_models`` those of each site's own model on the test rows of the other sites (references).
    """

    schema_version: Literal[1] = 1
    study: str
    title: str
    outcome: str
    outcomes: tuple[str, ...] = ()
    study_digest: str
    run: str
    sites: tuple[SiteState, ...]
    rounds: int
    rounds_planned: int | None = None
    rounds_figures: tuple[RoundFigures, ...]
    trials: tuple[Trial, ...] = ()
    comparison: tuple[ComparisonRow, ...]
    metrics: dict[str, float | None]
    tables: dict[str, Lines] = {}
    subgroups: tuple[SubgroupRow, ...] = ()
    site_figures: dict[str, dict[str, float | None]] = {}
    local_models: dict[str, dict[str, float | None]] = {}
    combining: Combining | None = None
    privacy: Privacy
    upload_bytes_per_site_round: int
    seconds: dict[str, float]
    model: RegisteredModel
    log: Log
    attrition: dict[str, tuple[dict[str, str | int | None], ...]]
    quality: dict[str, SiteQuality] = {}
    missing_features: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def outcome_names(self) -> tuple[str, ...]:
        """The study's outcomes, in its order."""
        return self.outcomes or (self.outcome,)

    def prefix_of(self, outcome: str) -> str:
        """What stands before an outcome's names in ``metrics`` and ``tables``."""
        return f"{outcome}." if len(self.outcome_names) > 1 else ""


class Report(StudyReport):
    """A whole run: the first study's keys, every study in full, all comparison rows, the sum of the epsilons.

    Epsilons of studies over the same patients add up; None when one study has no guarantee.
    """

    studies: tuple[StudyReport, ...]
    epsilon_sum: float | None
    open_with: dict[str, str]


def make_report(studies: tuple[StudyReport, ...], *, open_with: dict[str, str]) -> Report:
    """Put the studies of one run together; the first one's keys stand at the top."""
    first = studies[0]
    spent = [study.privacy.epsilon for study in studies]
    known = [epsilon for epsilon in spent if epsilon is not None]
    content = {name: getattr(first, name) for name in StudyReport.model_fields if name != "comparison"}
    return Report(
        **content,
        comparison=tuple(row for study in studies for row in study.comparison),
        studies=studies,
        epsilon_sum=sum(known) if len(known) == len(spent) else None,
        open_with=open_with,
    )


def write_report_json(path: Path, report: Report) -> None:
    """Write report.json whole or not at all."""
    text = json.dumps(report.model_dump(mode="json"), indent=2, allow_nan=False)
    write_durably(path, text.encode())
    path.chmod(0o644)


def read_report(path: Path) -> Report:
    """Read what `write_report_json` wrote."""
    return Report.model_validate_json(path.read_bytes())
