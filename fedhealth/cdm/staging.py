"""Read every line and entry once into DuckDB, and parse the fields that we use; nothing is lost on the way.

Tables made here: ``resource`` (all resources of the types that we read, with their text), ``p_<Type>`` (their
fields), ``rejected`` (seq, type, kind, reason) and ``counted`` (inputs that are no such resource).
"""

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from fedhealth.cdm.keys import keyed_ids
from fedhealth.errors import DataError
from fedhealth.fhir.files import bundle_block, find_files, read_blocks
from fedhealth.fhir.resources import R4_TYPES, SHAPES, UNKNOWN
from fedhealth.fhir.validation import invalid_resources

Progress = Callable[[str], None]
SAMPLE = 200
"""Resources per type that ``validate="sample"`` checks: those with the smallest keyed ids."""

_TABLES = """
CREATE TABLE resource (seq BIGINT, line BIGINT, type VARCHAR, text VARCHAR, full_url VARCHAR, fhir_version VARCHAR);
CREATE TABLE rejected (seq BIGINT, type VARCHAR, kind VARCHAR, reason VARCHAR);
CREATE TABLE counted (type VARCHAR, kind VARCHAR, reason VARCHAR, line BIGINT, digest VARCHAR);
CREATE SEQUENCE number;
"""

_NAMES = ", ".join(f"'{name}'" for name in SHAPES)
_R4 = ", ".join(f"'{name}'" for name in sorted(R4_TYPES))

_INCOMING = """
CREATE OR REPLACE TEMP TABLE incoming AS
SELECT line, full_url, fhir_version, state, text,
       CASE WHEN state IS NOT NULL THEN NULL
            WHEN starts_with(text, '{"resourceType":"') THEN split_part(text, '"', 4)
            ELSE TRY(from_json(text, '{"resourceType":"VARCHAR"}')).resourceType END AS type
FROM block
"""

_KEEP = f"""
INSERT INTO resource SELECT nextval('number'), line, type, text, full_url, fhir_version
FROM incoming WHERE type IN ({_NAMES})
"""

_COUNT = f"""
INSERT INTO counted
SELECT CASE WHEN reason IN ('type_not_loaded', 'container', 'malformed_bundle') THEN type ELSE '{UNKNOWN}' END,
       CASE WHEN reason IN ('type_not_loaded', 'container', 'deleted') THEN 'excluded' ELSE 'quarantined' END,
       reason, line,
       CASE WHEN reason NOT IN ('type_not_loaded', 'container', 'deleted') THEN sha256(text) END
FROM (SELECT *, CASE WHEN state = 'not_utf8' THEN 'not_json'
                     WHEN state IS NOT NULL THEN state
                     WHEN NOT json_valid(text) THEN 'not_json'
                     WHEN type IS NULL THEN 'no_resource_type'
                     WHEN type NOT IN ({_R4}) THEN 'unknown_type'
                     WHEN type = 'Bundle' THEN 'container'
                     ELSE 'type_not_loaded' END AS reason
      FROM incoming WHERE type IS NULL OR type NOT IN ({_NAMES}))
"""


def stage(database: duckdb.DuckDBPyConnection, folder: Path, *, progress: Progress | None = None) -> int:
    """Read all FHIR files of a folder.

    Returns:
      How many lines and entries there were; bundles count as well as their entries.

    Raises:
      ConfigError: the folder is missing.
      DataError: it has no FHIR file or no FHIR resource, or a file cannot be read to its end.
    """
    database.execute(_TABLES)
    total = 0
    paths = find_files(folder)
    for number, path in enumerate(paths, 1):
        if progress is not None:
            progress(path.name)
        for block in read_blocks(path, called=f"file {number} of {len(paths)}"):
            total += _take(database, block)
    _require_fhir(database, total)
    return total


def _require_fhir(database: duckdb.DuckDBPyConnection, total: int) -> None:
    """Refuse a folder without one resource of an R4 type: an empty CDM would hide a wrong folder."""
    types = "SELECT type FROM resource UNION ALL SELECT type FROM counted"
    found = database.execute(f"SELECT 1 FROM ({types}) WHERE type NOT IN (?, 'Bundle') LIMIT 1", [UNKNOWN])
    if found.fetchone() is None:
        raise DataError(
            f"none of the {total} lines and entries is a FHIR R4 resource (code no_fhir)",
            "give the folder of the FHIR export, as NDJSON or bundles",
        )


def _take(database: duckdb.DuckDBPyConnection, block: pa.Table) -> int:
    """Sort a block's texts by type; open its bundles."""
    database.register("block", block)
    database.execute(_INCOMING)
    database.unregister("block")
    opened = _open_bundles(database)
    database.execute(_KEEP)
    database.execute(_COUNT)
    total: int = block.num_rows
    for entries in opened:
        total += _take(database, entries)
    return total


