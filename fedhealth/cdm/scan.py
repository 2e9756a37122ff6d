"""Step 1, for each part: read its texts once, parse and check them, keep what later steps need.

A part is scanned block by block; every block leaves a folder ``scan/<part>-<block>`` with the staged resources by type
and the small tables of ``workspace.SMALL_TABLES``. A scan sees its own texts alone: whether a patient exists is for later.
One query parses the texts of a type, checks them and cuts them to the columns that we keep; the texts are never copied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedhealth.cdm.findings import add_examples, add_finding, keep_findings, notes_sql
from fedhealth.cdm.keys import keyed_ids
from fedhealth.cdm.staged import CODES, COMPONENT, DRUGS, TIMES, staged_columns
from fedhealth.cdm.validating import SAMPLE, keep_texts
from fedhealth.cdm.workspace import SMALL_TABLES, Plan, block_step, read_plan, save
from fedhealth.fhir.bundle_rules import broken_bundle_rules
from fedhealth.fhir.bundles import bundle_block
from fedhealth.fhir.files import PART_BYTES, read_blocks
from fedhealth.fhir.resources import R4_TYPES, SHAPES, UNKNOWN, verdicts

_NAMES = ", ".join(f"'{name}'" for name in SHAPES)
_R4 = ", ".join(f"'{name}'" for name in sorted(R4_TYPES))
_SEQ_BITS = 32

_FIRST_FIELD = '{"resourceType":"'
_FIRST_TYPES = " ".join(
    f"WHEN starts_with(text, '{_FIRST_FIELD}{name}\"') THEN '{name}'"
    for name in ("Observation", *(name for name in SHAPES if name != "Observation"))
)
_TYPE = f"""
SELECT CASE WHEN state IS NOT NULL OR NOT json_valid(text) THEN NULL {_FIRST_TYPES}
            ELSE coalesce(from_json(text, '{{"resourceType":"VARCHAR"}}').resourceType, '') END AS type
FROM texts
"""
"""The type of every text, in their order: null if it is no JSON, empty if it names none."""

_COUNT = f"""
INSERT INTO "left"
SELECT seq,
       CASE WHEN reason IN ('type_not_loaded', 'container', 'malformed_bundle') THEN type ELSE '{UNKNOWN}' END AS type,
       CASE WHEN reason IN ('type_not_loaded', 'container', 'deleted') THEN 'excluded' ELSE 'quarantined' END AS kind,
       reason, type, piece, line, CASE WHEN kind = 'quarantined' AND text <> '' THEN sha256(text) END, NULL
FROM (SELECT *, CASE WHEN state = 'not_utf8' THEN 'not_json'
                     WHEN state IS NOT NULL THEN state
                     WHEN type IS NULL THEN 'not_json'
                     WHEN type = '' THEN 'no_resource_type'
                     WHEN type NOT IN ({_R4}) THEN 'unknown_type'
                     WHEN type = 'Bundle' THEN 'container'
                     ELSE 'type_not_loaded' END AS reason
      FROM incoming WHERE type IS NULL OR type NOT IN ({_NAMES}))
"""

_DELETED = """
INSERT INTO deleted
SELECT regexp_extract(full_url, '([A-Z][A-Za-z]+/[A-Za-z0-9.-]{1,64})(/_history/[^/]*)?$', 1), stamp
FROM incoming WHERE state = 'deleted' AND full_url IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class _Scan:
    """One block on its way from texts to Parquet files."""

    database: duckdb.DuckDBPyConnection
    folder: Path
    plan: Plan
    secret: bytes = field(repr=False)

    def sql(self, statement: str, **tables: pa.Table) -> None:
        """Run a statement over Arrow tables by name."""
        for name, table in tables.items():
            self.database.register(name, table)
        self.database.execute(statement)
        for name in tables:
            self.database.unregister(name)

    def query(self, statement: str, **tables: pa.Table) -> pa.Table:
        """The rows of a query over Arrow tables by name, in their order."""
        for name, table in tables.items():
            self.database.register(name, table)
        found = self.database.sql(statement).to_arrow_table()
        for name in tables:
            self.database.unregister(name)
        return found


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
        with block_step(work, time_zone=time_zone) as database:
            scan = _Scan(database, folder, plan, site_secret)
            total += _scan_block(scan, block, first_seq=(((part << 12) + number) << _SEQ_BITS) + 1)
    folder = work / "scan" / f"{part:06d}-lines"
    folder.mkdir(parents=True, exist_ok=True)
    columns = [pa.array(list(lines), pa.int32()), pa.array(list(lines.values()), pa.int64())]
    pq.write_table(pa.Table.from_arrays(columns, names=["piece", "lines"]), folder / "piece.parquet")
    return total


