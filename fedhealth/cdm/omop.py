"""A hospital's own OMOP in, a CDM of ours out: keyed ids, the same de-identification, and an exact account by table.

Only our columns are read, so free text, providers and places have no way in. A row that lacks what OMOP requires,
repeats a key or is nobody's is quarantined; a value that cannot be read becomes null and is counted. What a load from
FHIR decides from more than OMOP holds is taken from it: a visit is an emergency if its concept or its origin says so,
and none is known to be planned.
"""

import tempfile
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa

from fedhealth.cdm.accounting import Accounting, LinkCount, Unmapped, ValueCount, account_resources
from fedhealth.cdm.bookkeeping import describe_source
from fedhealth.cdm.consent import save_consents
from fedhealth.cdm.keys import keyed_ids
from fedhealth.cdm.omop_source import naming_broken_files, open_omop
from fedhealth.cdm.omop_units import convert_units
from fedhealth.cdm.output import replacing, write_private, write_tables
from fedhealth.cdm.profiles import deidentification_of, follow, move_people
from fedhealth.cdm.record import describe, write_record
from fedhealth.cdm.rows import EVENT_TABLES, find_lived, write_periods
from fedhealth.cdm.source_codes import hide_rare_sources
from fedhealth.cdm.tables import PRIVATE_TABLES, TABLES, Table
from fedhealth.cdm.visits import ADMITTED_FROM_EMERGENCY
from fedhealth.cdm.workspace import step
from fedhealth.config import Profile
from fedhealth.errors import ConfigError, DataError
from fedhealth.privacy.consent import ConsentRules
from fedhealth.vocabulary.concepts import (
    ETHNICITIES,
    MEASUREMENTS,
    NOT_STATED,
    RACES,
    STILL_PATIENT,
    VISIT_EMERGENCY,
    VISIT_EMERGENCY_TO_INPATIENT,
)
from fedhealth.vocabulary.maps import maps_digest
from fedhealth.vocabulary.site_map import read_site_map

_ROWS = ("care_site", "person", "visit_occurrence", "visit_detail", *EVENT_TABLES, "death")
"""The tables that are read row by row; observation periods follow from them, or are the source's own."""

_REFERS = {
    "person_id": "Person",
    "visit_occurrence_id": "Visit",
    "preceding_visit_occurrence_id": "Visit",
    "visit_detail_id": "VisitDetail",
    "care_site_id": "CareSite",
    "observation_period_id": "ObservationPeriod",
}
"""What an id is an id of; any other is of its own table."""

_OWN_CONCEPTS = 2_000_000_000
"""From here on concept ids are a hospital's own; they become 0."""

_KNOWN_TEXT = {
    "gender_source_value": ("male", "female", "other", "unknown", "M", "F", "m", "f", "U"),
    "race_source_value": (*RACES, *NOT_STATED),
    "ethnicity_source_value": (*ETHNICITIES, *NOT_STATED),
}
"""Text that may stay as it came, where nothing else may."""


