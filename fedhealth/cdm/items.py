"""Observations as rows: components apart, numbers in the concept's unit, the rest as coded values."""

from pathlib import Path

import duckdb
import pyarrow as pa

from fedhealth.cdm.keys import keyed_ids
from fedhealth.cdm.workspace import quoted

_OF_EVENT = ("seq", "person_id", "day", "time", "visit_id", "detail_id", "link", "is_clinical")
_OF_CODE = ("concept_id", "code_value", "state", "factor", "shift", "unit_concept_id", "unit_value")
_OF_VALUE = ("number", "flag", "comparator", "low", "high")


def _from(table: str, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{table}.{column}" for column in columns)


_ITEM = f"""
CREATE OR REPLACE TEMP VIEW item AS
SELECT {_from("k", (*_OF_EVENT, *_OF_CODE, *_OF_VALUE))}, value_coded, value_concept, 0 AS n, k.key, k.id
FROM kept k WHERE is_item
"""

_COMPONENTS = """
CREATE OR REPLACE TEMP TABLE part AS
SELECT c.*, k.id AS whole FROM read_parquet([{files}]) c JOIN (SELECT seq, id FROM kept WHERE has_components) k USING (seq)
"""

_COMPONENT_ITEM = f"""
CREATE OR REPLACE TEMP TABLE component_item AS
SELECT {_from("k", _OF_EVENT)}, {_from("m", _OF_CODE)}, {_from("c", _OF_VALUE)},
       v.source_value, v.concept_id, c.n, keys.part_key, c.whole || '#' || c.n
FROM part c JOIN keys USING (seq, n) JOIN kept k USING (seq) JOIN measure_of m ON m.number = c.quantity
LEFT JOIN coded_value v ON v.json = c.coding
"""

_INFERRED = """
CREATE OR REPLACE TEMP TABLE inferred AS
SELECT i.seq, i.n, any_value(p.factor) AS factor, any_value(p.shift) AS shift
FROM item i JOIN plausible p ON p.concept_id = i.concept_id AND i.number BETWEEN p.low AND p.high
WHERE i.state = 'unit_missing' AND {allowed} GROUP BY ALL HAVING count(*) = 1
"""

_CONVERTED = """
CREATE OR REPLACE TEMP VIEW converted AS
SELECT i.* REPLACE (coalesce(f.factor, i.factor) AS factor, coalesce(f.shift, i.shift) AS shift,
                    CASE WHEN number IS NULL THEN NULL WHEN f.seq IS NOT NULL THEN 'inferred'
                         WHEN NOT isfinite(number * i.factor + i.shift) THEN 'unit' ELSE state END AS state)
FROM item i LEFT JOIN inferred f ON f.seq = i.seq AND f.n = i.n
"""
"""A number that is finite, and in the concept's unit is not, has a unit that does not fit."""

_VALUED = """
CREATE OR REPLACE TEMP VIEW valued AS
SELECT * REPLACE (CASE WHEN isfinite(low * factor + shift) THEN low END AS low,
                  CASE WHEN isfinite(high * factor + shift) THEN high END AS high),
       coalesce(state IN ('unit', 'unit_missing'), false) AS is_lost,
       concept_id <> 0 OR number IS NOT NULL OR is_clinical AS is_measurement
FROM converted
"""

_LOST = """
INSERT INTO "left"
SELECT seq, 'Observation', 'value', v.state, CASE WHEN n = 0 THEN 'Observation.valueQuantity'
       ELSE 'Observation.component.valueQuantity' END, k.piece, k.line, k.digest, k.id
FROM valued v JOIN (SELECT seq, piece, line, digest, id FROM kept) k USING (seq) WHERE is_lost
"""


def make_items(
    database: duckdb.DuckDBPyConnection, components: list[Path], *, infer: bool, site_secret: bytes
) -> None:
    """Make ``valued``: one row per observation or component, from ``kept`` and the staged components.

    A number that cannot be brought to the concept's unit is lost, its row is kept.
    """
    database.execute(_ITEM)
    if components:
        _add_components(database, components, site_secret)
    database.execute(_INFERRED.format(allowed="true" if infer else "false"))
    database.execute(_CONVERTED)
    database.execute(_VALUED)
    database.execute(_LOST)
    database.execute(
        "INSERT INTO tally SELECT 'value', state, '', count(*) FROM valued "
        "WHERE state IS NOT NULL AND state <> 'source' GROUP BY state"
    )


def _add_components(database: duckdb.DuckDBPyConnection, files: list[Path], site_secret: bytes) -> None:
    listed = ", ".join(f"'{quoted(path)}'" for path in files)
    database.execute(_COMPONENTS.format(files=listed))
    refs: pa.Table = database.sql("SELECT seq, n, whole || '#' || n AS part_id FROM part").to_arrow_table()
    ids = keyed_ids(refs.column("part_id").to_pylist(), of="Observation", site_secret=site_secret)
    database.register("keys", refs.append_column("part_key", pa.array(ids, pa.int64())))
    database.execute(_COMPONENT_ITEM)
    database.unregister("keys")
    database.execute(f"{_ITEM} UNION ALL FROM component_item")