def _blocks(plan: Plan, part: int, *, lines: dict[int, int]) -> Iterator[pa.Table]:
    """The blocks of a part, small ones joined; ``lines`` gets the number of lines of each piece.

    A part is one block, unless it is of files that hold more than they seem to: every block costs its statements.
    """
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
            held.append(_with(block, piece=pa.repeat(pa.scalar(piece, pa.int32()), block.num_rows)))
            if sum(table.nbytes for table in held) >= 2 * PART_BYTES:
                yield pa.concat_tables(held)
                held = []
    if held:
        yield pa.concat_tables(held)


def _with(table: pa.Table, **columns: pa.Array) -> pa.Table:
    """The table with more columns, or with others of these names."""
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.append_column(name, values) if place < 0 else table.set_column(place, name, values)
    return table


def _scan_block(scan: _Scan, block: pa.Table, *, first_seq: int) -> int:
    """Stage a block; returns the number of its texts, entries included."""
    for name, columns in SMALL_TABLES.items():
        scan.sql(f'CREATE TEMP TABLE "{name}" ({columns})')
    total, depth, layer = 0, 0, block
    while layer is not None:
        numbers = np.arange(first_seq + total, first_seq + total + layer.num_rows)
        types = scan.query(_TYPE, texts=layer).column("type")
        incoming = _with(layer, type=types, seq=pa.array(numbers, pa.int64()))
        total += layer.num_rows
        layer, malformed = _open_bundles(scan, incoming)
        _stage(scan, _mark_malformed(incoming, malformed) if malformed else incoming, depth=depth)
        depth += 1
    for name in SMALL_TABLES:
        distinct = "DISTINCT" if name in ("codings", "quantities", "refs") else ""
        save(scan.database, f'SELECT {distinct} * FROM "{name}"', scan.folder / f"{name}.parquet")
    return total


def _open_bundles(scan: _Scan, incoming: pa.Table) -> tuple[pa.Table | None, list[int]]:
    """The entries of all incoming bundles; the numbers of those that are not well-formed."""
    bundles = incoming.filter(pc.equal(incoming.column("type"), "Bundle"))
    opened, malformed = [], []
    for row in bundles.select(["seq", "piece", "line", "text", "fhir_version"]).to_pylist():
        entries = bundle_block(row["text"], line=row["line"])
        for reason, path in broken_bundle_rules(row["text"]):
            add_finding(scan.database, "Bundle", reason, path, n=1)
            add_examples(scan.database, "Bundle", reason, path, [(row["piece"], row["line"], None)])
        if entries is None:
            malformed.append(row["seq"])
        elif entries.num_rows:
            entries = _with(entries, piece=pa.repeat(pa.scalar(row["piece"], pa.int32()), len(entries)))
            if row["fhir_version"] is not None:  # the outer bundle's counts
                entries = _with(entries, fhir_version=pa.repeat(pa.scalar(row["fhir_version"]), len(entries)))
            opened.append(entries)
    return pa.concat_tables(opened) if opened else None, malformed