def import_omop(
    source: str,
    cdm_dir: Path,
    *,
    site: str,
    site_map: Path | None = None,
    site_secret: bytes,
    profile: Profile | None = None,
    threads: int = 1,
) -> Accounting:
    """Make a CDM of ours from a hospital's own OMOP 5.3 or 5.4.

    Guarantees: per table, read = loaded + quarantined, checked; all ids are keyed; rare source values and dates are
    treated as in a load from FHIR; the same source and secret give the same bytes; ``cdm_dir`` is complete or as it was.

    Args:
      source: a folder of Parquet or CSV files, or ``postgresql://host/database?schema=cdm``.
      cdm_dir: where the CDM goes.
      site: the site's name.
      site_map: folder with ``site.yaml`` (profile, extract date, consent default) and ConceptMaps, whose codes stay.
      site_secret: 32 bytes that key all ids.
      profile: how the CDM is de-identified; what ``site.yaml`` says if it is not given.
      threads: DuckDB threads.

    Returns:
      The account: ``resources`` are by OMOP table.

    Raises:
      ConfigError: the source or the site map is wrong.
      DataError: the source cannot be read, or nothing of it could be loaded.
    """
    if len(site_secret) != 32:
        raise ConfigError("the site secret has not 32 bytes", "use the secret in the site's key folder")
    mapped = read_site_map(site_map)
    settings = mapped.settings
    how = deidentification_of(mapped, profile)
    digest = maps_digest(mapped)
    cdm_dir = Path(cdm_dir)
    with replacing(cdm_dir) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with (
            step(Path(scratch), time_zone=settings.time_zone, threads=threads) as database,
            naming_broken_files(database, source),
        ):
            columns = open_omop(database, source, Path(scratch))
            counts = _load(database, columns, site_secret)
            values = convert_units(database, mapped, unreadable=_unreadable(database))
            extract = settings.extract_date or _latest(database)
            database.execute(_PATIENT)
            find_lived(database, extract, visits=_STAYS)
            follow(database, how.profile, extract)
            _end_open_visits(database, moved=how.profile != "local-only")
            if how.profile == "local-only" and _has_rows(database, "observation_period", columns):
                counts |= _load_table(database, "observation_period", columns, site_secret)
            else:
                write_periods(database)
            database.execute(_EXTRA)
            describe_source(database, site, extract, digest)
            move_people(database, how, extract, site_secret=site_secret)
            hidden = hide_rare_sources(database, mapped, is_foreign=True)
            tables = write_tables(database, folder, how, hidden=hidden)
            _make_private(database)
            write_private(database, folder)
            save_consents(
                folder / "private",
                [],
                ConsentRules(settings.consent_default, frozenset(settings.consent_codes)),
            )
            write_record(folder, describe(how, site=site, map_digest=digest, extract=extract))
            account = _account(database, site, counts, values, tables, is_whole=not how.dropped)
        (folder / "accounting.json").write_text(account.to_json())
    return account


_PATIENT = """
CREATE VIEW patient AS SELECT person_id, coalesce(
    try_cast(format('{:04d}-{:02d}-{:02d}', year_of_birth, month_of_birth, day_of_birth) AS DATE),
    last_day(try_cast(format('{:04d}-{:02d}-01', year_of_birth, month_of_birth) AS DATE)),
    make_date(year_of_birth, 12, 31))::VARCHAR AS birthDate
FROM out_person
"""
_STAYS = (
    "SELECT person_id, visit_start_date AS day, CASE WHEN coalesce(discharged_to_concept_id, 0) = "
    f"{STILL_PATIENT} THEN visit_start_date ELSE greatest(visit_start_date, visit_end_date) END AS last, "
    "visit_start_datetime AS timed FROM out_visit_occurrence"
)
_EXTRA = f"""
CREATE TABLE out_visit_extra AS SELECT visit_occurrence_id,
    coalesce(visit_concept_id IN ({VISIT_EMERGENCY}, {VISIT_EMERGENCY_TO_INPATIENT})
             OR admitted_from_concept_id = {ADMITTED_FROM_EMERGENCY}, false) AS is_emergency, false AS is_planned
FROM out_visit_occurrence
"""

Counts = dict[str, tuple[int, int, dict[str, int]]]
"""By table: rows read, rows loaded, rows quarantined by reason."""


def _load(database: duckdb.DuckDBPyConnection, columns: dict[str, set[str]], secret: bytes) -> Counts:
    """Make ``out_<table>`` of all rows that can be used, and ``quarantined``."""
    database.execute("CREATE TABLE quarantined (omop_table VARCHAR, row BIGINT, reason VARCHAR)")
    database.execute("CREATE TABLE unread (omop_table VARCHAR, n BIGINT)")
    database.execute("CREATE TABLE unread_number (n BIGINT)")
    counts: Counts = {}
    for name in _ROWS:
        counts |= _load_table(database, name, columns, secret)
    if counts["person"][1] == 0:
        raise DataError(
            "no person of the OMOP source could be loaded", "see whether it is an OMOP CDM 5.3 or 5.4"
        )
    return counts


