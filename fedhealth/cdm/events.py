"""Step 3, for each scanned block: its events as OMOP rows, each linked to its person and visit.

Every event has a person, a day, a time (null when the source gives a date alone), the moment ``at`` by which it had
happened (a date counts as its end), and the visit found by reference or, failing that, by patient and time: the
visit whose [start - 24 h, end] holds the moment, the latest start winning. A reference to another patient's
encounter counts as none.
"""

from pathlib import Path

import duckdb

from fedhealth.cdm.items import make_items
from fedhealth.cdm.rows import EVENT_TABLES, make_rows
from fedhealth.cdm.staged import CODES, DRUGS, TIMES, WHEN
from fedhealth.cdm.workspace import block_step, first_seq, last_seq, quoted, read_plan, save
from fedhealth.fhir.resources import verdicts

_MENTIONED = "WHERE number IN (SELECT number FROM '{block}/refs.parquet')"
_KNOWN = "WHERE person_id IN (SELECT person_id FROM person_of)"
_LOOKUPS = {
    "loser": "WHERE seq BETWEEN {first} AND {last}",
    "person_of": _MENTIONED,
    "place_of": _MENTIONED,
    "medication_of": _MENTIONED,
    "detail": _KNOWN,
    "span": _KNOWN,
    "measure_of": "WHERE number IN (SELECT number FROM '{block}/quantities.parquet')",
    **dict.fromkeys(
        ("plausible", "coded_condition", "coded_procedure", "coded_drug", "coded_route", "coded_value"), ""
    ),
}
"""What a block needs of each lookup: its own part, as the whole grows with the input."""


def scanned_blocks(work: Path) -> tuple[str, ...]:
    """The names of the scanned blocks, each of which is a task of ``map_block``."""
    return tuple(sorted(path.parent.name for path in (work / "scan").glob("*/tally.parquet")))


def map_block(work: Path, block: str, *, site_secret: bytes) -> None:
    """Map the events of one scanned block; leaves ``map/<block>/`` with rows, what was left out, and counts."""
    settings = read_plan(work).mapped().settings
    folder = work / "map" / block
    folder.mkdir(parents=True, exist_ok=True)
    with block_step(work, time_zone=settings.time_zone) as database:
        for name, part in _LOOKUPS.items():
            own = part.format(
                block=quoted(work / "scan" / block), first=first_seq(block), last=last_seq(block)
            )
            database.execute(
                f"CREATE TEMP TABLE {name} AS FROM '{quoted(work / 'lookup' / name)}.parquet' {own}"
            )
        database.execute(_LEFT)
        database.execute(_TALLY)
        for name in TIMES:
            files = sorted((work / "scan" / block).glob(f"{name}-*.parquet"))
            if files:
                _map_type(database, name, files, folder, infer=settings.unit_inference, secret=site_secret)
        save(database, 'FROM "left"', folder / "left.parquet")
        save(database, "FROM tally", folder / "tally.parquet")


_LEFT = """
CREATE TEMP TABLE "left" (seq BIGINT, type VARCHAR, kind VARCHAR, reason VARCHAR, path VARCHAR, piece INTEGER, line BIGINT,
                     digest VARCHAR, id VARCHAR)
"""
_TALLY = "CREATE TEMP TABLE tally (what VARCHAR, name VARCHAR, detail VARCHAR, n BIGINT)"


