"""The verdict of the gate: names, severities and coarse shares; nothing that came out of a patient's row."""

import json
from dataclasses import asdict, dataclass

from fedhealth.privacy.people import MIN_CELL
from fedhealth.validation.checks import Severity

_BUCKETS = ((0.01, "under 1%"), (0.05, "1-5%"), (0.25, "5-25%"), (0.5, "25-50%"), (1.01, "over 50%"))


@dataclass(frozen=True, slots=True)
class Check:
    """One check's result.

    Attributes:
      name: the check, from a closed list, e.g. ``isPrimaryKey:person_id``.
      table: the OMOP table, or ``cdm`` for the folder as a whole.
      severity: what a failure means.
      passed: whether the share of failing rows is within the rule's.
      share_failed: ``none``, ``fewer than 11 rows``, a bucket such as ``1-5%``, or None where fewer than 11
        rows were counted and some failed.
      n: rows counted; None below 11.
    """

    name: str
    table: str
    severity: Severity
    passed: bool
    share_failed: str | None
    n: int | None


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """All checks of one CDM, in a fixed order.

    Attributes:
      passed: no fatal check failed.
      checks: every check that could be counted; rules of a table without its columns are absent, as the fatal
        check of its structure has failed then.
    """

    passed: bool
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The fatal checks that failed."""
        return tuple(check for check in self.checks if check.severity == "fatal" and not check.passed)

    @property
    def warnings(self) -> tuple[Check, ...]:
        """The conventions that are not kept."""
        return tuple(check for check in self.checks if check.severity == "convention" and not check.passed)

    @property
    def reason(self) -> str:
        """Why the site abstains, as one code ``validation/TABLE/CHECK``; empty when it passed."""
        failed = self.failures
        return f"validation/{failed[0].table}/{failed[0].name}" if failed else ""

    def to_json(self) -> str:
        """The report as JSON with ``schema_version`` 1. It holds no value and no count below 11."""
        body = {
            "schema_version": 1,
            "passed": self.passed,
            "reason": self.reason,
            "checks": [asdict(check) for check in self.checks],
        }
        return json.dumps(body, indent=2)


def share_bucket(*, rows: int, failed: int) -> str | None:
    """Say coarsely how many of ``rows`` failed; see `Check.share_failed`."""
    if failed == 0:
        return "none"
    if rows < MIN_CELL:
        return None
    if failed < MIN_CELL:
        return f"fewer than {MIN_CELL} rows"
    share = failed / rows
    return next(text for limit, text in _BUCKETS if share < limit)
