"""report.html: one self-contained page; it makes no request."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from fedhealth.reporting.console import (
    LABELS,
    auroc_rows,
    epsilon_text,
    gains,
    kilobytes,
    model_order,
    not_covered,
    notes,
    shown,
    trained,
)
from fedhealth.reporting.plots import comparison_svg, rounds_svg, seconds_svg
from fedhealth.reporting.report import ComparisonRow, Report, StudyReport

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #b00020; --good: #1f7a3a; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff7a85; --good: #62c883; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { overflow-wrap: normal; text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
caption { text-align: left; padding: 0 .6rem .4rem; } td:first-child { white-space: nowrap; }
td.n, th.n { text-align: right; } .whole td { white-space: nowrap; }
tr.own { font-weight: 600; background: var(--soft); }
.reference { opacity: .8; font-size: .85em; font-weight: 400; } .bad { color: var(--bad); font-weight: 600; }
.good { color: var(--good); font-weight: 600; } code { background: var(--soft); padding: .1rem .3rem; }
figure { margin: 1rem 0; overflow-x: auto; } summary { margin-top: .6rem; }
figure svg { display: block; width: 100%; min-width: 40rem; height: auto; } figure text { fill: currentColor; }
.wide { overflow-x: auto; }
@media (max-width: 32rem) { th, td { padding: .3rem; font-size: .9rem; } }
@media print { body { max-width: none; margin: 0; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def render_html(report: Report) -> str:
    """The whole page; every text in it is escaped."""
    title = " and ".join(study.study for study in report.studies)
    parts = [
        f"<h1>FedHealth report: {escape(title)}</h1>",
        f"<p>{escape(' · '.join(study.title for study in report.studies if study.title))}</p>",
        _summary(report),
        "<h2>Comparison</h2>",
        _comparison(report),
        _figure(comparison_svg(report), "AUROC with 95% interval, by model"),
        "<h2>Rounds</h2>",
        _figure(rounds_svg(report.studies), "Pooled AUROC of the registered model by round"),
        "<h2>Privacy</h2>",
        _privacy(report),
        "<h2>Sites</h2>",
        _sites(report),
        _quality(report),
        *(_attrition(study) for study in report.studies),
        "<h2>Provenance</h2>",
        _provenance(report),
        "<h2>Time</h2>",
        _figure(seconds_svg(report.seconds), "Seconds per stage"),
        "<h2>Notes</h2>",
        _list([*notes(report), *_missing(report)]),
        "<h2>Look further</h2>",
        _list([f"{name}: {command}" for name, command in report.open_with.items()], code=True),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>FedHealth: {escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body><main>{"".join(parts)}</main></body></html>'
    )


def _summary(report: Report) -> str:
    took_part = "; ".join(f"{study.study}: {trained(study)} sites trained" for study in report.studies)
    verdict = (
        '<span class="good">verified</span>'
        if report.log.verified
        else '<span class="bad">NOT VERIFIED</span>'
    )
    found = "; ".join(f"{name} {gain:+.3f}" for name, gain in gains(report).items())
    gained = (
        f" Weighted federated over mean local-only AUROC, neither private: {escape(found)}." if found else ""
    )
    return (
        f"<p>{escape(took_part)}. Epsilon of all studies together: "
        f"<b>{epsilon_text(report.epsilon_sum)}</b> per patient. Transparency log: {verdict}.{gained}</p>"
    )


def _comparison(report: Report) -> str:
    rows = auroc_rows(report)
    head = "".join(f'<th class="n" scope="col">{escape(study.outcome)}</th>' for study in report.studies)
    body = []
    for model in model_order(report):
        own = [study for study in report.studies if _is_own(rows.get((model, study.study)))]
        figures = [escape(shown(rows.get((model, study.study)))) for study in report.studies]
        cells = "".join(f'<td class="n">{figure.replace(", ", ",&nbsp;")}</td>' for figure in figures)
        row_class = ' class="own"' if own else ""
        label = escape(LABELS[model]) + _mark(report, model)
        body.append(f'<tr{row_class}><th scope="row">{label}</th>{cells}</tr>')
    return (
        f'<div class="wide" tabindex="0"><table><caption>AUROC [95% interval] on the pooled test sets of all sites</caption>'
        f'<thead><tr><th scope="col">model</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _is_own(row: ComparisonRow | None) -> bool:
    return row is not None and not row.is_reference


def _mark(report: Report, model: str) -> str:
    """What a row is, where it is not a study's own model."""
    if model == "upper_bound":
        return ' <span class="reference">not a model</span>'
    rows = auroc_rows(report)
    found = {study.outcome: rows.get((model, study.study)) for study in report.studies}
    references = [outcome for outcome, row in found.items() if row is not None and row.is_reference]
    if not references:
        return ""
    where = f" for {', '.join(references)}" if any(map(_is_own, found.values())) else ""
    return f' <span class="reference">reference{escape(where)}, epsilon = ∞, never registered</span>'


