"""Step 1, for each part: read its texts once, parse and check them, keep what later steps need.

A part is scanned block by block; every block leaves a folder ``scan/<part>-<block>`` with the staged resources by type
and the small tables of ``workspace.SMALL_TABLES``. A scan sees its own texts alone: whether a patient exists is for later.
One query parses the texts of a type, checks them and cuts them to the columns that we keep; the texts are never copied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fedhealth.cdm.findings import add_examples, add_finding, keep_findings, notes_sql
from fedhealth.cdm.keys import keyed_ids
from fedhealth.cdm.staged import (
    CODES,
    COMPONENT,
    DRUGS,
    QUANTITY,
    REFERENCES,
    TIMES,
    parsed_fields,
    staged_columns,
)
from fedhealth.cdm.validating import SAMPLE, keep_texts
from fedhealth.cdm.workspace import SMALL_TABLES, Plan, block_name, block_step, first_seq, read_plan, save
from fedhealth.fhir.bundle_rules import broken_bundle_rules
from fedhealth.fhir.bundles import bundle_block
from fedhealth.fhir.files import PART_BYTES, read_blocks
from fedhealth.fhir.resources import NOT_R4, R4_TYPES, SHAPES, UNKNOWN, verdicts

_NAMES = ", ".join(f"'{name}'" for name in SHAPES)
_R4 = ", ".join(f"'{name}'" for name in sorted(R4_TYPES))

_FIRST_FIELD = '{"resourceType":"'
_FIRST_TYPES = " ".join(
    f"WHEN starts_with(text, '{_FIRST_FIELD}{name}\"') THEN '{name}'"
    for name in ("Observation", *(name for name in SHAPES if name != "Observation"))
)
_SPELT_OUT = "coalesce(from_json(text, '{\"resourceType\":\"VARCHAR\"}').resourceType, '')"
_TYPE = f"""
SELECT seq, CASE WHEN state IS NOT NULL THEN NULL {_FIRST_TYPES} WHEN json_valid(text) THEN {_SPELT_OUT} END AS type FROM texts
"""
_TYPE_OF_JSON = f"""
SELECT seq, CASE WHEN state IS NULL AND json_valid(text) THEN CASE {_FIRST_TYPES} ELSE {_SPELT_OUT} END END AS type FROM texts
"""
"""The type of every text, in their order: null if it is no JSON, empty if it names none. The first statement is faster,
and takes for JSON what begins as we read it most often: the parser will tell."""

_NOT_READ = f"""
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
        """The rows of a query over Arrow tables by name, by their ``seq``: an Arrow scan keeps no order."""
        for name, table in tables.items():
            self.database.register(name, table)
        found = self.database.sql(statement).to_arrow_table()
        for name in tables:
            self.database.unregister(name)
        seq = found.column("seq").to_numpy()
        return found if (np.diff(seq) >= 0).all() else found.take(np.argsort(seq, kind="stable"))


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
        name = block_name(part, number)
        folder = work / "scan" / name
        folder.mkdir(parents=True, exist_ok=True)
        with block_step(work, time_zone=time_zone) as database:
            scan = _Scan(database, folder, plan, site_secret)
            total += _scan_block(scan, block, first=first_seq(name))
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


def _scan_block(scan: _Scan, block: pa.Table, *, first: int) -> int:
    """Stage a block; returns the number of its texts, entries included."""
    for name, columns in SMALL_TABLES.items():
        scan.sql(f'CREATE TEMP TABLE "{name}" ({columns})')
    total, depth, layer = 0, 0, block
    while layer is not None:
        numbers = np.arange(first + total, first + total + layer.num_rows)
        incoming, parsed = _sort(scan, _with(layer, seq=pa.array(numbers, pa.int64())))
        total += layer.num_rows
        layer, malformed = _open_bundles(scan, incoming)
        _count(scan, _mark_malformed(incoming, malformed) if malformed else incoming)
        for name in sorted(parsed):
            _keep(scan, name, _leave_unfit(scan, name, *parsed.pop(name)), depth=depth)
        depth += 1
    for name in SMALL_TABLES:
        distinct = "DISTINCT" if name in ("codings", "quantities", "refs") else ""
        save(scan.database, f'SELECT {distinct} * FROM "{name}"', scan.folder / f"{name}.parquet")
    return total


_Parsed = dict[str, tuple[pa.Table, pa.Table]]
"""By type, its texts and what was parsed of them."""