def _load_table(
    database: duckdb.DuckDBPyConnection, name: str, columns: dict[str, set[str]], secret: bytes
) -> Counts:
    table = TABLES[name]
    if name not in columns:
        listed = "".join(f"{column.name} {column.type}, " for column in table.columns)
        database.execute(f"CREATE TABLE out_{name} ({listed}row BIGINT)")
        return {}
    missing = [column for column in table.required if column not in columns[name]]
    if missing:
        raise DataError(
            f"the OMOP table {name} lacks {', '.join(missing)} (code missing_column)",
            "export it as OMOP CDM 5.4",
        )
    database.execute(f"CREATE TABLE read_{name} AS {_select(table, columns[name])}")
    _quarantine(database, table)
    _key(database, table, secret)
    read, loaded = (_one(database, f"SELECT count(*) FROM {prefix}_{name}") for prefix in ("read", "out"))
    reasons = dict(
        database.execute(
            "SELECT reason, count(*) FROM quarantined WHERE omop_table = ? GROUP BY reason", [name]
        ).fetchall()
    )
    unread = [f"count(*) FILTER (is_unread_{c.name})" for c in table.columns if c.name in columns[name]]
    n = sum(database.execute(f"SELECT {', '.join(unread)} FROM read_{name}").fetchall()[0])
    database.execute("INSERT INTO unread VALUES (?, ?)", [name, n])
    if name == "measurement" and "value_as_number" in columns[name]:
        database.execute(
            "INSERT INTO unread_number SELECT count(*) FROM read_measurement "
            f"WHERE is_unread_value_as_number AND measurement_concept_id IN {tuple(MEASUREMENTS)}"
        )
    database.execute(f"DROP TABLE read_{name}")
    return {name: (read, loaded, reasons)}


def _select(table: Table, present: set[str]) -> str:
    """SQL for the rows of a source table in our columns and types, each with whether it could not be read."""
    shown = ["row_number() OVER () AS row"]
    for column in table.columns:
        if column.name not in present:
            shown.append(f"NULL::{column.type} AS {column.name}")
            continue
        value = f's."{column.name}"'
        if column.type == "VARCHAR":
            read = f"nullif(trim({value}::VARCHAR), '')"
            allowed = _KNOWN_TEXT.get(column.name)
            if column.name == "care_site_name":
                read = "NULL::VARCHAR"
            elif allowed is not None:
                read = f"CASE WHEN {read} IN ({', '.join(repr(text) for text in allowed)}) THEN {read} END"
        elif column.type in ("DATE", "TIMESTAMP"):
            read = _within(
                f"coalesce(try_cast({value} AS {column.type}), try_cast({value} AS TIMESTAMP)::{column.type})"
            )
        elif column.name == "year_of_birth":
            read = f"CASE WHEN try_cast({value} AS INTEGER) BETWEEN 1800 AND 2500 THEN try_cast({value} AS INTEGER) END"
        elif column.name == "condition_source_concept_id":
            read = "0"
        elif column.name.endswith("_concept_id"):  # a hospital's own concepts say what its rare codes do
            number = f"try_cast({value} AS BIGINT)"
            read = f"CASE WHEN {number} >= {_OWN_CONCEPTS} THEN 0 ELSE try_cast({value} AS INTEGER) END"
        else:
            read = f"try_cast({value} AS {column.type})"
        given = f"nullif(trim({value}::VARCHAR), '') IS NOT NULL"
        shown += [
            f"{read} AS {column.name}",
            f"({'false' if column.type == 'VARCHAR' else f'{given} AND {read} IS NULL'}) AS is_unread_{column.name}",
        ]
    return f"SELECT {', '.join(shown)} FROM src_{table.name} s"


def _within(moment: str) -> str:
    """SQL for a date or time of 1800 to 2500: infinity and 9999-12-31 are none."""
    return f"CASE WHEN {moment} BETWEEN '1800-01-01' AND '2500-12-31' THEN {moment} END"


