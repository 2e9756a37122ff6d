"""Step 1, for each part: read its texts once, parse and check them, keep what later steps need.

A part is scanned block by block; every block leaves a folder ``scan/<part>-<block>`` with the staged resources by type
and the small tables of ``workspace.SMALL_TABLES``. A scan sees its own texts alone: whether a patient exists is for later.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fedhealth.cdm.findings import add_examples, add_finding, keep_findings, notes_sql
from fedhealth.cdm.keys import keyed_ids
from fedhealth.cdm.staged import CODES, COMPONENT, DRUGS, TIMES, staged_columns
from fedhealth.cdm.validating import keep_texts
from fedhealth.cdm.workspace import SMALL_TABLES, Plan, read_plan, save, step
from fedhealth.fhir.bundle_rules import broken_bundle_rules
from fedhealth.fhir.bundles import bundle_block
from fedhealth.fhir.files import BLOCK_BYTES, read_blocks
from fedhealth.fhir.resources import R4_TYPES, SHAPES, UNKNOWN, verdicts

_NAMES = ", ".join(f"'{name}'" for name in SHAPES)
_R4 = ", ".join(f"'{name}'" for name in sorted(R4_TYPES))
_SEQ_BITS = 32

_INCOMING = """
CREATE OR REPLACE TEMP TABLE incoming AS
SELECT piece, line, full_url, fhir_version, state, stamp, text, state IS NULL AND json_valid(text) AS is_json,
       CASE WHEN NOT is_json THEN NULL
            WHEN starts_with(text, '{"resourceType":"') THEN split_part(left(text, 80), '"', 4)
            ELSE from_json(text, '{"resourceType":"VARCHAR"}').resourceType END AS type
FROM block
"""

_COUNT = f"""
INSERT INTO "left"
SELECT nextval('number'),
       CASE WHEN reason IN ('type_not_loaded', 'container', 'malformed_bundle') THEN type ELSE '{UNKNOWN}' END AS type,
       CASE WHEN reason IN ('type_not_loaded', 'container', 'deleted') THEN 'excluded' ELSE 'quarantined' END AS kind,
       reason, type, piece, line, CASE WHEN kind = 'quarantined' AND text <> '' THEN sha256(text) END, NULL
FROM (SELECT *, CASE WHEN state = 'not_utf8' THEN 'not_json'
                     WHEN state IS NOT NULL THEN state
                     WHEN NOT is_json THEN 'not_json'
                     WHEN type IS NULL THEN 'no_resource_type'
                     WHEN type NOT IN ({_R4}) THEN 'unknown_type'
                     WHEN type = 'Bundle' THEN 'container'
                     ELSE 'type_not_loaded' END AS reason
      FROM incoming WHERE type IS NULL OR type NOT IN ({_NAMES}))
