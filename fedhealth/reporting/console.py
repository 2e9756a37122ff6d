"""The final table on screen."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedhealth.reporting.report import ComparisonRow, Report

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
    """The AUROC rows by model and outcome."""
    return {(row.model, row.outcome): row for row in report.comparison if row.metric == "auroc"}


def _comparison(report: Report) -> Table:
    outcomes = [study.outcome for study in report.studies]
    table = Table(title="AUROC on the pooled test sets of all sites", title_justify="left")
    table.add_column("model")
    for outcome in outcomes:
        table.add_column(outcome, justify="right")
    table.add_column("epsilon", justify="right")
    rows = auroc_rows(report)
    for model in model_order(report):
        references = [row for (name, _), row in rows.items() if name == model]
        epsilon = "∞ (reference)" if all(row.is_reference for row in references) else _epsilons(report)
        if model == "upper_bound":
            epsilon = "-"
        table.add_row(LABELS[model], *(shown(rows.get((model, outcome))) for outcome in outcomes), epsilon)
    return table


def _epsilons(report: Report) -> str:
    return " + ".join(epsilon_text(study.privacy.epsilon) for study in report.studies)


def _figures(report: Report) -> Table:
    table = Table(show_header=False, box=None)
    trained = sum(site.state == "trained" for site in report.sites)
    table.add_row("sites that trained", f"{trained} of {len(report.sites)}")
    for site in report.sites:
        if site.state != "trained":
            table.add_row(f"  {site.name}", f"{site.state}: {site.reason}")
    table.add_row(
        "epsilon, all studies together",
        f"{epsilon_text(report.epsilon_sum)} per patient (delta of each study)",
    )
    for study in report.studies:
        table.add_row(
            f"sent per site and round, {study.study}", f"{study.upload_bytes_per_site_round / 1e3:.0f} kB"
        )
        table.add_row("model", f"{study.model.uri} ({study.model.name} version {study.model.version})")
    verdict = "verified" if report.log.verified else "NOT VERIFIED"
    table.add_row("transparency log", f"{report.log.size} entries, {verdict}, root {report.log.root[:16]}…")
    return table


def _seconds(report: Report) -> Table:
    table = Table(title="seconds per stage", title_justify="left", show_header=False, box=None)
    for stage, seconds in report.seconds.items():
        table.add_row(stage, f"{seconds:.1f}")
    return table


def _not_covered(report: Report) -> Text:
    lines = ["Not covered by epsilon:"] + [f"  - {release}" for release in report.privacy.not_covered]
    lines += [f"Note: {note}" for note in report.notes]
    return Text("\n".join(lines), style="yellow")


def _next(report: Report) -> Text:
    return Text("\n".join(f"{name}: {command}" for name, command in report.open_with.items()))
