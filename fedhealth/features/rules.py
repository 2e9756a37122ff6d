"""Who leaves a cohort: one rule a step of the attrition table, over ``candidate`` c, ``measured`` m, ``reason`` r."""

from dataclasses import dataclass

import duckdb

from fedhealth.features.matching import icd_code, is_established, is_icd_10, is_icd_10_pcs, starts_with_any
from fedhealth.features.prediction import microseconds
from fedhealth.features.tables import end_of_day
from fedhealth.features.value_sets import REASON_DIAGNOSES, REASON_PROCEDURES
from fedhealth.study.spec import Study


@dataclass(frozen=True, slots=True)
class Rule:
    """One exclusion: its name in the attrition table, and the SQL condition of the rows that leave."""

    name: str
    leaves: str


# Diagnoses that were refuted or never established say nothing.
_ICD = f"""
CREATE TEMP VIEW icd AS
SELECT person_id, visit_occurrence_id AS visit_id, true AS is_diagnosis, {icd_code("condition_source_value")} AS code,
       {end_of_day("condition_start_date", "condition_start_datetime")} AS moment
FROM condition_occurrence
WHERE {is_icd_10("condition_source_value")} AND {is_established("condition_status_concept_id")}
UNION ALL
SELECT person_id, visit_occurrence_id, false, {icd_code("procedure_source_value")},
       {end_of_day("procedure_date", "procedure_datetime")}
FROM procedure_occurrence WHERE {is_icd_10_pcs("procedure_source_value")}
"""

_MEASURED = """
CREATE TEMP TABLE measured AS
WITH times AS (
  SELECT DISTINCT c.episode_id, c.predicted, c.began, v.moment
  FROM candidate c JOIN value v
    ON v.person_id = c.person_id AND v.moment BETWEEN c.began AND c.predicted
), gaps AS (
  SELECT *, moment - lag(moment, 1, began) OVER (PARTITION BY episode_id, predicted ORDER BY moment) AS before
  FROM times
)
SELECT episode_id, predicted, count(DISTINCT floor(epoch(moment - began) / 3600)) AS hours,
       greatest(max(epoch(before)), epoch(predicted - max(moment))) / 3600 AS gap_h
FROM gaps GROUP BY episode_id, predicted
"""

# Codes of the stay's own visits; those without a visit by their time.
_REASON = """
CREATE TEMP TABLE reason AS
WITH own AS (
  SELECT m.episode_id, i.* FROM member m JOIN icd i USING (visit_id)
  UNION ALL
  SELECT s.episode_id, i.* FROM stay s JOIN icd i
    ON i.person_id = s.person_id AND i.visit_id IS NULL AND i.moment BETWEEN s.began AND s.ended
)
SELECT episode_id, {reasons} FROM own GROUP BY episode_id
"""


def make_facts(database: duckdb.DuckDBPyConnection, study: Study) -> str:
    """Make ``icd``, and what the study's rules look up; needs ``candidate``, ``stay``, ``member`` and ``value``.

    ``measured`` has the hours with a value of the series features from the start to the prediction, and the
    longest gap; ``reason`` the first time of each reason.

    Returns:
      SQL that joins them to ``candidate`` c.
    """
    database.execute(_ICD)
    exclude, joins = study.cohort.exclude, ""
    if exclude.measured_hours_under is not None or exclude.gap_over_h is not None:
        database.execute(_MEASURED)
        joins += " LEFT JOIN measured m USING (episode_id, predicted)"
    if exclude.reasons:
        columns = ", ".join(map(_first_time, sorted(set(exclude.reasons))))
        database.execute(_REASON.format(reasons=columns))
        joins += " LEFT JOIN reason r USING (episode_id)"
    return joins


def _first_time(reason: str) -> str:
    diagnosis, procedure = (
        starts_with_any("code", prefixes[reason]) for prefixes in (REASON_DIAGNOSES, REASON_PROCEDURES)
    )
    return f"min(moment) FILTER (CASE WHEN is_diagnosis THEN {diagnosis} ELSE {procedure} END) AS {reason}"


def index_rules(study: Study) -> list[Rule]:
    """Who is of age, in stays that have ended."""
    age, rules = study.cohort.age, [Rule("the stay has ended", "c.is_open")]
    rules.append(Rule("has a birth date", "c.born IS NULL"))
    if age.min is not None:
        rules.append(Rule(f"age at least {age.min}", f"c.age < {age.min}"))
    if age.max is not None:
        rules.append(Rule(f"age at most {age.max}", f"c.age > {age.max}"))
    return rules


def exclusions(study: Study, *, event: str | None) -> list[Rule]:
    """The exclusions of the cohort; ``event`` is SQL for the time of the study's only outcome."""
    exclude, rules = study.cohort.exclude, list[Rule]()
    if exclude.stay_under_h is not None:
        rules.append(
            Rule(f"stays at least {exclude.stay_under_h:g} h", f"c.ended < {_after(exclude.stay_under_h)}")
        )
    if event is not None:
        rules += event_rules(study, event=event)
    if exclude.measured_hours_under is not None:
        hours = exclude.measured_hours_under
        rules.append(Rule(f"measured in at least {hours} h", f"coalesce(m.hours, 0) < {hours}"))
    if exclude.gap_over_h is not None:
        gap = "coalesce(m.gap_h, epoch(c.predicted - c.began) / 3600)"
        rules.append(Rule(f"no gap over {exclude.gap_over_h:g} h", f"{gap} > {exclude.gap_over_h!r}"))
    rules += [Rule(f"no {reason} reason", f"r.{reason} <= c.predicted") for reason in exclude.reasons]
    if study.prediction.at != "discharge":
        rules.append(Rule("still in hospital at the prediction", "c.ended <= c.predicted"))
    return rules


def event_rules(study: Study, *, event: str) -> list[Rule]:
    """The rule about early events, where the study has one."""
    hours = study.cohort.exclude.event_before_h
    return [] if hours is None else [Rule(f"no event before {hours:g} h", f"{event} < {_after(hours)}")]


def _after(hours: float) -> str:
    return f"c.began + to_microseconds({microseconds(hours)})"