def _mark_malformed(incoming: pa.Table, malformed: list[int]) -> pa.Table:
    marked = pc.is_in(incoming.column("seq"), pa.array(malformed, pa.int64()))
    return _with(incoming, state=pc.if_else(marked, "malformed_bundle", incoming.column("state")))


def _stage(scan: _Scan, incoming: pa.Table, *, depth: int) -> None:
    """Sort the incoming texts by type: counted, left out, or staged."""
    counts = pc.value_counts(incoming.column("type")).to_pylist()
    present = {each["values"]: each["counts"] for each in counts}
    for name, n in present.items():
        known = name if name in R4_TYPES else UNKNOWN
        scan.database.execute("INSERT INTO tally VALUES ('read', ?, '', ?)", [known, n])
    if present.keys() - SHAPES.keys():
        scan.sql(_COUNT, incoming=incoming)
        scan.sql(_DELETED, incoming=incoming)
    for name in sorted(present.keys() & SHAPES.keys()):
        own = incoming if len(present) == 1 else incoming.filter(pc.equal(incoming.column("type"), name))
        staged = _leave_unfit(scan, name, own, _parse(scan, name, own))
        _keep(scan, name, staged, depth=depth)


_VERSION = "coalesce(fhir_version, meta.fhirVersion, '4') NOT LIKE '4%'"
_ID = "CASE WHEN regexp_full_match(id, '[A-Za-z0-9.-]{1,64}') THEN id END"
"""A FHIR id, or null."""


def _parse(scan: _Scan, name: str, texts: pa.Table) -> pa.Table:
    """The texts of a type as the columns that we keep, with ``fault`` and what else the scan itself needs."""
    shape = SHAPES[name]
    columns = "".join(f', {sql} AS "{column}"' for column, sql in staged_columns(name).items())
    if name == "Observation":
        columns += ", CASE WHEN len(component) > 0 THEN component END AS component"
    foreign = "false" if name == "Consent" else shape.foreign  # of consents a verdict
    cases = " ".join(f"WHEN {check.sql} THEN {n}" for n, check in enumerate(verdicts(name), 1))
    verdict = f"CASE {cases} ELSE 0 END" if cases else "0"
    parsed = scan.query(
        f"""
SELECT * EXCLUDE (text), CASE WHEN verdict > 0 THEN sha256(text) END AS digest FROM (
  SELECT seq, piece, line, full_url, text, {_ID} AS id, meta.lastUpdated AS updated,
         try_cast(meta.versionId AS BIGINT) AS version, ({verdict})::SMALLINT AS verdict, {notes_sql(name)} AS notes{columns},
         CASE WHEN {_VERSION} OR {foreign} THEN 'fhir_version'
              WHEN r.id IS NULL THEN 'missing_id' WHEN {_ID} IS NULL THEN 'invalid_id' END AS fault
  FROM (SELECT seq, piece, line, full_url, fhir_version, text, unnest(from_json(text, '{shape.fields}')) FROM texts) r)""",
        texts=texts,
    )
    keys = keyed_ids(parsed.column("id").to_pylist(), of=name, site_secret=scan.secret)
    return _with(parsed, key=pa.array(keys, pa.int64()))


def _leave_unfit(scan: _Scan, name: str, texts: pa.Table, parsed: pa.Table) -> pa.Table:
    """Leave out what is no R4 resource at all: another version, a bad id; keep the texts that are to be validated."""
    fault = parsed.column("fault")
    staged = parsed.drop_columns("fault")
    if fault.null_count < len(fault):
        unfit = _with(staged, fault=fault, text=texts.column("text")).filter(pc.is_valid(fault))
        scan.sql(
            f"""INSERT INTO "left" SELECT seq, '{name}', 'quarantined', fault,
            '{name}' || CASE WHEN fault LIKE '%_id' THEN '.id' ELSE '' END, piece, line, sha256(text), id FROM unfit""",
            unfit=unfit.select(["seq", "fault", "piece", "line", "text", "id"]),
        )
        is_fit = pc.is_null(fault)
        staged, texts = staged.filter(is_fit), texts.filter(is_fit)
    _keep_texts(scan, name, texts, staged)
    return staged


