"""Intensive care that an encounter tells by its locations alone: times in a unit that the site names."""

import duckdb
import pyarrow as pa

from fedhealth.cdm.keys import keyed_ids

LOCATIONS = "list_transform(location, lambda x: x.location.reference)"
"""SQL for the references of an Encounter to its locations."""

_THERE = """
CREATE TABLE there AS
SELECT s.seq, s.ref, r.top, s.person_id, n, coalesce(told.period.start, s.start_text) AS start_text,
       coalesce(told.period."end", s.end_text) AS end_text
FROM (SELECT seq, unnest(location) AS told, generate_subscripts(location, 1) - 1 AS n FROM p_Encounter)
JOIN stay s USING (seq) JOIN root r ON r.ref = s.ref LEFT JOIN pointed d ON d.ref = told.location.reference
WHERE coalesce(told.status, '') NOT IN ('planned', 'reserved') AND NOT coalesce(s.is_icu, false)
  AND (told.location.reference IN ({listed}) OR d.target IN ({listed}))
"""

_WARD = """
CREATE TABLE ward AS
SELECT seq, ref || '#' || n AS ref, top, person_id, number AS key, start_text, end_text,
       CASE WHEN length(start_text) > 10 THEN moment(start_text) ELSE day_of(start_text)::TIMESTAMP END AS began,
       at_end(end_text) AS ended
FROM there JOIN ward_key USING (ref, n)
WHERE day_of(start_text) IS NOT NULL AND (end_text IS NULL OR day_of(end_text) IS NOT NULL)
  AND coalesce(at_end(end_text) >= CASE WHEN length(start_text) > 10 THEN moment(start_text)
                                        ELSE day_of(start_text)::TIMESTAMP END, true)
"""


def find_wards(
    database: duckdb.DuckDBPyConnection, locations: tuple[str, ...], *, site_secret: bytes
) -> None:
    """Make ``ward``: the times of kept encounters, of no intensive care by class, in the given locations.

    A time without a period is that of its encounter; one that cannot be read, or that ends before it starts, is none.
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
