"""What table, page and plots say alike: names of models and metrics, and what is read out of a report."""

from typing import NamedTuple

from fedhealth.reporting.report import Combining, ComparisonRow, Report, StudyReport
from fedhealth.study.words import rounds_text

MODELS = {
    "local_mean": "local only (mean over sites)",
    "federated_naive": "federated, unweighted mean",
    "federated": "federated, weighted mean",
    "federated_dp": "federated + DP",
    "personalised": "personalised",
    "centralised": "centralised",
    "upper_bound": "upper bound (the generator's own probabilities)",
}
"""Models in the order of the table. A study's own federated model is called by what the study did: `own_label`."""
RULES = {
    "none": "mean",
    "plausibility": "mean of the plausible updates",
    "groups": "trimmed mean of the groups' means",
    "median": "median",
    "trimmed_mean": "trimmed mean",
    "krum": "Krum",
    "multi_krum": "Multi-Krum",
    "geometric_median": "geometric median",
    "centred_clipping": "centred clipping",
}
MODES = {"masks": "secret, under masks", "he": "secret, encrypted", "plain": "in the clear"}
SECRECY = {"masks": "secure", "he": "encrypted", "plain": "in the clear"}
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


class Line(NamedTuple):
    """One line of the comparison: a model by what it is, the same in all studies that have it."""

    model: str
    label: str
    is_reference: bool


class Gain(NamedTuple):
    """What a federated model without differential privacy has over the mean local-only model."""

    label: str
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


def row_of(column: Column, line: Line) -> ComparisonRow | None:
    """A line's figure in a column."""
    rows = (row for row in _rows_of(column) if line_of(column.study, row) == line)
    return next(rows, None)


def lines(report: Report) -> list[Line]:
    """The lines of the comparison, in its order."""
    found = {line_of(study, row): None for study in report.studies for row in study.comparison}
    return sorted(found, key=lambda line: list(MODELS).index(line.model))


def line_of(study: StudyReport, row: ComparisonRow) -> Line:
    """The line in which a figure stands."""
    is_own = not row.is_reference and row.model in ("federated", "federated_dp")
    return Line(row.model, own_label(study) if is_own else MODELS[row.model], row.is_reference)


def own_label(study: StudyReport) -> str:
    """A study's own model by how its updates were combined; the mean, weighted by size, goes without saying."""
    found, noise = study.combining, "" if study.privacy.mode == "none" else " + DP"
    if found is None:
        return f"federated{noise}"
    rule = {
        "none": "" if found.weighting == "examples" else "unweighted",
        "plausibility": "plausible",
        "groups": "by groups",
    }
    special = "grown by sums" if found.grows else rule.get(found.robust, RULES[found.robust])
    return ", ".join(part for part in ("federated", special, SECRECY[found.mode]) if part) + noise


def mode_text(found: Combining) -> str:
    """How updates travel."""
    opened = "sum of each group" if found.robust == "groups" else "sum"
    return MODES[found.mode] + ("" if found.mode == "plain" else f": only the {opened} is opened")


def rule_text(found: Combining) -> str:
    """How many updates become one, with the rule's numbers."""
    if found.grows:
        return "sums, from which the model grows"
    is_mean = found.robust in ("none", "plausibility")
    weighted = "" if not is_mean else "weighted " if found.weighting == "examples" else "unweighted "
    numbers = [] if found.group_size is None else [f"groups of {found.group_size} sites or more"]
    numbers += [] if found.attackers is None else [f"bears {found.attackers} that lie"]
    return weighted + RULES[found.robust] + (f" ({', '.join(numbers)})" if numbers else "")


def rounds_of(study: StudyReport) -> str:
    """A study's rounds, in the words of all places that count them."""
    return rounds_text(study.rounds, study.rounds_planned)


def _rows_of(column: Column) -> list[ComparisonRow]:
    return [
        row for row in column.study.comparison if (row.outcome, row.metric) == (column.outcome, column.metric)
    ]


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
    """By column, the federated model without differential privacy less the mean local-only model."""
    found = []
    for column in columns(report):
        rows = {row.model: row for row in _rows_of(column)}
        together, alone = rows.get("federated"), rows.get("local_mean")
        if together and alone and together.value is not None and alone.value is not None:
            several = len(column.study.outcome_names) > 1
            where = f"{column.study.study} {column.outcome}" if several else column.study.study
            label = line_of(column.study, together).label
            found.append(Gain(label, where, metric_name(column.metric), together.value - alone.value))
    return found


def not_covered(report: Report) -> list[str]:
    """What any of the studies releases outside its epsilon, each once."""
    return list(dict.fromkeys(each for study in report.studies for each in study.privacy.not_covered))


def notes(report: Report) -> list[str]:
    """The notes of all studies, each once."""
    return list(dict.fromkeys(note for study in report.studies for note in study.notes))
