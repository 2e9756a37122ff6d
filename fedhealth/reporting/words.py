"""What table, page and plots say alike: names of models and metrics, and what is read out of a report."""

from typing import NamedTuple

from fedhealth.reporting.report import ComparisonRow, Report, StudyReport

LABELS = {
    "local_mean": "local only (mean over sites)",
    "federated_naive": "federated, unweighted mean",
    "federated": "federated, weighted mean",
    "federated_dp": "federated, secure + DP",
    "personalised": "personalised",
    "centralised": "centralised",
    "upper_bound": "upper bound (the generator's own probabilities)",
}
METRICS = {
    "auroc": "AUROC",
    "auroc_resolution": "resolution of the AUROC",
    "auprc": "AUPRC",
    "r2": "R²",
    "c_index": "C-index",
    "c_index_resolution": "resolution of the C-index",
    "brier": "Brier score",
    "ece": "calibration error",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "integrated_brier": "integrated Brier score",
    "ppv": "PPV",
    "npv": "NPV",
    "flagged": "share flagged",
    "n": "rows",
    "n_positive": "rows with the outcome",
    "n_events": "rows with an event",
}
SUPPRESSED = "suppressed (<11)"
WITHHELD = "suppressed"
"""Of a subgroup, which may be large itself and leave too few others."""


class Column(NamedTuple):
    """One metric of one outcome of one study: what models are compared by."""

    study: StudyReport
    outcome: str
    metric: str

    @property
    def title(self) -> str:
        """As a heading."""
        return f"{self.outcome} ({metric_name(self.metric)})"


class Gain(NamedTuple):
    """What the weighted federated reference has over the mean local-only model."""

    where: str
    metric: str
    value: float


def metric_name(metric: str) -> str:
    """A metric in words."""
    return METRICS.get(metric, metric.replace("_", " "))


def columns(report: Report) -> list[Column]:
    """What the models of a report are compared by, in the order of studies and of their rows."""
    found = ((study, row.outcome, row.metric) for study in report.studies for row in study.comparison)
    named = {
        (study.study, outcome, metric): Column(study, outcome, metric) for study, outcome, metric in found
    }
    return list(named.values())


def row_of(column: Column, model: str) -> ComparisonRow | None:
    """A model's figure in a column."""
    wanted = (model, column.outcome, column.metric)
    rows = (row for row in column.study.comparison if (row.model, row.outcome, row.metric) == wanted)
    return next(rows, None)


def model_order(report: Report) -> list[str]:
    """The models that occur, in the order of the table."""
    present = {row.model for row in report.comparison}
    return [name for name in LABELS if name in present]


def shown(row: ComparisonRow | None) -> str:
    """A figure with its 95% interval."""
    return "-" if row is None else interval_text(row.value, row.low, row.high)


def interval_text(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with its 95% interval, if it has one, or that it is suppressed."""
    if value is None:
        return SUPPRESSED
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def epsilon_text(epsilon: float | None) -> str:
    """Epsilon, or infinity where there is no guarantee."""
    return "∞" if epsilon is None else f"{epsilon:.2f}"


def kilobytes(size: int) -> str:
    """A size; nothing is sent in 0 bytes, so 0 means that nobody knows."""
    return f"{size / 1e3:.0f} kB" if size else "not available"


def trained(study: StudyReport) -> str:
    """How many of a study's sites trained."""
    return f"{sum(site.state == 'trained' for site in study.sites)} of {len(study.sites)}"


def gains(report: Report) -> list[Gain]:
    """By column, the weighted federated reference less the mean local-only model."""
    found = []
    for column in columns(report):
        together, alone = (row_of(column, model) for model in ("federated", "local_mean"))
        if together and alone and together.value is not None and alone.value is not None:
            several = len(column.study.outcome_names) > 1
            where = f"{column.study.study} {column.outcome}" if several else column.study.study
            found.append(Gain(where, metric_name(column.metric), together.value - alone.value))
    return found


def not_covered(report: Report) -> list[str]:
    """What any of the studies releases outside its epsilon, each once."""
    return list(dict.fromkeys(each for study in report.studies for each in study.privacy.not_covered))


def notes(report: Report) -> list[str]:
    """The notes of all studies, each once."""
    return list(dict.fromkeys(note for study in report.studies for note in study.notes))
