"""The final table on screen."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedhealth.reporting.report import Report
from fedhealth.reporting.words import (
    Column,
    Line,
    columns,
    epsilon_text,
    gains,
    kilobytes,
    lines,
    mode_text,
    not_covered,
    notes,
    rounds_of,
    row_of,
    rule_text,
    shown,
    trained,
)

_COLUMNS = 3
"""Outcomes in one table, so that it fits 120 signs."""
_LABEL = 26
"""Signs that the name of a model has in any case."""


def render_console(report: Report) -> RenderableType:
    """The table of a run, what is not covered by epsilon, and how to look further."""
    return Group(
        *_comparisons(report), _figures(report), _seconds(report), _not_covered(report), _next(report)
    )


def _comparisons(report: Report) -> list[Table]:
    """Models against outcomes; several tables where one would be too wide."""
    compared = columns(report)
    groups = [compared[start : start + _COLUMNS] for start in range(0, len(compared), _COLUMNS)]
    return [_comparison(lines(report), group) for group in groups]


def _comparison(found: list[Line], compared: list[Column]) -> Table:
    table = Table(title="Models on the pooled test sets of all sites", title_justify="left")
    table.add_column("model", min_width=min(_LABEL, max(len(line.label) for line in found)))
    for column in compared:
        table.add_column(column.title, justify="right")
    table.add_column("epsilon", justify="right")
    for line in found:
        rows = [row_of(column, line) for column in compared]
        if any(rows):
            epsilon = "-" if line.model == "upper_bound" else _epsilons(compared, line)
            table.add_row(line.label, *map(shown, rows), epsilon)
    return table


def _epsilons(compared: list[Column], line: Line) -> str:
    """Of a model in every study that has it: a reference has no guarantee, whatever the study's own model has."""
    if line.is_reference:
        return "∞ (reference)"
    found = {column.study.study: column.study for column in compared if row_of(column, line)}
    return " + ".join(epsilon_text(study.privacy.epsilon) for study in found.values())


def _figures(report: Report) -> Table:
    table = Table(show_header=False, box=None)
    for study in report.studies:
        table.add_row(f"rounds, {study.study}", rounds_of(study))
        if (found := study.combining) is not None:
            table.add_row(f"updates, {study.study}", f"{rule_text(found)}; {mode_text(found)}")
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
    for gain in gains(report):
        told = f"{gain.value:+.3f} {gain.metric}, neither private"
        table.add_row(f"{gain.label} over local, {gain.where}", told)
    verdict = "verified" if report.log.verified else "NOT VERIFIED"
    signed = f"co-signed by {len(report.log.cosigners)} sites"
    table.add_row(
        "transparency log", f"{report.log.size} entries, {verdict}, {signed}, root {report.log.root[:16]}…"
    )
    table.add_row("", "it proves the released models, not this report")
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
