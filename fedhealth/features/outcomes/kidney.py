"""The outcome ``kidney_injury``: KDIGO's rise of creatinine."""

from fedhealth.features.matching import starts_with_any
from fedhealth.features.outcomes.form import ALIVE, OutcomeSql
from fedhealth.features.prediction import microseconds
from fedhealth.features.rules import Rule
from fedhealth.features.value_sets import END_STAGE_KIDNEY_DIAGNOSES, END_STAGE_KIDNEY_PROCEDURES
from fedhealth.study.columns import SERIES
from fedhealth.study.outcomes import KidneyInjury
from fedhealth.study.spec import Study

RISE_48H = 0.3
"""mg/dL over the lowest creatinine of the 48 h before."""
RATIO_7D = 1.5
"""Times the lowest creatinine of the 7 days before."""
HIGHEST_BASELINE = 4.0
"""mg/dL; whose lowest creatinine from 7 days before the stay to the prediction is above it was ill already."""
FEWEST_VALUES = 2
"""Creatinines in the stay without which no rise can be seen."""

_CREATININE = next(number for number, feature in enumerate(SERIES) if feature.name == "creatinine")

# Values of the same moment are not before one another. Rounded, since 1.4 - 1.1 is less than 0.3 in binary.
_FACTS = f"""
WITH creatinine AS (
  SELECT person_id, moment, value,
         round(value - min(value) OVER (before RANGE BETWEEN INTERVAL 48 HOUR PRECEDING AND CURRENT ROW EXCLUDE GROUP), 6)
           AS rise,
         round(value - {RATIO_7D} * min(value) OVER
               (before RANGE BETWEEN INTERVAL 7 DAY PRECEDING AND CURRENT ROW EXCLUDE GROUP), 6) AS excess
  FROM value WHERE feature = {_CREATININE} WINDOW before AS (PARTITION BY person_id ORDER BY moment)
), level AS (
  SELECT s.episode_id, min(c.moment) AS first_at, min(c.moment) FILTER (c.value <= {HIGHEST_BASELINE}) AS low_at,
         count(*) FILTER (c.moment >= s.began) AS n,
         min(c.moment) FILTER (c.moment >= s.began AND (c.rise >= {RISE_48H} OR c.excess >= 0)) AS onset
  FROM stay s JOIN creatinine c
    ON c.person_id = s.person_id AND c.moment BETWEEN s.began - INTERVAL 7 DAY AND s.ended
  GROUP BY s.episode_id
), end_stage AS (
  SELECT s.episode_id, min(i.moment) AS moment FROM stay s JOIN icd i USING (person_id)
  WHERE CASE WHEN i.is_diagnosis THEN {starts_with_any("i.code", END_STAGE_KIDNEY_DIAGNOSES)}
             ELSE {starts_with_any("i.code", END_STAGE_KIDNEY_PROCEDURES)} END
  GROUP BY s.episode_id
)
SELECT s.episode_id, l.first_at, l.low_at, l.n, l.onset, e.moment AS end_stage_at
FROM stay s LEFT JOIN level l USING (episode_id) LEFT JOIN end_stage e USING (episode_id)
"""


def kidney_injury(outcome: KidneyInjury, study: Study) -> OutcomeSql:
    """Yes or no: whether the first rise in the stay comes, after the prediction and so many hours of it.

    Source: KDIGO 2012, Kidney Int Suppl 2(1), section 2.1.1, creatinine alone (no urine output).
    """
    start = f"c.began + to_microseconds({microseconds(outcome.onset_after_h)})"
    is_high = "o.first_at <= c.predicted AND coalesce(o.low_at > c.predicted, true)"
    return OutcomeSql(
        label="o.onset IS NOT NULL",
        rules=(
            ALIVE,
            Rule("no end-stage kidney disease", "o.end_stage_at <= c.predicted"),
            Rule(f"baseline creatinine at most {HIGHEST_BASELINE} mg/dL", is_high),
            Rule(
                f"no kidney injury before {outcome.onset_after_h:g} h or by the prediction",
                f"o.onset < {start} OR o.onset <= c.predicted",
            ),
            Rule(f"at least {FEWEST_VALUES} creatinines", f"coalesce(o.n, 0) < {FEWEST_VALUES}"),
        ),
        event="o.onset",
        facts=_FACTS,
    )