def _open_bundles(database: duckdb.DuckDBPyConnection) -> list[pa.Table]:
    """The entries of each incoming bundle; what is no well-formed bundle gets that state."""
    bundles = database.execute(
        "SELECT rowid, line, text, fhir_version FROM incoming WHERE type = 'Bundle' AND json_valid(text)"
    ).fetchall()
    opened = []
    for row, line, text, version in bundles:
        entries = bundle_block(text, line=line)
        if entries is None:
            database.execute("UPDATE incoming SET state = 'malformed_bundle' WHERE rowid = ?", [row])
        elif entries.num_rows:
            opened.append(entries if version is None else _with_version(entries, version))
    return opened


def _with_version(entries: pa.Table, version: str) -> pa.Table:
    """The entries, all of the FHIR version that the outer bundle states."""
    position = entries.schema.get_field_index("fhir_version")
    return entries.set_column(position, "fhir_version", pa.array([version] * len(entries), pa.string()))


def parse(database: duckdb.DuckDBPyConnection, *, site_secret: bytes) -> None:
    """Make ``p_<Type>``: seq, line, ref (``Type/id``), key, and the fields of the type's shape.

    A text that is no JSON object becomes ``unknown``, quarantined ``not_json``.
    """
    for name, shape in SHAPES.items():
        fields = ", ".join(f'r."{field}" AS "{field}"' for field in json.loads(shape.fields))
        database.execute(
            f"CREATE TEMP TABLE raw AS SELECT seq, line, fhir_version, TRY(from_json(text, '{shape.fields}')) AS r "
            f"FROM resource WHERE type = '{name}'"
        )
        refs: pa.Table = database.sql(
            f"SELECT seq, CASE WHEN regexp_full_match(r.id, '[A-Za-z0-9\\-.]{{1,64}}') THEN '{name}/' || r.id END AS ref "
            "FROM raw"
        ).to_arrow_table()
        ids = keyed_ids((ref or "" for ref in refs.column("ref").to_pylist()), site_secret=site_secret)
        keys = refs.append_column("key", pa.array(ids, pa.int64()))
        database.register("keys", keys)
        database.execute(
            f"CREATE TABLE p_{name} AS SELECT raw.seq, line, keys.ref, keys.key, raw.fhir_version, {fields} "
            "FROM raw JOIN keys USING (seq) WHERE r IS NOT NULL"
        )
        database.unregister("keys")
        database.execute(
            f"UPDATE resource SET type = '{UNKNOWN}' WHERE seq IN (SELECT seq FROM raw WHERE r IS NULL)"
        )
        database.execute("DROP TABLE raw")
    database.execute(
        f"INSERT INTO rejected SELECT seq, type, 'quarantined', 'not_json' FROM resource WHERE type = '{UNKNOWN}'"
    )


def reject(database: duckdb.DuckDBPyConnection, name: str, kind: str, reason: str, where: str) -> None:
    """Leave out the resources of a type for which ``where`` holds and that are not left out already."""
    database.execute(
        f"INSERT INTO rejected SELECT seq, '{name}', '{kind}', '{reason}' FROM p_{name} p "
        f"WHERE ({where}) AND NOT EXISTS (FROM rejected r WHERE r.seq = p.seq)"
    )


def check_shapes(database: duckdb.DuckDBPyConnection, *, validate: str) -> None:
    """Leave out other FHIR versions, bad ids, invalid, repeated and unwanted resources, in that order."""
    for name, shape in SHAPES.items():
        version = "coalesce(p.fhir_version, meta.fhirVersion, '4') NOT LIKE '4%'"
        reject(database, name, "quarantined", "fhir_version", f"{version} OR {shape.foreign}")
        reject(database, name, "quarantined", "invalid_id", "ref IS NULL")
        _check_models(database, name, validate=validate)
        reject(database, name, "excluded", "duplicate", _older_versions(name))
        for condition, reason in shape.left_out:
            reject(database, name, "excluded", reason, f"coalesce({condition}, false)")
        if shape.statuses:
            codes = ", ".join(f"'{code}'" for code in shape.statuses)
            reject(
                database, name, "quarantined", "invalid_status", f"status IS NULL OR status NOT IN ({codes})"
            )


def _older_versions(name: str) -> str:
    """All but the newest of an id; among equals the text decides, so that order of input never does."""
    return f"""seq IN (SELECT seq FROM (
        SELECT q.seq, row_number() OVER (PARTITION BY q.id ORDER BY q.meta.lastUpdated DESC NULLS LAST,
               try_cast(q.meta.versionId AS BIGINT) DESC NULLS LAST, text) AS rank
        FROM p_{name} q JOIN resource USING (seq) ANTI JOIN rejected USING (seq)
        WHERE q.id IN (SELECT id FROM p_{name} GROUP BY id HAVING count(*) > 1)) WHERE rank > 1)"""


def _check_models(database: duckdb.DuckDBPyConnection, name: str, *, validate: str) -> None:
    if validate == "off":
        return
    limit = f"LIMIT {SAMPLE}" if validate == "sample" else ""
    rows = database.execute(
        f"SELECT seq, text FROM (SELECT seq, key FROM p_{name} ANTI JOIN rejected USING (seq)) "
        f"JOIN resource USING (seq) ORDER BY key, text {limit}"
    ).fetchall()
    if rows and (invalid := invalid_resources(name, rows)):
        reject(database, name, "quarantined", "r4b_invalid", f"seq IN ({', '.join(map(str, invalid))})")