def _privacy(report: Report) -> str:
    rows = [
        (study.study, study.privacy.mode, epsilon_text(study.privacy.epsilon), _delta(study.privacy.delta))
        for study in report.studies
    ]
    table = _table(("study", "mode", "epsilon (largest site)", "delta"), rows)
    return (
        table
        + "<p>The unit is the patient. Epsilons of studies over the same patients add up. "
        + "What follows was computed from patients and is <b>not</b> covered by epsilon:</p>"
        + _list(not_covered(report))
    )


def _delta(delta: float | None) -> str:
    return "-" if delta is None else f"{delta:g}"


def _sites(report: Report) -> str:
    names = dict.fromkeys(site.name for study in report.studies for site in study.sites)
    states = [
        {site.name: f"{site.state}{': ' + site.reason if site.reason else ''}" for site in study.sites}
        for study in report.studies
    ]
    rows = [(name, *(told.get(name, "-") for told in states)) for name in names]
    return _table(("site", *(study.study for study in report.studies)), rows)


def _quality(report: Report) -> str:
    """What each site told of its data, and which checks failed at how many sites: names, never a value."""
    told = {site: each for study in reversed(report.studies) for site, each in study.quality.items()}
    if not told:
        return ""
    rows = [
        (site, str(each.passed), str(len(each.failed)), ", ".join(each.drift) or "-")
        for site, each in sorted(told.items())
    ]
    table = _table(("site", "checks passed", "failed", "unlike the other sites in"), rows)
    failed = Counter(name for each in told.values() for name in each.failed)
    names = _table(
        ("check that failed", "sites"), [(name, f"{n} of {len(told)}") for name, n in failed.most_common()]
    )
    return f"<details><summary>Data quality, as each site told it</summary>{table}{names if failed else ''}</details>"


def _attrition(study: StudyReport) -> str:
    """One line per site; counts of 1 to 10, and what gives them away, are hidden."""
    sites = list(study.attrition)
    if not sites:
        return ""
    steps = [str(each["step"]) for each in study.attrition[sites[0]]]
    rows = [(site, *(_count(each["patients"]) for each in study.attrition[site])) for site in sites]
    table = _table(("site", *steps), rows, css="wide whole")
    return f"<details><summary>Attrition, {escape(study.study)} (patients left after each step)</summary>{table}</details>"


def _count(value: str | int | None) -> str:
    return "hidden" if value is None else str(value)


def _provenance(report: Report) -> str:
    rows = [
        (
            study.model.uri,
            study.run,
            study.study_digest[:16] + "…",
            kilobytes(study.upload_bytes_per_site_round),
        )
        for study in report.studies
    ]
    return (
        _table(("model", "run", "study digest", "sent per site and round"), rows, css="wide whole")
        + f"<p>Log: {report.log.size} entries, root <code>{escape(report.log.root)}</code>. "
        + "Prove it yourself: <code>fedhealth audit verify WORKDIR</code></p>"
    )


def _missing(report: Report) -> list[str]:
    return [
        f"{study.study}: fewer than 11 people have (or lack) {', '.join(study.missing_features)}"
        for study in report.studies
        if study.missing_features
    ]


def _figure(svg: str, caption: str) -> str:
    return f'<figure role="img" tabindex="0" aria-label="{escape(caption)}">{svg}</figure>'


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, css: str = "wide") -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="{css}" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(items: list[str], *, code: bool = False) -> str:
    shape = (lambda text: f"<code>{text}</code>") if code else (lambda text: text)
    return (
        "<ul>" + "".join(f"<li>{shape(escape(item))}</li>" for item in items) + "</ul>"
        if items
        else "<p>None.</p>"
    )