def _keep_texts(scan: _Scan, name: str, texts: pa.Table, staged: pa.Table) -> None:
    """Keep the texts of a type that are to be validated: all, or candidates of a sample."""
    validate, keys = scan.plan.validate_with_models, staged.column("key").to_numpy()
    if validate == "off" or len(keys) == 0:
        return
    columns = staged.select(["key", "seq", "piece", "line", "id"])
    if validate == "sample":
        last = min(SAMPLE, len(keys)) - 1
        chosen = np.flatnonzero(keys <= np.partition(keys, last)[last])
        columns, texts = columns.take(chosen), texts.take(chosen)
    scan.database.register("candidates", _with(columns, text=texts.column("text")))
    keep_texts(scan.database, name, "candidates", validate=validate, store=scan.plan.verdict_store)
    scan.database.unregister("candidates")


_SCAN_ONLY = ("full_url", "component", "notes")


def _keep(scan: _Scan, name: str, staged: pa.Table, *, depth: int) -> None:
    """Save the staged resources of a type, and what they mention."""
    noted = staged.select(["notes", "piece", "line", "id"]).filter(pc.equal(staged.column("verdict"), 0))
    keep_findings(scan.database, name, noted)
    kept = staged.drop_columns([column for column in _SCAN_ONLY if column in staged.column_names])
    pq.write_table(kept, scan.folder / f"{name}-{depth}.parquet", compression="lz4")
    if staged.column("full_url").null_count < staged.num_rows:
        scan.sql(
            f"INSERT INTO urls SELECT full_url, '{name}/' || id FROM staged WHERE full_url IS NOT NULL",
            staged=staged.select(["full_url", "id"]),
        )
    if name == "Observation" and staged.column("component").null_count < staged.num_rows:
        _keep_components(scan, staged, depth=depth)
    if name in TIMES:
        _mention(scan, name, kept)


def _keep_components(scan: _Scan, staged: pa.Table, *, depth: int) -> None:
    columns = ", ".join(f'{sql} AS "{column}"' for column, sql in COMPONENT.items())
    components = scan.query(
        f"SELECT seq, n::INTEGER AS n, {columns} "
        "FROM (SELECT seq, unnest(component) AS c, generate_subscripts(component, 1) AS n FROM staged "
        "WHERE component IS NOT NULL) WHERE c.code.coding IS NOT NULL",
        staged=staged.select(["seq", "component"]),
    )
    pq.write_table(components, scan.folder / f"Component-{depth}.parquet", compression="lz4")
    _mention_values(scan, components)


def _mention(scan: _Scan, name: str, kept: pa.Table) -> None:
    """What must be looked up: references, codings and units."""
    for column in ("subject", "encounter", *(("medication",) if name in DRUGS else ())):
        _insert_distinct(scan, "refs", kept, [column])
    if name == "Observation":
        _mention_values(scan, kept)
        return
    mentioned = {CODES[name]: "code"} | ({"route": "route"} if name in DRUGS else {})
    for coded, column in mentioned.items():
        _insert_distinct(scan, "codings", kept, [column], first=f"'{coded}', ")


def _mention_values(scan: _Scan, values: pa.Table) -> None:
    _insert_distinct(scan, "codings", values, ["coding"], first="'value', ")
    _insert_distinct(scan, "quantities", values, ["code", "unit_system", "unit_code", "unit_text"])


def _insert_distinct(
    scan: _Scan, table: str, rows: pa.Table, columns: Sequence[str], *, first: str = ""
) -> None:
    """Add the distinct rows whose first column is given."""
    scan.sql(
        f"INSERT INTO {table} SELECT DISTINCT {first}{', '.join(columns)} FROM mentioned WHERE {columns[0]} IS NOT NULL",
        mentioned=rows.select(columns),
    )
