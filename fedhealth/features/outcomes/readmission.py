"""The outcome ``readmission``: the first inpatient stay after discharge, if it is unplanned."""

from fedhealth.features.outcomes.form import OutcomeSql, followed, missing_rules
from fedhealth.features.rules import Rule
from fedhealth.study.outcomes import Readmission
from fedhealth.study.spec import Study

_NEXT_STAY = """
SELECT s.episode_id, min_by(n.is_planned, n.began) AS is_planned, min(n.began) AS began
FROM stay s JOIN episode n ON n.person_id = s.person_id AND n.began > s.ended
GROUP BY s.episode_id
"""


def readmission(outcome: Readmission, study: Study) -> OutcomeSql:
    """Yes or no; the first stay decides: if it is planned, later ones in the window do not count."""
    days = outcome.follow_up_days
    within = f"o.began <= c.ended + INTERVAL {outcome.within_days} DAY"
    return OutcomeSql(
        label=f"coalesce({within} AND NOT o.is_planned, false)",
        rules=(
            *missing_rules(outcome.missing_if),
            Rule(f"followed for {days} days", f"NOT {followed('c.ended', days)}"),
        ),
        event="o.began",
        facts=_NEXT_STAY,
    )
