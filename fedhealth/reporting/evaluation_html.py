"""The part of report.html that says how the registered models do."""

from collections.abc import Mapping, Sequence
from html import escape

from fedhealth.evaluation import Figures
from fedhealth.reporting.elements import abreast, details, figure, table
from fedhealth.reporting.evaluation_plots import calibration_svg, decision_svg, subgroups_svg
from fedhealth.reporting.report import Lines, Report, StudyReport, SubgroupRow
from fedhealth.reporting.words import SUPPRESSED, WITHHELD, interval_text, metric_name

_WHY = (
    "Suppressed is what tells of fewer than 11 people, or would do so together with what is shown. Thresholds and tenths "
    "are merged until every cell has 11 people with and 11 without the outcome."
)
_HEADLINES = ("auroc", "c_index", "r2")
_ENDS = ("low", "high")
_THRESHOLDS = ("threshold", "sensitivity", "specificity", "ppv", "npv", "flagged")


def evaluation_section(report: Report) -> str:
    """Plots and tables of every outcome of every study; empty where no study has any."""
    parts = [
        part
        for study in report.studies
        for part in (*(_outcome(study, outcome) for outcome in study.outcome_names), _sites(study))
    ]
    found = "".join(parts)
    return f"<h2>Evaluation</h2><p>{escape(_WHY)}</p>{found}" if found else ""


def _outcome(study: StudyReport, outcome: str) -> str:
    prefix = study.prefix_of(outcome)
    tables = {
        name.removeprefix(prefix): lines for name, lines in study.tables.items() if name.startswith(prefix)
    }
    rows = [row for row in study.subgroups if row.outcome == outcome]
    if not tables and not rows:
        return ""
    figures = {
        name.removeprefix(prefix): value
        for name, value in study.metrics.items()
        if name.startswith(prefix) and "=" not in name
    }
    return (
        f"<section><h3>{escape(study.study)}: {escape(outcome)}</h3>{_plots(tables, rows, figures)}"
        + details("All figures", table(("figure", "value"), _told(figures)))
        + (details("Thresholds", _thresholds(tables["thresholds"])) if "thresholds" in tables else "")
        + (details("Confusion", _confusion(tables["confusion"])) if "confusion" in tables else "")
        + (details("Subgroups", _subgroups(rows)) if rows else "")
        + "</section>"
    )


def _sites(study: StudyReport) -> str:
    """How the model does at each site that shares it, and with references how each site's own model does at the others."""
    kinds = [("this model here", study.site_figures), ("own model at the others", study.local_models)]
    columns = [
        (f"{title}: {name.replace('.', ' ')}", told, name)
        for title, told in kinds
        for name in dict.fromkeys(n for each in told.values() for n in each)
    ]
    sites = sorted({*study.site_figures, *study.local_models})
    rows = [
        (site, *(_cell(told[site].get(name)) if site in told else "-" for _, told, name in columns))
        for site in sites
    ]
    head = ("hospital", *(title for title, _, _ in columns))
    return details(f"By hospital, {study.study}", table(head, rows, numbers=True)) if sites else ""


def _plots(tables: Mapping[str, Lines], rows: Sequence[SubgroupRow], figures: Figures) -> str:
    """The plots of an outcome, side by side where there is room."""
    plots = []
    if "calibration" in tables:
        plots.append(figure(calibration_svg(tables["calibration"]), "Observed rate against mean score"))
    if "decision_curve" in tables:
        plots.append(figure(decision_svg(tables["decision_curve"]), "Net benefit by threshold"))
    if rows:
        name = metric_name(rows[0].metric)
        plot = subgroups_svg(rows, overall=figures.get(rows[0].metric))
        plots.append(figure(plot, f"{name} with 95% interval, by subgroup"))
    return abreast(plots)


def _told(figures: Figures) -> list[tuple[str, str]]:
    """Every figure, headlines and errors with their intervals."""
    rows = []
    for name, value in figures.items():
        stem, _, last = name.rpartition(".")
        if last in _ENDS or last.endswith(tuple(f"_{end}" for end in _ENDS)):
            continue
        ends = _ENDS if last in _HEADLINES else tuple(f"{last}_{end}" for end in _ENDS)
        low, high = (figures.get(f"{stem}.{end}" if stem else end) for end in ends)
        is_count = last.split("_")[0] == "n" and value is not None
        words = (
            f"{value:.0f}"
            if is_count
            else interval_text(value, low, high)
            if value is not None
            else "not told"
        )
        rows.append((f"{stem} {metric_name(last)}".strip(), words))
    return rows


def _thresholds(lines: Lines) -> str:
    """The lines that may be told, and which may not."""
    shown = [line for line in lines if line["flagged"] is not None]
    hidden = [f"{line['threshold']:g}" for line in lines if line["flagged"] is None]
    told = f"<p>Suppressed: {', '.join(hidden)}.</p>" if hidden else ""
    if not shown:
        return f"<p>{escape(SUPPRESSED)} at every threshold.</p>"
    rows = [(f"{line['threshold']:g}", *(_cell(line[name]) for name in _THRESHOLDS[1:])) for line in shown]
    return table(tuple(map(metric_name, _THRESHOLDS)), rows, numbers=True) + told


def _confusion(lines: Lines) -> str:
    names = [name for name in lines[0] if name not in ("true", "n")] if lines else []
    rows = [(str(line["true"]), _cell(line["n"]), *(_cell(line[name]) for name in names)) for line in lines]
    return table(("true class", "rows", *(f"predicted {name}" for name in names)), rows, numbers=True)


def _subgroups(rows: Sequence[SubgroupRow]) -> str:
    told = [
        (
            row.subgrouping.replace("_", " "),
            row.band.replace("_", " "),
            WITHHELD if row.value is None else interval_text(row.value, row.low, row.high),
            "-" if row.n is None else str(row.n),
        )
        for row in rows
    ]
    return table(("subgroup", "band", metric_name(rows[0].metric), "rows"), told)


def _cell(value: float | str | None) -> str:
    if value is None:
        return WITHHELD
    return f"{value:.3f}" if isinstance(value, float) and not value.is_integer() else f"{value:g}"
