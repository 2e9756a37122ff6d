"""Intensive care that an encounter tells by its locations alone: times in a unit that the site names."""

import duckdb
import pyarrow as pa

from fedhealth.cdm.keys import keyed_ids

WARD = ("visit_detail", "location")
"""What an anonymizer configuration drops if it drops locations, or their times."""
LOCATIONS = "list_transform(location, lambda x: x.location.reference)"
"""SQL for the references of an Encounter to its locations."""

_THERE = """
CREATE TABLE there AS
SELECT s.seq, s.ref, r.top, s.person_id, n, s.began AS stay_began, s.ended AS stay_ended,
       s.start_text AS stay_start, s.end_text AS stay_end,
       CASE WHEN told.period IS NOT NULL OR places = 1 THEN coalesce(told.period.start, s.start_text) END AS start_text,
       coalesce(told.period."end", s.end_text) AS end_text
FROM (SELECT seq, unnest(location) AS told, generate_subscripts(location, 1) - 1 AS n, len(location) AS places FROM p_Encounter)
JOIN stay s USING (seq) JOIN root r ON r.ref = s.ref LEFT JOIN pointed d ON d.ref = told.location.reference
WHERE coalesce(told.status, '') NOT IN ('planned', 'reserved') AND NOT (coalesce(s.is_icu, false) AND r.depth > 0)
  AND (told.location.reference IN ({listed}) OR d.target IN ({listed}))
"""

_BEGAN = "CASE WHEN length({0}) > 10 THEN moment({0}) ELSE day_of({0})::TIMESTAMP END"

_WARD = f"""
CREATE TABLE ward AS
WITH clipped AS (
  SELECT * REPLACE (
      CASE WHEN {_BEGAN.format("start_text")} < stay_began THEN stay_start ELSE start_text END AS start_text,
      CASE WHEN at_end(end_text) > stay_ended THEN stay_end ELSE end_text END AS end_text)
  FROM there WHERE day_of(start_text) IS NOT NULL AND (end_text IS NULL OR day_of(end_text) IS NOT NULL)
), timed AS (
  SELECT *, {_BEGAN.format("start_text")} AS began, at_end(end_text) AS ended FROM clipped
)
SELECT seq, ref || '#' || n AS ref, top, person_id, number AS key, start_text, end_text, began, ended
FROM timed JOIN ward_key USING (ref, n) WHERE coalesce(ended >= began, true)
QUALIFY row_number() OVER (PARTITION BY top, began, ended ORDER BY ref, n) = 1
"""


def find_wards(
    database: duckdb.DuckDBPyConnection, locations: tuple[str, ...], *, site_secret: bytes
) -> None:
    """Make ``ward``: the times of kept encounters in the given locations, unless a class tells them already.

    A time without a period is that of its encounter if it was in no other location; a time counts within its encounter,
    and once per visit. What cannot be read, or ends before it starts, is none: ``there`` has it.
    Needs ``stay`` and ``root``.
    """
    names = {each for name in locations for each in (name, "Location/" + name.removeprefix("Location/"))}
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in sorted(names)) or "NULL"
    database.execute(_THERE.format(listed=listed))
    found: pa.Table = database.sql("SELECT ref, n FROM there").to_arrow_table()
    parts = [f"{ref}#{n}" for ref, n in zip(found["ref"].to_pylist(), found["n"].to_pylist(), strict=True)]
    numbers = pa.array(keyed_ids(parts, site_secret=site_secret), pa.int64())
    database.register("ward_key", found.append_column("number", numbers))
    database.execute(_WARD)
    database.unregister("ward_key")
