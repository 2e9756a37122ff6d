"""Index visits: transfer chains of inpatient stays, and single visits of the other kinds.

Tables made here: ``chain`` (inpatient visits with their episode), ``episode`` (inpatient stays), ``member`` (the visits
of every index visit) and ``stay`` (index visits with what is known of the person).
"""

import duckdb

from fedhealth.features.value_sets import (
    EMERGENCY_VISITS,
    EXPIRED_CONCEPTS,
    INPATIENT_CONCEPTS,
    OUTPATIENT_VISITS,
    RACE_OTHER,
    RACE_OTHER_CODE,
    sql_list,
)
from fedhealth.study.spec import Study

# Stays whose next start is within 24 h of the latest end so far are one episode (a transfer chain). A visit
# without an end is still open: whatever starts later belongs to it.
_CHAIN = f"""
CREATE TEMP TABLE chain AS
WITH inpatient AS (
  SELECT *, coalesce(ended, TIMESTAMP '9999-12-31') AS until
  FROM visit WHERE concept_id IN {sql_list(INPATIENT_CONCEPTS)} AND coalesce(ended >= began, true)
), marked AS (
  SELECT *, max(until) OVER (PARTITION BY person_id ORDER BY began, until, visit_id
                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS so_far
  FROM inpatient
), numbered AS (
  SELECT *, count(*) FILTER (WHERE so_far IS NULL OR began > so_far + INTERVAL 24 HOUR)
              OVER (PARTITION BY person_id ORDER BY began, until, visit_id) AS number
  FROM marked
)
SELECT *, first_value(visit_id) OVER (PARTITION BY person_id, number ORDER BY began, until, visit_id) AS episode_id
FROM numbered
"""

_EPISODE = """
CREATE TEMP TABLE episode AS
SELECT episode_id, person_id, min(began) AS began, max(until) AS ended, bool_or(ended IS NULL) AS is_open,
       min_by(is_emergency, (began, until, visit_id)) AS is_emergency,
       min_by(is_planned, (began, until, visit_id)) AS is_planned,
       max_by(discharged_to, (until, began, visit_id)) AS discharged_to
FROM chain GROUP BY episode_id, person_id
"""

_SINGLE = """
SELECT visit_id AS episode_id, person_id, began, coalesce(ended, TIMESTAMP '9999-12-31') AS ended,
       ended IS NULL AS is_open, is_emergency, is_planned, discharged_to
FROM visit WHERE {kind} AND coalesce(ended >= began, true)
"""

_KINDS = {
    "inpatient": f"concept_id IN {sql_list(INPATIENT_CONCEPTS)}",
    "emergency": f"concept_id IN {sql_list(EMERGENCY_VISITS)}",
    "outpatient": f"concept_id IN {sql_list(OUTPATIENT_VISITS)}",
    "any": "true",
}
"""SQL for the visits of a kind."""

_OTHERS = f"concept_id NOT IN {sql_list(INPATIENT_CONCEPTS)}"

_MEMBER = """
CREATE TEMP TABLE member AS
SELECT episode_id, visit_id FROM chain WHERE episode_id IN (SELECT episode_id FROM ({index}))
UNION ALL
SELECT episode_id, episode_id FROM ({index}) WHERE episode_id NOT IN (SELECT episode_id FROM chain)
"""

# In-hospital death: the disposition first, then a recorded death within the stay or on its last day.
_STAY = f"""
CREATE TEMP TABLE stay AS
WITH joined AS (
  SELECT e.*, d.died_on, d.died_at, o.until AS observed_until,
         coalesce(p.birth_datetime::DATE,
                  make_date(p.year_of_birth, coalesce(p.month_of_birth, 1),
                            coalesce(p.day_of_birth, 1))) AS born,
         p.gender_concept_id,
         CASE WHEN coalesce(p.race_concept_id, 0) = 0 AND p.race_source_value = '{RACE_OTHER_CODE}'
              THEN {RACE_OTHER} ELSE p.race_concept_id END AS race_concept_id
  FROM ({{index}}) e JOIN person p USING (person_id)
  LEFT JOIN dead d USING (person_id) LEFT JOIN observed o USING (person_id)
)
SELECT *, date_sub('year', born, began::DATE) AS age,
       coalesce(discharged_to IN {sql_list(EXPIRED_CONCEPTS)}, false)
         OR coalesce(died_on BETWEEN began::DATE AND ended::DATE, false) AS died_in_stay,
       CASE WHEN died_at BETWEEN began AND ended THEN died_at ELSE ended END AS died_in_stay_at
FROM joined
"""


def find_stays(database: duckdb.DuckDBPyConnection, study: Study) -> None:
    """Make ``episode``, ``member`` and ``stay``; needs ``visit``, ``dead``, ``observed`` and ``person``.

    Guarantees: a visit that ends before it starts is in none of them; inpatient visits are always chained, any
    other visit is an index visit of its own.
    """
    database.execute(_CHAIN)
    database.execute(_EPISODE)
    index = _index_visits(study.cohort.index.visit)
    database.execute(_MEMBER.format(index=index))
    database.execute(_STAY.format(index=index))


def visits_that_end_early(visit: str) -> str:
    """SQL for the persons of the visits of a kind that end before they start."""
    return f"SELECT person_id FROM visit WHERE {_KINDS[visit]} AND ended < began"


def _index_visits(visit: str) -> str:
    if visit == "inpatient":
        return "SELECT * FROM episode"
    if visit == "any":
        return f"SELECT * FROM episode UNION ALL {_SINGLE.format(kind=_OTHERS)}"
    return _SINGLE.format(kind=_KINDS[visit])
