"""The measurements of a hospital's own OMOP in our units: converted, inferred, or without their number, as from FHIR."""

import duckdb

from fedhealth.cdm.accounting import ValueCount
from fedhealth.cdm.coding import list_plausible, match_units
from fedhealth.vocabulary.concepts import UNITS_OF
from fedhealth.vocabulary.site_map import SiteMap

_OF_UNIT = """
CREATE TABLE unit_here AS
SELECT DISTINCT m.measurement_concept_id AS concept_id, coalesce(m.unit_concept_id, 0) AS unit_id,
       coalesce(m.unit_source_value, '') AS source, '' AS unit_system,
       CASE WHEN coalesce(m.unit_concept_id, 0) = 0 THEN '' ELSE coalesce(n.unit, 'concept ' || m.unit_concept_id) END
       AS unit_code, CASE WHEN n.unit IS NULL THEN coalesce(m.unit_source_value, '') ELSE '' END AS unit_text
FROM out_measurement m LEFT JOIN unit_name n ON n.unit_id = m.unit_concept_id
WHERE m.measurement_concept_id IN (SELECT concept_id FROM plausible)
"""

_STATED = """
CREATE TABLE stated AS
SELECT m.row, m.measurement_concept_id AS concept_id, m.value_as_number AS number, u.state, u.factor, u.shift, u.unit_concept_id
FROM out_measurement m JOIN unit_here h ON h.concept_id = m.measurement_concept_id
 AND h.unit_id = coalesce(m.unit_concept_id, 0) AND h.source = coalesce(m.unit_source_value, '')
JOIN unit_of u USING (concept_id, unit_system, unit_code, unit_text)
"""

_INFERRED = """
CREATE TABLE inferred AS
SELECT s.row, any_value(p.factor) AS factor, any_value(p.shift) AS shift
FROM stated s JOIN plausible p ON p.concept_id = s.concept_id AND s.number BETWEEN p.low AND p.high
WHERE s.state = 'unit_missing' AND {allowed} GROUP BY s.row HAVING count(*) = 1
"""

_CONVERTED = """
CREATE TABLE converted AS
SELECT s.row, s.number, s.unit_concept_id, coalesce(i.factor, s.factor) AS factor, coalesce(i.shift, s.shift) AS shift,
       CASE WHEN i.row IS NOT NULL THEN 'inferred' WHEN NOT isfinite(s.number * s.factor + s.shift) THEN 'unit'
            ELSE s.state END AS state
FROM stated s LEFT JOIN inferred i USING (row)
"""

_IN_OUR_UNITS = """
CREATE OR REPLACE TABLE out_measurement AS
SELECT m.* REPLACE (
    CASE WHEN c.row IS NULL THEN value_as_number WHEN NOT is_lost THEN value_as_number * factor + shift END AS value_as_number,
    CASE WHEN c.row IS NULL THEN range_low WHEN NOT is_lost AND isfinite(range_low * factor + shift)
         THEN range_low * factor + shift END AS range_low,
    CASE WHEN c.row IS NULL THEN range_high WHEN NOT is_lost AND isfinite(range_high * factor + shift)
         THEN range_high * factor + shift END AS range_high,
    CASE WHEN c.row IS NULL THEN m.unit_concept_id WHEN number IS NULL THEN NULL WHEN is_lost THEN 0
         ELSE c.unit_concept_id END AS unit_concept_id)
FROM out_measurement m LEFT JOIN (SELECT *, state IN ('unit', 'unit_missing') AS is_lost FROM converted) c USING (row)
"""


_LOST = """
INSERT INTO quarantined
SELECT 'measurement', row, state FROM converted WHERE number IS NOT NULL AND state IN ('unit', 'unit_missing')
"""


def convert_units(database: duckdb.DuckDBPyConnection, site_map: SiteMap, *, unreadable: int) -> ValueCount:
    """Bring the numbers and ranges of ``out_measurement`` to the units of their concepts.

    A row's unit is what its ``unit_concept_id`` says, and, if that is 0 or not known, its ``unit_source_value``. A number
    whose unit does not fit, or is missing and cannot be inferred where the site allows it, becomes null; its row stays,
    and ``quarantined`` has its number.

    Args:
      database: with ``out_measurement`` and ``quarantined``.
      site_map: of the site.
      unreadable: how many numbers of such measurements could not be read: they are accounted for with the others.

    Returns:
      The account of the numbers of measurements that have a unit of ours.
    """
    database.execute("CREATE TABLE unit_name (unit_id INTEGER, unit VARCHAR)")
    database.executemany("INSERT INTO unit_name VALUES (?, ?)", list(UNITS_OF.items()))
    list_plausible(database)
    database.execute(_OF_UNIT)
    match_units(database, "unit_here", site_map=site_map)
    allowed = "true" if site_map.settings.unit_inference else "false"
    for statement in (_STATED, _INFERRED.format(allowed=allowed), _CONVERTED, _LOST, _IN_OUR_UNITS):
        database.execute(statement)
    found = dict(
        database.execute(
            "SELECT state, count(*) FROM converted WHERE number IS NOT NULL GROUP BY state"
        ).fetchall()
    )
    loaded = {state: found.get(state, 0) for state in ("as_is", "converted", "inferred")}
    found["unreadable"] = unreadable
    lost = {state: n for state in ("unit", "unit_missing", "unreadable") if (n := found.get(state, 0))}
    return ValueCount(
        read=sum(loaded.values()) + sum(lost.values()),
        loaded=sum(loaded.values()),
        converted=loaded["converted"],
        inferred=loaded["inferred"],
        quarantined=lost,
    )