"""

_READ = f"""
INSERT INTO tally SELECT 'read', CASE WHEN type IN ({_R4}) THEN type ELSE '{UNKNOWN}' END AS name, '', count(*)
FROM incoming GROUP BY name
"""

_DELETED = """
INSERT INTO deleted
SELECT regexp_extract(full_url, '([A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64})(/_history/[^/]*)?$', 1), stamp
FROM incoming WHERE state = 'deleted' AND full_url IS NOT NULL
"""

_ID = "CASE WHEN regexp_full_match(r.id, '[A-Za-z0-9.-]{1,64}') THEN r.id END"
"""A FHIR id, or null."""


@dataclass(frozen=True, slots=True)
class _Scan:
    """One block on its way from texts to Parquet files."""

    database: duckdb.DuckDBPyConnection
    folder: Path
    plan: Plan
    secret: bytes = field(repr=False)

    def sql(self, statement: str) -> None:
        self.database.execute(statement)

    def save(self, query: str, name: str) -> None:
        save(self.database, query, self.folder / f"{name}.parquet")


def scan_part(work: Path, part: int, *, site_secret: bytes) -> int:
    """Scan one part of the plan.

    Returns:
      How many lines and entries it had; bundles count as well as their entries.

    Raises:
      DataError: a file cannot be read to its end.
    """
    plan = read_plan(work)
    time_zone = plan.mapped().settings.time_zone
    total, lines = 0, dict[int, int]()
    for number, block in enumerate(_blocks(plan, part, lines=lines)):
        folder = work / "scan" / f"{part:06d}-{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        with step(work, time_zone=time_zone) as database:
            scan = _Scan(database, folder, plan, site_secret)
            total += _scan_block(scan, block, first_seq=(((part << 12) + number) << _SEQ_BITS) + 1)
    folder = work / "scan" / f"{part:06d}-lines"
    folder.mkdir(parents=True, exist_ok=True)
    columns = [pa.array(list(lines), pa.int32()), pa.array(list(lines.values()), pa.int64())]
    pq.write_table(pa.Table.from_arrays(columns, names=["piece", "lines"]), folder / "piece.parquet")
    return total


def _blocks(plan: Plan, part: int, *, lines: dict[int, int]) -> Iterator[pa.Table]:
    """The blocks of a part, small ones joined; ``lines`` gets the number of lines of each piece."""
    held: list[pa.Table] = []
    for piece, where in zip(plan.pieces(part), plan.parts[part], strict=True):
        called = f"file {where.file + 1} of {len(plan.files)}"
        reader = read_blocks(Path(plan.files[where.file]), called=called, start=where.start, end=where.end)
        while True:
            try:
                block = next(reader)
            except StopIteration as stop:
                lines[piece] = stop.value
                break
            held.append(block.append_column("piece", pa.repeat(pa.scalar(piece, pa.int32()), block.num_rows)))
            if sum(table.nbytes for table in held) >= BLOCK_BYTES:
                yield pa.concat_tables(held)
                held = []
    if held:
        yield pa.concat_tables(held)


def _scan_block(scan: _Scan, block: pa.Table, *, first_seq: int) -> int:
    """Stage a block; returns the number of its texts, entries included."""
    for name, columns in SMALL_TABLES.items():
        scan.sql(f'CREATE TABLE "{name}" ({columns})')
    scan.sql(f"CREATE SEQUENCE number START {first_seq}")
    total, depth, layer = 0, 0, block
    while layer is not None:
        total += layer.num_rows
        scan.database.register("block", layer)
        scan.sql(_INCOMING)
        scan.database.unregister("block")
        opened = _open_bundles(scan)
        _stage(scan, depth=depth)
        layer, depth = opened, depth + 1
    for name in SMALL_TABLES:
        distinct = "DISTINCT" if name in ("codings", "quantities", "refs") else ""
        scan.save(f'SELECT {distinct} * FROM "{name}"', name)
    return total


def _open_bundles(scan: _Scan) -> pa.Table | None:
    """The entries of all incoming bundles; what is no well-formed bundle gets that state."""
    bundles = scan.database.execute(
        "SELECT rowid, piece, line, text, fhir_version FROM incoming WHERE type = 'Bundle'"
    ).fetchall()
    opened, malformed = [], []
    for row, piece, line, text, version in bundles:
        entries = bundle_block(text, line=line)
        for reason, path in broken_bundle_rules(text):
            add_finding(scan.database, "Bundle", reason, path, n=1)
            add_examples(scan.database, "Bundle", reason, path, [(piece, line, None)])
        if entries is None:
            malformed.append(row)
        elif entries.num_rows:
            entries = entries if version is None else _with_version(entries, version)
            opened.append(
                entries.append_column("piece", pa.repeat(pa.scalar(piece, pa.int32()), len(entries)))
            )
    if malformed:
        scan.sql(
            f"UPDATE incoming SET state = 'malformed_bundle' WHERE rowid IN ({', '.join(map(str, malformed))})"
        )
    return pa.concat_tables(opened) if opened else None


def _with_version(entries: pa.Table, version: str) -> pa.Table:
    """The entries, all of the FHIR version that the outer bundle states."""
    position = entries.schema.get_field_index("fhir_version")
    return entries.set_column(position, "fhir_version", pa.repeat(pa.scalar(version), len(entries)))


def _stage(scan: _Scan, *, depth: int) -> None:
    """Sort the incoming texts by type: counted, left out, or staged."""
    scan.sql(_READ)
    scan.sql(_COUNT)
    scan.sql(_DELETED)
    present = scan.database.execute(f"SELECT DISTINCT type FROM incoming WHERE type IN ({_NAMES})").fetchall()
    for (name,) in present:
        _parse(scan, name)
        _check(scan, name)
        _keep(scan, name, depth=depth)


def _parse(scan: _Scan, name: str) -> None:
    """Make ``parsed``: the fields of a type's shape, with id and key."""
    shape = SHAPES[name]
    scan.sql(
        "CREATE OR REPLACE TEMP TABLE raw AS SELECT nextval('number') AS seq, piece, line, full_url, fhir_version, "
        f"text, from_json(text, '{shape.fields}') AS r FROM incoming WHERE type = '{name}'"
    )
    ids: pa.Table = scan.database.sql(f"SELECT seq, {_ID} AS id FROM raw").to_arrow_table()
    refs = (f"{name}/{value}" if value else "" for value in ids.column("id").to_pylist())
    keys = ids.append_column("key", pa.array(keyed_ids(refs, site_secret=scan.secret), pa.int64()))
    scan.database.register("keys", keys)
    fields = ", ".join(f'r."{field}" AS "{field}"' for field in shape.names if field != "id")
    scan.sql(
        f"CREATE OR REPLACE TEMP TABLE parsed AS SELECT seq, piece, line, full_url, fhir_version, text, "
        f"keys.id, keys.key, r.id IS NULL AS is_nameless, {fields} "
        "FROM raw JOIN keys USING (seq)"
    )
    scan.database.unregister("keys")


