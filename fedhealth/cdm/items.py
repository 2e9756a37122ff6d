"""Observations as rows: components apart, numbers in the concept's unit, the rest as coded values."""

import duckdb
import pyarrow as pa

from fedhealth.cdm.keys import keyed_ids
from fedhealth.vocabulary.concepts import OPERATORS, TYPE_EHR

_OPERATORS = "CASE comparator " + " ".join(f"WHEN '{c}' THEN {n}" for c, n in OPERATORS.items()) + " END"

_ITEM = """
CREATE TABLE part AS
SELECT seq, 0 AS n, code_concept_id AS concept_id, code_value, valueQuantity AS q, valueInteger AS whole,
       valueBoolean AS flag, valueCodeableConcept.coding AS coding, referenceRange[1] AS span
FROM e_Observation
WHERE coalesce(len(component), 0) = 0 OR valueQuantity IS NOT NULL OR valueInteger IS NOT NULL
   OR valueBoolean IS NOT NULL OR valueCodeableConcept IS NOT NULL OR valueString IS NOT NULL
   OR NOT list_bool_or(list_transform(component, lambda x: x.code.coding IS NOT NULL))
UNION ALL
SELECT seq, n, coalesce(coded.concept_id, 0), coalesce(coded.source_value, '|'), c.valueQuantity, c.valueInteger, c.valueBoolean,
       c.valueCodeableConcept.coding, c.referenceRange[1]
FROM (SELECT seq, unnest(component) AS c, generate_subscripts(component, 1) AS n FROM e_Observation
      WHERE len(component) > 0)
LEFT JOIN coded_measurement coded ON coded.json = c.code.coding WHERE c.code.coding IS NOT NULL
"""

_FLAT = """
CREATE TABLE item AS
SELECT part.seq, n, part.concept_id, code_value, value_code.source_value AS value_coded, flag,
       CASE WHEN isfinite(coalesce(q.value, whole)) THEN coalesce(q.value, whole) END AS number,
       number IS NOT NULL AS has_number, coalesce(q.comparator, '') AS comparator,
       coalesce(q.system, '') AS unit_system, coalesce(q.code, '') AS unit_code, coalesce(q.unit, '') AS unit_text,
       span.low.value AS low, span.high.value AS high,
       part.concept_id <> 0 OR has_number OR is_clinical AS is_measurement
FROM part JOIN (SELECT seq, coalesce(list_bool_or(list_transform(category,
        lambda c: list_has_any(list_transform(c.coding, lambda x: x.code), ['laboratory', 'vital-signs']))), false) AS is_clinical
      FROM e_Observation) USING (seq)
LEFT JOIN coded_value value_code ON value_code.json = part.coding
"""

_INFER = """
CREATE TABLE inferred AS
SELECT i.seq, i.n, any_value(p.factor) AS factor, any_value(p.shift) AS shift
FROM item i JOIN unit_of u USING (concept_id, unit_system, unit_code, unit_text)
JOIN plausible p ON p.concept_id = i.concept_id AND i.number BETWEEN p.low AND p.high
WHERE u.state = 'unit_missing' AND i.has_number AND {allowed} GROUP BY ALL HAVING count(*) = 1
"""

_VALUED = """
CREATE TABLE valued AS
SELECT i.*, f.seq IS NOT NULL AS is_inferred, u.unit_concept_id,
       CASE WHEN f.seq IS NOT NULL THEN 'inferred' ELSE u.state END AS state,
       coalesce(f.factor, u.factor) AS factor, coalesce(f.shift, u.shift) AS shift,
       f.seq IS NULL AND u.state IN ('unit', 'unit_missing') AS is_lost
FROM item i LEFT JOIN unit_of u ON i.has_number AND u.concept_id = i.concept_id AND u.unit_system = i.unit_system
 AND u.unit_code = i.unit_code AND u.unit_text = i.unit_text
LEFT JOIN inferred f ON f.seq = i.seq AND f.n = i.n
"""


def split_items(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``item``: one row per observation or component, from ``e_Observation``."""
    database.execute(_ITEM)
    database.execute(_FLAT)


def value_items(database: duckdb.DuckDBPyConnection, *, infer: bool, site_secret: bytes) -> None:
    """Make out_measurement and out_observation from ``item`` and ``unit_of``.

    A number whose unit cannot be brought to the concept's is null there, and its row is kept.
    """
    database.execute(_INFER.format(allowed="true" if infer else "false"))
    database.execute(_VALUED)
    refs: pa.Table = database.sql(
        "SELECT v.seq, n, e.ref || '#' || n AS ref FROM valued v JOIN e_Observation e USING (seq) WHERE n > 0"
    ).to_arrow_table()
    ids = keyed_ids(refs.column("ref").to_pylist(), site_secret=site_secret)
    database.register("part_keys", refs.append_column("part_key", pa.array(ids, pa.int64())))
    database.execute(
        "CREATE TABLE row_of AS SELECT v.*, e.person_id, e.day, e.time, e.visit_id, e.detail_id, e.link, "
        "coalesce(k.part_key, e.key) AS key, coalesce(k.ref, e.ref) AS ref "
        "FROM valued v JOIN e_Observation e USING (seq) LEFT JOIN part_keys k ON k.seq = v.seq AND k.n = v.n"
    )
    database.unregister("part_keys")
    database.execute(_MEASUREMENT)
    database.execute(_OBSERVATION)


_UNIT = "coalesce(nullif(unit_code, ''), nullif(unit_text, ''))"

_MEASUREMENT = f"""
CREATE TABLE out_measurement AS
SELECT seq, key AS measurement_id, person_id, concept_id AS measurement_concept_id, day AS measurement_date,
       time AS measurement_datetime, {TYPE_EHR} AS measurement_type_concept_id,
       {_OPERATORS} AS operator_concept_id,
       CASE WHEN NOT coalesce(is_lost, false) THEN number * factor + shift END AS value_as_number,
       CASE WHEN value_coded IS NOT NULL THEN 0 END AS value_as_concept_id,
       CASE WHEN is_lost THEN 0 ELSE unit_concept_id END AS unit_concept_id,
       CASE WHEN NOT coalesce(is_lost, false) THEN low * factor + shift END AS range_low,
       CASE WHEN NOT coalesce(is_lost, false) THEN high * factor + shift END AS range_high,
       visit_id AS visit_occurrence_id, detail_id AS visit_detail_id, code_value AS measurement_source_value,
       {_UNIT} AS unit_source_value, coalesce(value_coded, number::VARCHAR, flag::VARCHAR) AS value_source_value, link, ref
FROM row_of WHERE is_measurement
"""

_OBSERVATION = f"""
CREATE TABLE out_observation AS
SELECT seq, key AS observation_id, person_id, concept_id AS observation_concept_id, day AS observation_date,
       time AS observation_datetime, {TYPE_EHR} AS observation_type_concept_id, NULL::DOUBLE AS value_as_number,
       coalesce(value_coded, flag::VARCHAR) AS value_as_string,
       CASE WHEN value_coded IS NOT NULL THEN 0 END AS value_as_concept_id, visit_id AS visit_occurrence_id,
       code_value AS observation_source_value, link, ref
FROM row_of WHERE NOT is_measurement
"""
