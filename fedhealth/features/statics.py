"""The static features, from what was known at the prediction time."""

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.features.tables import as_array, end_of_day
from fedhealth.features.value_sets import (
    ELIXHAUSER_PREFIXES,
    EMERGENCY_CONCEPTS,
    ICD_10,
    ICD_10_PCS,
    sql_list,
)
from fedhealth.study.spec import Study
from fedhealth.vocabulary import concepts

_PRIOR = """
WITH prior AS (
  SELECT i.row_id, count(*) FILTER (WHERE e.began >= i.began - INTERVAL 365 DAY) AS admissions,
         min(epoch(i.began - e.ended)) / 86400 AS days
  FROM index_stay i JOIN episode e ON e.person_id = i.person_id AND e.ended < i.began
  GROUP BY i.row_id
), ed AS (
  SELECT i.row_id, count(*) AS visits
  FROM index_stay i JOIN visit v ON v.person_id = i.person_id
   AND v.concept_id IN {emergency} AND v.begun_by < i.began AND v.begun_by >= i.began - INTERVAL 183 DAY
  GROUP BY i.row_id
)"""

# Only diagnoses of visits that were over before this stay: its own codes may be final after discharge.
_COMORBIDITY = """, diagnosis AS (
  SELECT c.person_id, v.ended,
         replace(upper(split_part(c.condition_source_value, '|', -1)), '.', '') AS code
  FROM condition_occurrence c JOIN visit v ON v.visit_id = c.visit_occurrence_id AND v.person_id = c.person_id
  WHERE {of_system}
    AND coalesce(c.condition_status_concept_id <> {refuted}, true)
), disease AS (
  SELECT DISTINCT d.person_id, d.ended, g.name
  FROM diagnosis d JOIN elixhauser g ON starts_with(d.code, g.prefix)
), comorbidity AS (
  SELECT i.row_id, count(DISTINCT s.name) AS n
  FROM index_stay i JOIN disease s ON s.person_id = i.person_id AND s.ended < i.began
  GROUP BY i.row_id
)"""

# ICD-10-PCS section 0 is "medical and surgical"; its codes have seven characters.
_SURGERY = """, surgery AS (
  SELECT person_id, {at} AS moment FROM procedure_occurrence
  WHERE regexp_full_match(split_part(procedure_source_value, '|', -1), '0[0-9A-Z]{{6}}')
    AND {of_system}
), surgical AS (
  SELECT DISTINCT i.row_id FROM index_stay i JOIN surgery s
    ON s.person_id = i.person_id AND s.moment BETWEEN i.began AND i.predicted
)"""

_SELECT = """
SELECT least(i.age, 90)::DOUBLE AS age,
       CASE i.gender_concept_id WHEN {female} THEN 1.0 WHEN {male} THEN 0.0 ELSE 'nan'::DOUBLE END AS sex,
       i.is_emergency::DOUBLE AS emergency_admission,
       coalesce(p.admissions, 0)::DOUBLE AS prior_admissions_12m,
       coalesce(d.visits, 0)::DOUBLE AS prior_ed_6m,
       least(coalesce(p.days, 365), 365)::DOUBLE AS days_since_discharge,
       coalesce(c.n, 0)::DOUBLE AS comorbidity_count,
       (s.row_id IS NOT NULL)::DOUBLE AS surgical
FROM index_stay i LEFT JOIN prior p USING (row_id) LEFT JOIN ed d USING (row_id)
LEFT JOIN comorbidity c USING (row_id) LEFT JOIN surgical s USING (row_id)
ORDER BY i.row_id
"""


def static_features(database: duckdb.DuckDBPyConnection, study: Study, *, rows: int) -> NDArray[np.float32]:
    """The static features that a study names, of every index stay.

    Returns:
      float32, shape (rows, statics), in the order of the study; NaN only for a sex that is neither male nor female.
    """
    chosen = study.features.statics
    if not chosen:
        return np.zeros((rows, 0), dtype=np.float32)
    database.execute("CREATE TEMP TABLE elixhauser (name VARCHAR, prefix VARCHAR)")
    values = ", ".join(
        f"('{name}', '{prefix}')" for name, prefixes in ELIXHAUSER_PREFIXES for prefix in prefixes
    )
    database.execute(f"INSERT INTO elixhauser VALUES {values}")
    query = (
        _PRIOR.format(emergency=sql_list(EMERGENCY_CONCEPTS))
        + _COMORBIDITY.format(
            refuted=concepts.CONDITION_REFUTED, of_system=_of_system("c.condition_source_value", ICD_10)
        )
        + _SURGERY.format(
            at=end_of_day("procedure_date", "procedure_datetime"),
            of_system=_of_system("procedure_source_value", ICD_10_PCS),
        )
        + _SELECT.format(female=concepts.GENDER_FEMALE, male=concepts.GENDER_MALE)
    )
    columns = database.execute(query).fetchnumpy()
    return np.stack([as_array(columns[name], np.float32) for name in chosen], axis=1)


def _of_system(column: str, pattern: str) -> str:
    """SQL: a ``system|code`` of such a system, or a code without a system."""
    system = f"regexp_matches(split_part({column}, '|', 1), '{pattern}', 'i')"
    return f"CASE WHEN contains({column}, '|') THEN {system} ELSE true END"