def _quarantine(database: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Make ``keep_<table>``: rows with all that is required, of a person who is there, and of a key of their own."""
    name = table.name
    reasons = [
        (f"{' OR '.join(f'{column} IS NULL' for column in table.required)}", "missing_required"),
        (f"{table.key or 'person_id'} IN (SELECT {table.key or 'person_id'} FROM read_{name} GROUP BY 1 "
         "HAVING count(*) > 1)", "duplicate_key"),
    ]  # fmt: skip
    if name == "death":  # some sources keep several; the first is the death
        reasons[1] = (
            "(person_id, death_date, row) NOT IN (SELECT person_id, min(death_date), arg_min(row, (death_date, row)) "
            "FROM read_death WHERE death_date IS NOT NULL GROUP BY person_id)",
            "duplicate_key",
        )
    if name not in ("person", "care_site"):
        reasons.append(("person_id NOT IN (SELECT person_id FROM keep_person)", "dangling_person"))
    if name == "visit_detail":
        reasons.append(
            (
                "visit_occurrence_id NOT IN (SELECT visit_occurrence_id FROM keep_visit_occurrence)",
                "dangling_visit",
            )
        )
    for condition, reason in reasons:
        database.execute(
            f"INSERT INTO quarantined SELECT '{name}', row, '{reason}' FROM read_{name} r WHERE coalesce({condition}, false) "
            f"AND NOT EXISTS (FROM quarantined q WHERE q.omop_table = '{name}' AND q.row = r.row)"
        )
    database.execute(
        f"CREATE TABLE keep_{name} AS SELECT * FROM read_{name} r WHERE NOT EXISTS "
        f"(FROM quarantined q WHERE q.omop_table = '{name}' AND q.row = r.row)"
    )


def _key(database: duckdb.DuckDBPyConnection, table: Table, secret: bytes) -> None:
    """Make ``out_<table>``: the kept rows with keyed ids; an id of a visit that is not kept becomes null."""
    name, shown, joins = table.name, [], []
    for column in table.columns:
        kind = _kind(table, column.name)
        if kind is None:
            shown.append(f"k.{column.name}")
            continue
        keys = f"key_{column.name}"
        if column.name in (table.key, "person_id") or kind not in ("Visit", "VisitDetail", "CareSite"):
            source = f"SELECT DISTINCT {column.name} AS id FROM keep_{name} WHERE {column.name} IS NOT NULL"
        else:
            of = {"Visit": "visit_occurrence", "VisitDetail": "visit_detail", "CareSite": "care_site"}[kind]
            source = (
                f"SELECT DISTINCT {column.name} AS id FROM keep_{name} SEMI JOIN "
                f"(SELECT {TABLES[of].key} AS known FROM keep_{of}) ON known = {column.name}"
                if _has(database, f"keep_{of}")
                else f"SELECT {column.name} AS id FROM keep_{name} WHERE false"
            )
        ids: pa.Table = database.sql(source).to_arrow_table()
        numbers = keyed_ids((str(each) for each in ids.column(0).to_pylist()), of=kind, site_secret=secret)
        database.register("numbers", ids.append_column("keyed", pa.array(numbers, pa.int64())))
        database.execute(f"CREATE OR REPLACE TEMP TABLE {keys} AS FROM numbers")
        database.unregister("numbers")
        joins.append(f"LEFT JOIN {keys} ON {keys}.id = k.{column.name}")
        shown.append(f"{keys}.keyed AS {column.name}")
    database.execute(
        f"CREATE TABLE out_{name} AS SELECT {', '.join(shown)}, k.row FROM keep_{name} k {' '.join(joins)}"
    )
    if table.key and name not in ("observation_period",):
        database.execute(
            f"CREATE TABLE map_{name} AS SELECT o.{table.key} AS omop_id, k.{table.key}::VARCHAR AS source_id "
            f"FROM out_{name} o JOIN keep_{name} k USING (row)"
        )


def _has_rows(database: duckdb.DuckDBPyConnection, name: str, columns: dict[str, set[str]]) -> bool:
    return name in columns and _one(database, f"SELECT count(*) FROM src_{name}") > 0


def _kind(table: Table, column: str) -> str | None:
    """What a column's ids are of, or None if it holds no id."""
    if column in _REFERS:
        return _REFERS[column]
    return table.name if column == table.key else None


def _has(database: duckdb.DuckDBPyConnection, name: str) -> bool:
    return bool(_one(database, f"SELECT count(*) FROM duckdb_tables() WHERE table_name = '{name}'"))


def _one(database: duckdb.DuckDBPyConnection, query: str) -> int:
    ((found,),) = database.execute(query).fetchall()
    return int(found or 0)


def _unreadable(database: duckdb.DuckDBPyConnection) -> int:
    """Numbers of measurements with a unit of ours that are no numbers, such as those with a decimal comma."""
    return _one(database, "SELECT sum(n) FROM unread_number")


def _latest(database: duckdb.DuckDBPyConnection) -> date:
    """The last day on which something began, or a visit ended within a year of that: open ends are far off."""
    columns = ["SELECT max(visit_start_date) AS day FROM out_visit_occurrence"]
    columns += [f"SELECT max({table.day}) FROM out_{name}" for name, table in EVENT_TABLES.items()]
    ((found,),) = database.execute(
        f"WITH begun AS (SELECT max(day) AS day FROM ({' UNION ALL '.join(columns)})) SELECT greatest(any_value(begun.day), "
        "max(visit_end_date) FILTER (visit_end_date <= begun.day + 366)) FROM begun LEFT JOIN out_visit_occurrence ON true"
    ).fetchall()
    return date(1970, 1, 1) if found is None else date.fromisoformat(str(found))


def _end_open_visits(database: duckdb.DuckDBPyConnection, *, moved: bool) -> None:
    """Let "still patient" end with the person's follow-up where dates move: the source ends it on the extract's day."""
    if moved:
        database.execute(
            "UPDATE out_visit_occurrence v SET visit_end_date = greatest(visit_start_date, until), "
            "visit_end_datetime = NULL FROM followed f WHERE f.person_id = v.person_id "
            f"AND discharged_to_concept_id = {STILL_PATIENT}"
        )


def _make_private(database: duckdb.DuckDBPyConnection) -> None:
    """The traces of an import: rows to source ids, and what was left out, by table and row."""
    union = " UNION ALL ".join(
        f"SELECT {n}::UTINYINT AS place, '{name}' AS omop_table, omop_id, source_id AS fhir_reference FROM map_{name}"
        for n, name in enumerate(sorted(_ROWS))
        if _has(database, f"map_{name}")
    )
    database.execute(f"CREATE VIEW private_id_map AS {union}")
    empty = {
        name: ", ".join(f"NULL::{kind} AS {column}" for column, kind in PRIVATE_TABLES[name])
        for name in ("quarantine", "findings")
    }
    database.execute(f"CREATE VIEW private_findings AS SELECT {empty['findings']} WHERE false")
    database.execute(
        "CREATE VIEW private_quarantine AS SELECT omop_table AS resource_type, omop_table AS file, row AS line, "
        "reason AS reason_code, NULL AS json_path, NULL AS source_digest, NULL AS fhir_id FROM quarantined"
    )
    rows = [
        f"SELECT {table.prefix}_source_value AS value, "
        f"{'unit_source_value' if name == 'measurement' else 'NULL'} AS unit FROM out_{name} "
        f"WHERE {table.prefix}_concept_id = 0"
        for name, table in EVENT_TABLES.items()
    ]
    database.execute(
        "CREATE TABLE private_unmapped AS SELECT '' AS system, coalesce(value, '') AS code, NULL AS display, unit, "
        f"count(*) AS n FROM ({' UNION ALL '.join(rows)}) GROUP BY value, unit"
    )


_SHOWN_UNMAPPED = """
SELECT '', coalesce(c.shown, code), coalesce(u.shown, unit, ''), sum(n)::BIGINT AS n FROM private_unmapped
LEFT JOIN hidden c ON c.kind = 'code' AND c.value = code LEFT JOIN hidden u ON u.kind = 'unit' AND u.value = unit
GROUP BY ALL ORDER BY 4 DESC, 1, 2, 3
"""


def _account(
    database: duckdb.DuckDBPyConnection,
    site: str,
    counts: Counts,
    values: ValueCount,
    tables: dict[str, int],
    *,
    is_whole: bool,
) -> Accounting:
    left = {
        (name, "quarantined", reason): n
        for name, (_, _, reasons) in counts.items()
        for reason, n in reasons.items()
    }
    links = {
        name: LinkCount(
            reference=_one(database, f"SELECT count(visit_occurrence_id) FROM out_{name}"),
            time=0,
            none=_one(database, f"SELECT count(*) - count(visit_occurrence_id) FROM out_{name}"),
        )
        for name in EVENT_TABLES
    }
    return Accounting(
        site=site,
        resources=account_resources(
            {name: read for name, (read, _, _) in counts.items()},
            {name: loaded for name, (_, loaded, _) in counts.items()},
            left,
        ),
        values=values,
        links=links,
        notes={"value_unreadable": _one(database, "SELECT sum(n) FROM unread")},
        tables=tables,
        unmapped=[
            Unmapped(system=system, code=code, unit=unit, n=n)
            for system, code, unit, n in database.execute(_SHOWN_UNMAPPED).fetchall()
            if is_whole
        ],
        seconds={},
    )
