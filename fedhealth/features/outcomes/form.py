"""What an outcome is as SQL, and the rules that several outcomes share.

Conditions and labels are over ``candidate`` c (index visit and prediction) and the outcome's own facts o, one row an
index visit. Days of a window end with the day: the last of ``within_days`` counts whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fedhealth.features.rules import Rule
from fedhealth.features.value_sets import ACUTE_TRANSFER_CONCEPTS, AGAINST_ADVICE_CONCEPTS, sql_list
from fedhealth.study.outcomes import MissingIf
from fedhealth.study.spec import Study


@dataclass(frozen=True, slots=True)
class OutcomeSql:
    """One outcome as SQL.

    Attributes:
      label: the label, as `fedhealth.study.targets` writes it; used where no rule says that it is not known.
      rules: why it is not known, in the order of the attrition table.
      event: the time of the event, NULL where it does not happen; None for an outcome that is none.
      facts: a query with ``episode_id``, at most one row each, and what the others call ``o``.
    """

    label: str
    rules: tuple[Rule, ...]
    event: str | None = None
    facts: str = "SELECT NULL::BIGINT AS episode_id WHERE false"


DIED_AT = "CASE WHEN c.died_in_stay THEN c.died_in_stay_at ELSE c.died_at END"
"""SQL for the time of death, NULL for who is not known to have died."""

ALIVE = Rule("alive at the prediction", f"{DIED_AT} <= c.predicted")

_MISSING: dict[MissingIf, Rule] = {
    "died_in_stay": Rule("discharged alive", "c.died_in_stay"),
    "left_against_advice": Rule(
        "not against advice", f"c.discharged_to IN {sql_list(AGAINST_ADVICE_CONCEPTS)}"
    ),
    "transferred_acute": Rule(
        "not transferred to acute care", f"c.discharged_to IN {sql_list(ACUTE_TRANSFER_CONCEPTS)}"
    ),
}


def missing_rules(reasons: Iterable[MissingIf]) -> list[Rule]:
    """The rules of ``missing_if``."""
    return [_MISSING[reason] for reason in reasons]


def window_rules(study: Study, *, end: str) -> list[Rule]:
    """Rows leave whose window is over by the prediction; after admission the language has seen to that."""
    if study.prediction.at == "admission":
        return []
    return [Rule("the window is open at the prediction", f"{end} <= c.predicted")]


def followed(start: str, days: int) -> str:
    """SQL: seen for so many days, where death counts as seen; never NULL."""
    end = f"{start}::DATE + {days}"
    return f"(coalesce(c.observed_until >= {end}, false) OR coalesce(c.died_on <= {end}, false))"
