"""The final table on screen."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

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
SUPPRESSED = "suppressed (<11)"


def shown(row: ComparisonRow | None) -> str:
    """A figure with its 95% interval."""
    if row is None:
        return "-"
    if row.value is None:
        return SUPPRESSED
    interval = "" if row.low is None or row.high is None else f" [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.value:.3f}{interval}"


def epsilon_text(epsilon: float | None) -> str:
    """Epsilon, or infinity where there is no guarantee."""
    return "∞" if epsilon is None else f"{epsilon:.2f}"


def render_console(report: Report) -> RenderableType:
    """The table of a run, what is not covered by epsilon, and how to look further."""
    return Group(_comparison(report), _figures(report), _seconds(report), _not_covered(report), _next(report))


def model_order(report: Report) -> list[str]:
    """The models that occur, in the order of the table."""
    present = {row.model for row in report.comparison}
    return [name for name in LABELS if name in present]


def auroc_rows(report: Report) -> dict[tuple[str, str], ComparisonRow]:
    """The AUROC rows by model and study."""
    return {
        (row.model, study.study): row
        for study in report.studies
        for row in study.comparison
        if row.metric == "auroc"
    }


def kilobytes(size: int) -> str:
    """A size; nothing is sent in 0 bytes, so 0 means that nobody knows."""
    return f"{size / 1e3:.0f} kB" if size else "not available"


def trained(study: StudyReport) -> str:
    """How many of a study's sites trained."""
    return f"{sum(site.state == 'trained' for site in study.sites)} of {len(study.sites)}"


def gains(report: Report) -> dict[str, float]:
    """By study, the AUROC of the weighted federated reference less that of the mean local-only model."""
    rows = auroc_rows(report)
    found: dict[str, float] = {}
    for study in report.studies:
        together, alone = (rows.get((model, study.study)) for model in ("federated", "local_mean"))
        if together and alone and together.value is not None and alone.value is not None:
            found[study.study] = together.value - alone.value
    return found


def not_covered(report: Report) -> list[str]:
    """What any of the studies releases outside its epsilon, each once."""
    return list(dict.fromkeys(each for study in report.studies for each in study.privacy.not_covered))


def notes(report: Report) -> list[str]:
    """The notes of all studies, each once."""
    return list(dict.fromkeys(note for study in report.studies for note in study.notes))


def _comparison(report: Report) -> Table:
    table = Table(title="AUROC on the pooled test sets of all sites", title_justify="left")
    table.add_column("model")
    for study in report.studies:
        table.add_column(study.outcome, justify="right")
    table.add_column("epsilon", justify="right")
    rows = auroc_rows(report)
    for model in model_order(report):
        cells = (shown(rows.get((model, study.study))) for study in report.studies)
        table.add_row(LABELS[model], *cells, "-" if model == "upper_bound" else _epsilons(report, model))
    return table


def _epsilons(report: Report, model: str) -> str:
    """Of a model in every study that has it: a reference has no guarantee, whatever the study's own model has."""
    rows = auroc_rows(report)
    found = [(study, rows[model, study.study]) for study in report.studies if (model, study.study) in rows]
    if all(row.is_reference for _, row in found):
        return "∞ (reference)"
    spent = (None if row.is_reference else study.privacy.epsilon for study, row in found)
    return " + ".join(map(epsilon_text, spent))


def _figures(report: Report) -> Table:
    table = Table(show_header=False, box=None)
    for study in report.studies:
        table.add_row(f"sites that trained, {study.study}", trained(study))
        for site in study.sites:
            if site.state != "trained":
                table.add_row(f"  {site.name}", f"{site.state}: {site.reason}" if site.reason else site.state)
    table.add_row(
        "epsilon, all studies together",
        f"{epsilon_text(report.epsilon_sum)} per patient (delta of each study)",
    )
    for study in report.studies:
        table.add_row(f"sent per site and round, {study.study}", kilobytes(study.upload_bytes_per_site_round))
        table.add_row("model", f"{study.model.uri} ({study.model.name} version {study.model.version})")
    for study_name, gain in gains(report).items():
        table.add_row(f"weighted federated over local, {study_name}", f"{gain:+.3f} AUROC, neither private")
    verdict = "verified" if report.log.verified else "NOT VERIFIED"
    table.add_row("transparency log", f"{report.log.size} entries, {verdict}, root {report.log.root[:16]}…")
    return table


def _seconds(report: Report) -> Table:
    table = Table(title="seconds per stage", title_justify="left", show_header=False, box=None)
    for stage, seconds in report.seconds.items():
        table.add_row(stage, f"{seconds:.1f}")
    return table


def _not_covered(report: Report) -> Text:
    lines = ["Not covered by epsilon:"] + [f"  - {release}" for release in not_covered(report)]
    lines += [f"Note: {note}" for note in notes(report)]
    return Text("\n".join(lines), style="yellow")


def _next(report: Report) -> Text:
    return Text("\n".join(f"{name}: {command}" for name, command in report.open_with.items()))