def _sort(scan: _Scan, texts: pa.Table) -> tuple[pa.Table, _Parsed]:
    """The texts with their ``type``, and those of the types that we read parsed."""
    try:
        return _parse_by_type(scan, _with(texts, type=scan.query(_TYPE, texts=texts).column("type")))
    except duckdb.InvalidInputException:  # something only begins like JSON
        return _parse_by_type(scan, _with(texts, type=scan.query(_TYPE_OF_JSON, texts=texts).column("type")))


def _parse_by_type(scan: _Scan, incoming: pa.Table) -> tuple[pa.Table, _Parsed]:
    types = incoming.column("type")
    present = pc.unique(types).to_pylist()
    parsed = {}
    for name in SHAPES.keys() & set(present):
        own = incoming if len(present) == 1 else incoming.filter(pc.equal(types, name))
        parsed[name] = own, _parse(scan, name, own)
    return incoming, parsed


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


def _count(scan: _Scan, incoming: pa.Table) -> None:
    """Count the incoming texts by type, and leave out those of types that we do not read."""
    counts = pc.value_counts(incoming.column("type")).to_pylist()
    present = {each["values"]: each["counts"] for each in counts}
    for name, n in present.items():
        known = name if name in R4_TYPES else UNKNOWN
        scan.database.execute("INSERT INTO tally VALUES ('read', ?, '', ?)", [known, n])
    if present.keys() - SHAPES.keys():
        scan.sql(_NOT_READ, incoming=incoming)
        scan.sql(_DELETED, incoming=incoming)


_ID = "CASE WHEN regexp_full_match(r.id, '[A-Za-z0-9.-]{1,64}') THEN r.id END"
"""A FHIR id, or null."""


def _id(name: str) -> str:
    """SQL for what names a resource: its id, else that of the full URL of its entry in a bundle.

    A consent needs neither, as it may deny: its text names it then.
    """
    uuid = "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    ways = [f"'^urn:uuid:({uuid})$'", f"'/{name}/([A-Za-z0-9.-]{{1,64}})$'"]
    found = ", ".join(f"nullif(regexp_extract(full_url, {way}, 1), '')" for way in ways)
    own = f"CASE WHEN r.id IS NULL THEN coalesce({found}) ELSE {_ID} END"
    return f"coalesce({own}, sha256(text))" if name == "Consent" else own


def _parse(scan: _Scan, name: str, texts: pa.Table) -> pa.Table:
    """The texts of a type as the columns that we keep, with ``fault`` and what else the scan itself needs."""
    columns = "".join(f', {sql} AS "{column}"' for column, sql in staged_columns(name).items())
    if name == "Observation":
        columns += ", CASE WHEN len(component) > 0 THEN component END AS component"
    # of consents a verdict
    foreign = "false" if name == "Consent" else f"{NOT_R4} OR {SHAPES[name].foreign}"
    cases = " ".join(f"WHEN {check.sql} THEN {n}" for n, check in enumerate(verdicts(name), 1))
    verdict = f"CASE {cases} ELSE 0 END" if cases else "0"
    parsed = scan.query(
        f"""
SELECT * EXCLUDE (text), CASE WHEN verdict > 0 THEN sha256(text) END AS digest FROM (
  SELECT seq, text, {_id(name)} AS id, meta.lastUpdated AS updated,
         try_cast(meta.versionId AS BIGINT) AS version, ({verdict})::SMALLINT AS verdict, {notes_sql(name)} AS notes{columns},
         CASE WHEN {foreign} THEN 'fhir_version'
              WHEN {_id(name)} IS NULL THEN CASE WHEN r.id IS NULL THEN 'missing_id' ELSE 'invalid_id' END END AS fault
  FROM ({parsed_fields(name, "texts")}) r)""",
        texts=texts.select(["seq", "fhir_version", "full_url", "text"]),
    )
    keys = keyed_ids(parsed.column("id").to_pylist(), of=name, site_secret=scan.secret)
    places = {column: texts.column(column) for column in ("piece", "line", "full_url")}
    return _with(parsed, **places, key=pa.array(keys, pa.int64()))


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
        chosen = pa.array(keys <= np.partition(keys, last)[last])
        columns, texts = columns.filter(chosen), texts.filter(chosen)
    scan.database.register("candidates", _with(columns, text=texts.column("text")))
    keep_texts(scan.database, name, "candidates", validate=validate, store=scan.plan.verdict_store)
    scan.database.unregister("candidates")


_SCAN_ONLY = ("full_url", "component", "notes")


