"""The reference table of the checks, as Markdown made from the code that runs."""

from fedhealth.cdm.tables import TABLES
from fedhealth.validation.checks import CHECKS
from fedhealth.validation.concept_rules import column_rules, measured_rules
from fedhealth.validation.limits import RANGES
from fedhealth.validation.rules import Rule, rules_for

_HEAD = """# Quality checks

Made from the code (`python -m fedhealth.validation.reference`); a test holds it current. Names of the first 26 are those of the
OHDSI Data Quality Dashboard. Its 27th, `plausibleGenderUseDescendants`, is not done: it needs the SNOMED CT hierarchy.
Limits are the share of rows that may fail; they follow from the design and are fixed before any data is scored.
"""


def all_rules() -> tuple[Rule, ...]:
    """Every rule over rows, of all tables."""
    return (
        *(each for table in TABLES.values() for each in (*rules_for(table), *column_rules(table))),
        *measured_rules(),
    )


def markdown() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_kinds(), "", "## Ranges of measured values", "", *_ranges(), ""])


def _kinds() -> list[str]:
    rules = all_rules()
    lines = [
        "| check | category | a row fails when | severity | may fail | rules |",
        "|---|---|---|---|---|---|",
    ]
    for check in CHECKS.values():
        own = [each for each in rules if each.check == check.name]
        severities = ", ".join(dict.fromkeys([check.severity, *(each.severity for each in own)]))
        limits = sorted({each.max_share for each in own} or {check.max_share})
        shares = ", ".join(f"{limit:.0%}" for limit in limits)
        number = str(len(own)) if own else "structure"
        name = check.name if check.is_dashboard else f"{check.name} (ours)"
        lines.append(f"| {name} | {check.category} | {check.failing} | {severities} | {shares} | {number} |")
    return lines


def _ranges() -> list[str]:
    lines = ["| quantity | possible (fatal) | usual (convention) |", "|---|---|---|"]
    for name, found in RANGES.items():
        usual = f"{found.usual[0]:g} to {found.usual[1]:g}" if found.usual else ""
        lines.append(f"| {name} | {found.low:g} to {found.high:g} | {usual} |")
    return lines


if __name__ == "__main__":
    print(markdown(), end="")