def _map_type(
    database: duckdb.DuckDBPyConnection,
    name: str,
    files: list[Path],
    folder: Path,
    *,
    infer: bool,
    secret: bytes,
) -> None:
    listed = ", ".join(f"'{quoted(path)}'" for path in files)
    reasons = _reasons(name)
    database.execute(_join(name, f"read_parquet([{listed}])", reasons))
    _leave(database, name, reasons)
    database.execute(
        f"INSERT INTO tally SELECT 'refused', '{name}', '', count(*) FROM event "
        "WHERE outcome = 0 AND link = 'none' AND encounter IS NOT NULL HAVING count(*) > 0"
    )
    _link_by_time(database)
    if name == "Observation":
        components = [path.with_name(path.name.replace("Observation", "Component")) for path in files]
        make_items(database, [path for path in components if path.exists()], infer=infer, site_secret=secret)
    tables = make_rows(database, name)
    for table in tables:
        save(database, f"SELECT * EXCLUDE (seq, link) FROM out_{table}", folder / f"{table}-{name}.parquet")
        database.execute(
            f"INSERT INTO tally SELECT 'link', '{table}', link, count(*) FROM out_{table} GROUP BY link"
        )
        database.execute(
            "INSERT INTO tally SELECT 'note', 'time_is_date_only', '', count(*) "
            f"FROM out_{table} WHERE {EVENT_TABLES[table].day}time IS NULL"
        )
        _count_unmapped(database, table)
    union = " UNION ALL ".join(f"SELECT seq FROM out_{table}" for table in tables)
    database.execute(
        f"INSERT INTO tally SELECT 'loaded', '{name}', '', count(DISTINCT seq) FROM ({union}) HAVING count(*) > 0"
    )


def _count_unmapped(database: duckdb.DuckDBPyConnection, table: str) -> None:
    prefix = EVENT_TABLES[table].prefix
    unit = "coalesce(unit_source_value, '')" if table == "measurement" else "''"
    database.execute(
        f"INSERT INTO tally SELECT 'unmapped', '{EVENT_TABLES[table].field}', "
        f"coalesce({prefix}_source_value, '|') || chr(0) || {unit} AS what, count(*) "
        f"FROM out_{table} WHERE {prefix}_concept_id = 0 GROUP BY what"
    )


_STRANGER = "coalesce(who.is_foreign OR place.is_foreign, false)"


_Reason = tuple[str, str, str, str]
"""When it holds, and SQL for kind, reason and path of what is then left."""


def _reasons(name: str) -> list[_Reason]:
    """Why an event is left, in the order in which the reasons count."""
    reasons = [
        ("loser.reason IS NOT NULL", "loser.kind", "loser.reason", "loser.path"),
        *(
            (f"p.verdict = {n}", f"'{check.kind}'", f"'{check.reason}'", f"'{check.path}'")
            for n, check in enumerate(verdicts(name), 1)
        ),
        (_STRANGER, "'excluded'", "'other_organization'", f"'{name}'"),
        ("p.subject IS NULL", "'quarantined'", "'missing_subject'", f"'{name}.subject'"),
        ("who.person_id IS NULL", "'quarantined'", "'dangling_subject'", f"'{name}.subject.reference'"),
        ("p.day IS NULL AND p.is_dated", "'quarantined'", "'invalid_date'", f"'{name}.{WHEN[name]}'"),
        (
            "coalesce(p.day, CASE WHEN NOT p.is_dated THEN place.start_day END) IS NULL",
            "'quarantined'",
            "'missing_time'",
            f"'{name}'",
        ),
    ]
    if name == "Observation":
        reasons.append(
            ("NOT coalesce(coded.has_code, false)", "'quarantined'", "'missing_code'", "'Observation.code'")
        )
    return reasons


