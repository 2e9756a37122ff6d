"""The part of report.html that says how the sites' updates became one."""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from fedhealth.reporting.elements import table
from fedhealth.reporting.report import CombinedRound, Combining, Report, StudyReport
from fedhealth.reporting.words import kilobytes, mode_text, rounds_of, rule_text

_FACTS = ("study", "updates travel", "combined by", "bits per number", "share sent", "reopened each round by")
_ROUND = ("round", "in the sum", "left out", "same result (R5)", "co-signed the log", "sent per site")


def combined_section(report: Report) -> str:
    """What each study says of its updates, and a line for every stretch of rounds in which the same sites were in the sum."""
    known = [(study, study.combining) for study in report.studies if study.combining is not None]
    if not known:
        return "<p>Not known: what the sites left on the exchange was not read.</p>"
    facts = table(_FACTS, [(study.study, *_facts(found)) for study, found in known])
    return facts + "".join(_study(study, found) for study, found in known)


def _facts(found: Combining) -> tuple[str, ...]:
    return (
        mode_text(found),
        rule_text(found),
        "32, exact" if found.ring_bits >= 32 else f"{found.ring_bits}, rounded; the first of a run exact",
        "all" if found.sent_share == 1.0 else f"{found.sent_share:.0%} of the parameters",
        f"{found.reopened_by} sites or more, as {found.colluders} may collude",
    )


def _study(study: StudyReport, found: Combining) -> str:
    lines = [list(rounds) for _, rounds in groupby(found.rounds, key=_who)]
    rows = [_line(rounds, len(study.sites)) for rounds in lines]
    blamed = "; ".join(f"{site}: {problem}" for site, problem in found.blamed.items())
    return (
        f"<p>{escape(study.study)}: {escape(rounds_of(study))}. Same result: sites that opened the sums anew and came to what is"
        " published.</p>"
        + table(_ROUND, rows)
        + (f"<p>Blamed by the coordinator since it was started: {escape(blamed)}</p>" if blamed else "")
    )


def _who(each: CombinedRound) -> tuple[object, ...]:
    """What rounds in one line have in common."""
    return each.included, sorted(each.left_out.items()), each.contradicted


def _line(rounds: Sequence[CombinedRound], enrolled: int) -> tuple[str, ...]:
    first, sent = rounds[0], [size for each in rounds for size in each.upload_bytes.values() if size]
    agreed = _range(each.agreed for each in rounds)
    against = f", not {', '.join(first.contradicted)}" if first.contradicted else ""
    return (
        _range(each.round for each in rounds),
        f"{len(first.included)} of {enrolled}",
        _left_out(first) or "-",
        f"{agreed} of {enrolled}{against}",
        f"{_range(each.cosigners for each in rounds)} of {enrolled}",
        " to ".join(dict.fromkeys((kilobytes(min(sent, default=0)), kilobytes(max(sent, default=0))))),
    )


def _left_out(each: CombinedRound) -> str:
    """The sites by the reason for which they are not in the sum."""
    reasons = dict.fromkeys(each.left_out.values())
    sites = {why: [site for site, own in each.left_out.items() if own == why] for why in reasons}
    return "; ".join(f"{', '.join(named)}: {why}" for why, named in sites.items())


def _range(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"
