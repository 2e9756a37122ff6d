"""report.html: one self-contained page; it makes no request."""

from collections.abc import Sequence
from html import escape

from fedhealth.reporting.console import LABELS, auroc_rows, epsilon_text, model_order, shown
from fedhealth.reporting.plots import comparison_svg, rounds_svg, seconds_svg
from fedhealth.reporting.report import Report, StudyReport

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0b6e99; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { overflow-wrap: normal; text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; } tr.own { font-weight: 600; background: var(--soft); }
.reference { opacity: .75; font-size: .85em; } .bad { color: #b00020; font-weight: 600; }
.good { color: #1f7a3a; font-weight: 600; } code { background: var(--soft); padding: .1rem .3rem; }
figure { margin: 1rem 0; background: #fff; border-radius: .4rem; padding: .5rem; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
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
        *(_attrition(study) for study in report.studies),
        "<h2>Provenance</h2>",
        _provenance(report),
        "<h2>Time</h2>",
        _figure(seconds_svg(report.seconds), "Seconds per stage"),
        "<h2>Notes</h2>",
        _list([*report.notes, *_missing(report)]),
        "<h2>Look further</h2>",
        _list([f"{name}: {command}" for name, command in report.open_with.items()], code=True),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>FedHealth: {escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body><main>{"".join(parts)}</main></body></html>'
    )


def _summary(report: Report) -> str:
    trained = sum(site.state == "trained" for site in report.sites)
    verdict = (
        '<span class="good">verified</span>'
        if report.log.verified
        else '<span class="bad">NOT VERIFIED</span>'
    )
    return (
        f"<p>{trained} of {len(report.sites)} sites trained. Epsilon of all studies together: "
        f"<b>{epsilon_text(report.epsilon_sum)}</b> per patient. Transparency log: {verdict}.</p>"
    )


def _comparison(report: Report) -> str:
    outcomes = [study.outcome for study in report.studies]
    rows = auroc_rows(report)
    head = "".join(f'<th class="n" scope="col">{escape(outcome)}</th>' for outcome in outcomes)
    body = []
    for model in model_order(report):
        is_reference = all(row.is_reference for (name, _), row in rows.items() if name == model)
        cells = "".join(
            f'<td class="n">{escape(shown(rows.get((model, outcome))))}</td>' for outcome in outcomes
        )
        mark = (
            ' <span class="reference">reference, epsilon = ∞, never registered</span>' if is_reference else ""
        )
        if model == "upper_bound":
            mark = ' <span class="reference">not a model</span>'
        row_class = "" if is_reference else ' class="own"'
        body.append(f'<tr{row_class}><th scope="row">{escape(LABELS[model])}{mark}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table><caption>AUROC [95% interval] on the pooled test sets of all sites</caption>'
        f'<thead><tr><th scope="col">model</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


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
        + _list(list(report.privacy.not_covered))
    )


def _delta(delta: float | None) -> str:
    return "-" if delta is None else f"{delta:g}"


def _sites(report: Report) -> str:
    rows = []
    for site in report.sites:
        states = [next(each for each in study.sites if each.name == site.name) for study in report.studies]
        rows.append(
            (site.name, *(f"{each.state}{': ' + each.reason if each.reason else ''}" for each in states))
        )
    return _table(("site", *(study.study for study in report.studies)), rows)


def _attrition(study: StudyReport) -> str:
    """One line per site; counts of 1 to 10, and what gives them away, are hidden."""
    sites = list(study.attrition)
    if not sites:
        return ""
    steps = [str(each["step"]) for each in study.attrition[sites[0]]]
    rows = [(site, *(_count(each["patients"]) for each in study.attrition[site])) for site in sites]
    table = _table(("site", *steps), rows)
    return f"<details><summary>Attrition, {escape(study.study)} (patients left after each step)</summary>{table}</details>"


def _count(value: str | int | None) -> str:
    return "hidden" if value is None else str(value)


def _provenance(report: Report) -> str:
    rows = [
        (
            study.model.uri,
            study.run,
            study.study_digest[:16] + "…",
            f"{study.upload_bytes_per_site_round / 1e3:.0f} kB",
        )
        for study in report.studies
    ]
    return (
        _table(("model", "run", "study digest", "sent per site and round"), rows)
        + f"<p>Log: {report.log.size} entries, root <code>{escape(report.log.root)}</code>. "
        + "Prove it yourself: <code>fedhealth audit verify WORKDIR</code></p>"
    )


def _missing(report: Report) -> list[str]:
    return [
        f"{study.study}: no site has the feature {name}"
        for study in report.studies
        for name in study.missing_features
    ]


def _figure(svg: str, caption: str) -> str:
    return f'<figure role="img" aria-label="{escape(caption)}">{svg}</figure>'


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(items: list[str], *, code: bool = False) -> str:
    shape = (lambda text: f"<code>{text}</code>") if code else (lambda text: text)
    return (
        "<ul>" + "".join(f"<li>{shape(escape(item))}</li>" for item in items) + "</ul>"
        if items
        else "<p>None.</p>"
    )