def _join(name: str, source: str, reasons: list[_Reason]) -> str:
    """SQL for ``event``: the staged resources of a type with person, visit, and the number of the reason to leave it, or 0."""
    if name == "Observation":
        chosen = (
            "coded.concept_id, coded.code_value, coded.state, coded.factor, coded.shift, coded.unit_concept_id, "
            "coded.unit_value, value_code.source_value AS value_coded, value_code.concept_id AS value_concept"
        )
        coded = (
            "LEFT JOIN measure_of coded ON coded.number = p.quantity "
            "LEFT JOIN coded_value value_code ON value_code.json = p.coding"
        )
    else:
        chosen = "coded.concept_id, coded.source_value AS code_value"
        coded = f"LEFT JOIN coded_{CODES[name]} coded ON coded.json = p.code"
    if name in DRUGS:
        coded = (
            "LEFT JOIN medication_of ON medication_of.number = p.medication "
            "LEFT JOIN coded_drug coded ON coded.json = coalesce(p.code, medication_of.coding)"
        )
    cases = " ".join(f"WHEN {when} THEN {n}" for n, (when, *_) in enumerate(reasons, 1))
    return f"""
CREATE OR REPLACE TEMP TABLE event AS
SELECT p.* EXCLUDE (updated, version, verdict, subject, is_dated)
           REPLACE (coalesce(p.day, CASE WHEN NOT p.is_dated THEN place.start_day END) AS day,
                    coalesce(p.time, CASE WHEN NOT p.is_dated THEN place.start_time END) AS time),
       who.person_id, place.visit_id, place.detail_id, {chosen},
       CASE {cases} ELSE 0 END AS outcome,
       CASE WHEN place.visit_id IS NOT NULL THEN 'reference' ELSE 'none' END AS link
FROM {source} p LEFT JOIN loser USING (seq)
LEFT JOIN person_of who ON who.number = p.subject
LEFT JOIN place_of place ON place.number = p.encounter AND (place.person_id = who.person_id OR place.is_foreign)
{coded}
"""


def _leave(database: duckdb.DuckDBPyConnection, name: str, reasons: list[_Reason]) -> None:
    columns = ", ".join(
        f"CASE outcome {' '.join(f'WHEN {n} THEN {row[place]}' for n, row in enumerate(reasons, 1))} END"
        for place in (1, 2, 3)
    )
    database.execute(
        f"INSERT INTO \"left\" SELECT seq, '{name}', {columns}, piece, line, digest, id "
        "FROM event LEFT JOIN loser USING (seq) WHERE outcome > 0"
    )


_AT = "coalesce(time, day::TIMESTAMP + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND)"

_BY_TIME = f"""
CREATE OR REPLACE TEMP TABLE by_time AS
SELECT e.seq, arg_max(v.key, (v.began, v.key)) AS visit_id
FROM (SELECT seq, person_id, {_AT} AS at FROM event WHERE outcome = 0 AND link = 'none') e
JOIN span v ON v.person_id = e.person_id
 AND e.at BETWEEN v.began - INTERVAL 24 HOUR AND coalesce(v.ended, TIMESTAMP '9999-12-31')
GROUP BY e.seq
"""

_BY_DETAIL = f"""
CREATE OR REPLACE TEMP TABLE by_detail AS
SELECT e.seq, arg_max(s.key, (s.began, s.key)) AS detail_id
FROM (SELECT seq, person_id, {_AT} AS at, coalesce(event.visit_id, by_time.visit_id) AS visit_id
      FROM event LEFT JOIN by_time USING (seq) WHERE outcome = 0 AND detail_id IS NULL) e
JOIN detail s ON s.person_id = e.person_id AND s.visit_id = e.visit_id
 AND e.at BETWEEN s.began AND coalesce(s.ended, TIMESTAMP '9999-12-31')
GROUP BY e.seq
"""

_KEPT = "CREATE OR REPLACE TEMP VIEW kept AS FROM {table} WHERE outcome = 0"

_LINKED = """
CREATE OR REPLACE TEMP TABLE linked AS
SELECT e.* REPLACE (coalesce(e.visit_id, t.visit_id) AS visit_id, coalesce(e.detail_id, d.detail_id) AS detail_id,
                    CASE WHEN t.visit_id IS NOT NULL THEN 'time' ELSE link END AS link)
FROM event e LEFT JOIN by_time t USING (seq) LEFT JOIN by_detail d USING (seq) WHERE outcome = 0
"""


def _link_by_time(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``kept``: events without a known encounter get the visit, all the visit detail, that their time falls into."""
    for statement in (_BY_TIME, _BY_DETAIL):
        database.execute(statement)
    found = database.execute(
        "SELECT 1 FROM (SELECT seq FROM by_time UNION ALL SELECT seq FROM by_detail) LIMIT 1"
    ).fetchone()
    if found is not None:
        database.execute(_LINKED)
    database.execute(_KEPT.format(table="event" if found is None else "linked"))