def _keep(scan: _Scan, name: str, staged: pa.Table, *, depth: int) -> None:
    """Save the staged resources of a type, and what they mention."""
    noted = staged.select(["notes", "piece", "line", "id"]).filter(pc.equal(staged.column("verdict"), 0))
    keep_findings(scan.database, name, noted)
    if staged.column("full_url").null_count < staged.num_rows:
        scan.sql(
            f"INSERT INTO urls SELECT full_url, '{name}/' || id FROM staged WHERE full_url IS NOT NULL",
            staged=staged.select(["full_url", "id"]),
        )
    if name == "Observation" and staged.column("component").null_count < staged.num_rows:
        _keep_components(scan, staged, depth=depth)
    kept = staged.drop_columns([column for column in _SCAN_ONLY if column in staged.column_names])
    if name in TIMES:
        kept = _mention(scan, name, kept)
    _save(scan, kept, f"{name}-{depth}")


def _save(scan: _Scan, rows: pa.Table, name: str) -> None:
    pq.write_table(rows, scan.folder / f"{name}.parquet", compression="lz4", use_dictionary=_repeated(rows))


def _repeated(rows: pa.Table) -> list[str]:
    """The columns whose values repeat: of the others a dictionary would be made in vain."""
    return [column for column in rows.column_names if column not in ("seq", "line", "key", "id")]


def _keep_components(scan: _Scan, staged: pa.Table, *, depth: int) -> None:
    columns = ", ".join(f'{sql} AS "{column}"' for column, sql in COMPONENT.items())
    components = scan.query(
        f"SELECT seq, n::INTEGER AS n, {columns} "
        "FROM (SELECT seq, unnest(component) AS c, generate_subscripts(component, 1) AS n FROM staged "
        "WHERE component IS NOT NULL) WHERE c.code.coding IS NOT NULL",
        staged=staged.select(["seq", "component"]),
    )
    _save(scan, _mention_values(scan, components), f"Component-{depth}")


def _mention(scan: _Scan, name: str, kept: pa.Table) -> pa.Table:
    """Note what must be looked up: references, codings and quantities; numbers stand for the first and the last."""
    for column in REFERENCES:
        if column in kept.column_names:
            kept = _number_references(scan, kept, column)
    if name == "Observation":
        return _mention_values(scan, kept)
    _mention_codings(scan, kept, "code", of=CODES[name])
    if name in DRUGS:
        _mention_codings(scan, kept, "route", of="route")
    return kept


def _mention_values(scan: _Scan, values: pa.Table) -> pa.Table:
    _mention_codings(scan, values, "coding", of="value")
    return _number_quantities(scan, values)


def _mention_codings(scan: _Scan, rows: pa.Table, column: str, *, of: str) -> None:
    codings = rows.select([column]).rename_columns(["json"])
    scan.sql(
        f"INSERT INTO codings SELECT DISTINCT '{of}', json FROM mentioned WHERE json IS NOT NULL",
        mentioned=codings,
    )


def _number_references(scan: _Scan, rows: pa.Table, column: str) -> pa.Table:
    """The rows with keyed numbers for the references of a column, which are noted in ``refs``."""
    encoded = _encoded(rows.column(column))
    numbers = pa.array(keyed_ids(encoded.dictionary.to_pylist(), site_secret=scan.secret), pa.int64())
    scan.sql(
        "INSERT INTO refs FROM mentioned",
        mentioned=pa.Table.from_arrays([numbers, encoded.dictionary], names=["number", "ref"]),
    )
    return _with(rows, **{column: numbers.take(encoded.indices)})


def _number_quantities(scan: _Scan, rows: pa.Table) -> pa.Table:
    """The rows with keyed numbers for what was measured in which unit, which are noted in ``quantities``."""
    kinds = _alike([rows.column(column) for column in QUANTITY])
    first = np.zeros(kinds.max(initial=-1) + 1, np.int64)
    first[kinds[::-1]] = np.arange(len(kinds))[::-1]
    distinct = rows.select(QUANTITY).take(first)
    spelt = [msgspec.json.encode(list(each.values())).decode() for each in distinct.to_pylist()]
    numbers = pa.array(keyed_ids(spelt, site_secret=scan.secret), pa.int64())
    numbers = pc.if_else(pc.is_valid(distinct.column("code")), numbers, None).combine_chunks()
    scan.sql(
        "INSERT INTO quantities FROM mentioned WHERE number IS NOT NULL",
        mentioned=distinct.add_column(0, "number", numbers),
    )
    return _with(rows.drop_columns(list(QUANTITY)), quantity=numbers.take(pa.array(kinds)))


def _alike(columns: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
    """The same number for the same values, from 0."""
    kinds = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        encoded = _encoded(column)
        places = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy()
        combined = pa.array(kinds * (len(encoded.dictionary) + 1) + places).dictionary_encode()
        kinds = combined.indices.to_numpy().astype(np.int64)
    return kinds


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return column.combine_chunks().dictionary_encode()