def _check(scan: _Scan, name: str) -> None:
    """Leave out what is no R4 resource at all: another version, a bad id."""
    version = "coalesce(fhir_version, meta.fhirVersion, '4') NOT LIKE '4%'"
    scan.sql(
        f"CREATE OR REPLACE TEMP TABLE unfit AS SELECT seq, CASE WHEN {version} OR {SHAPES[name].foreign} THEN 'fhir_version' "
        f"WHEN is_nameless THEN 'missing_id' WHEN id IS NULL THEN 'invalid_id' END AS fault FROM parsed WHERE fault IS NOT NULL"
    )
    scan.sql(
        f"""INSERT INTO "left" SELECT seq, '{name}', 'quarantined', fault,
        '{name}' || CASE WHEN fault LIKE '%_id' THEN '.id' ELSE '' END, piece, line, sha256(text), id
        FROM parsed JOIN unfit USING (seq)"""
    )
    keep_texts(
        scan.database,
        name,
        "parsed ANTI JOIN unfit USING (seq)",
        validate=scan.plan.validate_with_models,
        store=scan.plan.verdict_store,
    )
    scan.sql(
        f"INSERT INTO urls SELECT full_url, '{name}/' || id FROM parsed ANTI JOIN unfit USING (seq) WHERE full_url IS NOT NULL"
    )


def _keep(scan: _Scan, name: str, *, depth: int) -> None:
    """Save the staged resources of a type, and what they mention."""
    columns = ", ".join(f'{sql} AS "{column}"' for column, sql in staged_columns(name).items())
    cases = " ".join(f"WHEN {check.sql} THEN {n}" for n, check in enumerate(verdicts(name), 1))
    verdict = f"CASE {cases} ELSE 0 END" if cases else "0"
    scan.sql(
        "CREATE OR REPLACE TEMP TABLE staged AS SELECT seq, piece, line, id, key, meta.lastUpdated AS updated, "
        f"try_cast(meta.versionId AS BIGINT) AS version, ({verdict})::SMALLINT AS verdict, "
        f"CASE WHEN verdict > 0 THEN sha256(text) END AS digest, "
        f"{notes_sql(name)} AS notes, {columns} FROM parsed ANTI JOIN unfit USING (seq)"
    )
    scan.save("SELECT * EXCLUDE (notes) FROM staged", f"{name}-{depth}")
    noted = scan.database.sql(
        "SELECT notes, piece, line, id FROM staged WHERE verdict = 0 AND notes > 0 ORDER BY seq"
    )
    keep_findings(scan.database, name, noted.to_arrow_table())
    if name == "Observation":
        _keep_components(scan, depth=depth)
    if name in TIMES:
        _mention(scan, name)


def _keep_components(scan: _Scan, *, depth: int) -> None:
    columns = ", ".join(f'{sql} AS "{column}"' for column, sql in COMPONENT.items())
    scan.sql(
        f"CREATE OR REPLACE TEMP TABLE components AS SELECT seq, n::INTEGER AS n, {columns} "
        "FROM (SELECT seq, unnest(component) AS c, generate_subscripts(component, 1) AS n FROM parsed "
        "WHERE len(component) > 0) WHERE c.code.coding IS NOT NULL"
    )
    scan.save("FROM components", f"Component-{depth}")
    _mention_values(scan, "components")


def _mention(scan: _Scan, name: str) -> None:
    """What must be looked up: references, codings and units."""
    references = ["subject", "encounter"] + (["medication"] if name in DRUGS else [])
    for column in references:
        scan.sql(f"INSERT INTO refs SELECT DISTINCT {column} FROM staged WHERE {column} IS NOT NULL")
    if name == "Observation":
        _mention_values(scan, "staged")
        return
    mentioned = {CODES[name]: "code"} | ({"route": "route"} if name in DRUGS else {})
    for coded, column in mentioned.items():
        scan.sql(
            f"INSERT INTO codings SELECT DISTINCT '{coded}', {column} FROM staged WHERE {column} IS NOT NULL"
        )


def _mention_values(scan: _Scan, table: str) -> None:
    scan.sql(f"INSERT INTO codings SELECT DISTINCT 'value', coding FROM {table} WHERE coding IS NOT NULL")
    scan.sql(
        "INSERT INTO quantities SELECT DISTINCT code, unit_system, unit_code, unit_text "
        f"FROM {table} WHERE code IS NOT NULL"
    )
