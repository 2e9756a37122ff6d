"""report.html: one self-contained page; it makes no request."""

from collections import Counter
from html import escape

from fedhealth.reporting.combined_html import combined_section
from fedhealth.reporting.elements import abreast, bullets, details, figure, table
from fedhealth.reporting.evaluation_html import evaluation_section
from fedhealth.reporting.plots import comparison_svg, rounds_svg, seconds_svg
from fedhealth.reporting.report import Report, StudyReport
from fedhealth.reporting.words import (
    Line,
    columns,
    epsilon_text,
    gains,
    kilobytes,
    lines,
    not_covered,
    notes,
    rounds_of,
    row_of,
    shown,
    trained,
)

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
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 0 1rem; }
.plots figure { margin: .5rem 0; } .plots svg { min-width: 17rem; max-width: 30rem; }
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
        _comparison_plots(report),
        evaluation_section(report),
        "<h2>Rounds</h2>",
        _rounds(report),
        figure(rounds_svg(report.studies), "The registered model by round"),
        *(_trials(study) for study in report.studies),
        "<h2>How updates were combined</h2>",
        combined_section(report),
        "<h2>Privacy</h2>",
        _privacy(report),
        "<h2>Sites</h2>",
        _sites(report),
        _quality(report),
        *(_attrition(study) for study in report.studies),
        "<h2>Provenance</h2>",
        _provenance(report),
        "<h2>Time</h2>",
        figure(seconds_svg(report.seconds), "Seconds per stage"),
        "<h2>Notes</h2>",
        bullets([*notes(report), *_missing(report)]),
        "<h2>Look further</h2>",
        bullets([f"{name}: {command}" for name, command in report.open_with.items()], code=True),
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
    found = "; ".join(
        f"{gain.where} {gain.value:+.3f} {gain.metric} ({gain.label})" for gain in gains(report)
    )
    gained = f" Federated over mean local-only, neither private: {escape(found)}." if found else ""
    return (
        f"<p>{escape(took_part)}. Epsilon of all studies together: "
        f"<b>{epsilon_text(report.epsilon_sum)}</b> per patient. "
        f"Transparency log: {verdict}, co-signed by {len(report.log.cosigners)} sites.{gained}</p>"
    )


def _comparison(report: Report) -> str:
    compared = columns(report)
    head = "".join(f'<th class="n" scope="col">{escape(column.title)}</th>' for column in compared)
    body = []
    for line in lines(report):
        rows = [row_of(column, line) for column in compared]
        cells = "".join(f'<td class="n">{escape(shown(row)).replace(", ", ",&nbsp;")}</td>' for row in rows)
        row_class = "" if line.is_reference else ' class="own"'
        label = escape(line.label) + _mark(line)
        body.append(f'<tr{row_class}><th scope="row">{label}</th>{cells}</tr>')
    return (
        '<div class="wide" tabindex="0"><table><caption>Figure [95% interval] on the pooled test sets of all sites</caption>'
        f'<thead><tr><th scope="col">model</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _comparison_plots(report: Report) -> str:
    compared = lines(report)
    return abreast(
        [
            figure(comparison_svg(column, compared), f"{column.title} with 95% interval, by model")
            for column in columns(report)
        ]
    )


def _mark(line: Line) -> str:
    """What a row is, where it is not a study's own model."""
    if line.model == "upper_bound":
        return ' <span class="reference">not a model</span>'
    if line.is_reference:
        return ' <span class="reference">reference, epsilon = ∞, never registered</span>'
    return ""


def _rounds(report: Report) -> str:
    told = "; ".join(f"{study.study}: {rounds_of(study)}" for study in report.studies)
    return f"<p>{escape(told)}. A figure is of the model with which its round opened; the last round only scores.</p>"


def _privacy(report: Report) -> str:
    rows = [
        (study.study, study.privacy.mode, epsilon_text(study.privacy.epsilon), _delta(study.privacy.delta))
        for study in report.studies
    ]
    spent = table(("study", "mode", "epsilon (largest site)", "delta"), rows)
    return (
        spent
        + "<p>The unit is the patient. Epsilons of studies over the same patients add up. "
        + "What follows was computed from patients and is <b>not</b> covered by epsilon:</p>"
        + bullets(not_covered(report))
    )


def _trials(study: StudyReport) -> str:
    """The learning rates that were tried in the first rounds, and which one the others went on with."""
    if not study.trials:
        return ""
    rows = [
        (
            f"{each.learning_rate:g}",
            "hidden" if each.signal is None else f"{each.signal:.3f}",
            "chosen" if each.is_chosen else "",
        )
        for each in study.trials
    ]
    return details(
        f"Learning rates tried, {study.study}", table(("learning rate", "pooled figure", ""), rows)
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
    return table(("site", *(study.study for study in report.studies)), rows)


def _quality(report: Report) -> str:
    """What each site told of its data, and which checks failed at how many sites: names, never a value."""
    told = {site: each for study in reversed(report.studies) for site, each in study.quality.items()}
    if not told:
        return ""
    rows = [
        (site, str(each.passed), str(len(each.failed)), ", ".join(each.drift) or "-")
        for site, each in sorted(told.items())
    ]
    checks = table(("site", "checks passed", "failed", "unlike the other sites in"), rows)
    failed = Counter(name for each in told.values() for name in each.failed)
    names = table(
        ("check that failed", "sites"), [(name, f"{n} of {len(told)}") for name, n in failed.most_common()]
    )
    return details("Data quality, as each site told it", checks + (names if failed else ""))


def _attrition(study: StudyReport) -> str:
    """One line per site; counts of 1 to 10, and what gives them away, are hidden."""
    sites = list(study.attrition)
    if not sites:
        return ""
    steps = [str(each["step"]) for each in study.attrition[sites[0]]]
    rows = [(site, *(_count(each["patients"]) for each in study.attrition[site])) for site in sites]
    left = table(("site", *steps), rows, css="wide whole")
    return details(f"Attrition, {study.study} (patients left after each step)", left)


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
        table(("model", "run", "study digest", "sent per site and round"), rows, css="wide whole")
        + f"<p>Log: {report.log.size} entries, root <code>{escape(report.log.root)}</code>, "
        + f"co-signed by {escape(', '.join(report.log.cosigners) or 'nobody')}. "
        + f"{_with_code(report.log.proves)}</p>"
    )


def _with_code(text: str) -> str:
    """What stands between backticks as code."""
    parts = (escape(part) for part in text.split("`"))
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _missing(report: Report) -> list[str]:
    return [
        f"{study.study}: fewer than 11 people have (or lack) {', '.join(study.missing_features)}"
        for study in report.studies
        if study.missing_features
    ]
