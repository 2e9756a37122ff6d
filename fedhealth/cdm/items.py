"""Observations as rows: components apart, numbers in the concept's unit, the rest as coded values."""

from pathlib import Path

import duckdb
import pyarrow as pa

from fedhealth.cdm.keys import keyed_ids
from fedhealth.cdm.workspace import quoted

_SHARED = (
    "k.seq, k.person_id, k.day, k.time, k.visit_id, k.detail_id, k.link, k.is_clinical, "
    "concept_id, code_value, state, factor, shift, unit_concept_id"
)
_VALUES = "coding, number, flag, comparator, unit_code, unit_text, low, high"

_ITEM = f"""
CREATE OR REPLACE TEMP VIEW item AS
SELECT {_SHARED}, 0 AS n, k.key, k.id, {_VALUES} FROM kept k WHERE is_item
"""

_COMPONENTS = """
CREATE OR REPLACE TEMP TABLE part AS
SELECT c.*, k.id AS whole FROM read_parquet([{files}]) c JOIN (SELECT seq, id FROM kept WHERE has_components) k USING (seq)
"""

_COMPONENT_ITEM = f"""
CREATE OR REPLACE TEMP TABLE component_item AS
SELECT k.seq, k.person_id, k.day, k.time, k.visit_id, k.detail_id, k.link, k.is_clinical,
       m.concept_id, m.code_value, m.state, m.factor, m.shift, m.unit_concept_id,
       c.n, keys.part_key, c.whole || '#' || c.n, {", ".join(f"c.{name}" for name in _VALUES.split(", "))}
FROM part c JOIN keys USING (seq, n) JOIN kept k USING (seq)
JOIN measure_of m ON m.code = c.code AND m.unit_system = c.unit_system AND m.unit_code = c.unit_code
 AND m.unit_text = c.unit_text
"""

_INFERRED = """
CREATE OR REPLACE TEMP TABLE inferred AS
SELECT i.seq, i.n, any_value(p.factor) AS factor, any_value(p.shift) AS shift
FROM item i JOIN plausible p ON p.concept_id = i.concept_id AND i.number BETWEEN p.low AND p.high
WHERE i.state = 'unit_missing' AND {allowed} GROUP BY ALL HAVING count(*) = 1
"""

_VALUED = """
CREATE OR REPLACE TEMP TABLE valued AS
SELECT i.* REPLACE (coalesce(f.factor, i.factor) AS factor, coalesce(f.shift, i.shift) AS shift,
                    CASE WHEN number IS NULL THEN NULL WHEN f.seq IS NOT NULL THEN 'inferred' ELSE state END AS state),
       value_code.source_value AS value_coded, value_code.concept_id AS value_concept,
       number IS NOT NULL AND f.seq IS NULL AND i.state IN ('unit', 'unit_missing') AS is_lost,
       i.concept_id <> 0 OR number IS NOT NULL OR is_clinical AS is_measurement
FROM item i LEFT JOIN inferred f ON f.seq = i.seq AND f.n = i.n LEFT JOIN coded_value value_code ON value_code.json = coding
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

    A number whose unit cannot be brought to the concept's is lost, its row is kept.
    """
    database.execute(_ITEM)
    if components:
        _add_components(database, components, site_secret)
    database.execute(_INFERRED.format(allowed="true" if infer else "false"))
    database.execute(_VALUED)
    database.execute(_LOST)
    database.execute(
        "INSERT INTO tally SELECT 'value', state, '', count(*) FROM valued "
        "WHERE state IS NOT NULL AND state <> 'source' GROUP BY state"
    )
    database.execute(
        "INSERT INTO tally SELECT 'note', 'time_is_date_only', '', count(*) FROM valued WHERE time IS NULL"
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
