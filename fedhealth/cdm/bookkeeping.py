"""What the run leaves beside its tables: the CDM's source row, the private traces, the account."""

from datetime import date

import duckdb

from fedhealth import __version__
from fedhealth.cdm.accounting import Accounting, LinkCount, Unmapped, ValueCount, account_resources
from fedhealth.errors import DataError
from fedhealth.fhir.resources import LOADED
from fedhealth.vocabulary.concepts import CDM_5_4

_LINKED = {
    "condition_occurrence": "condition",
    "measurement": "measurement",
    "observation": "measurement",
    "drug_exposure": "drug",
    "procedure_occurrence": "procedure",
}
"""Tables whose rows are linked to visits, and the field whose codes they carry."""


def describe_source(database: duckdb.DuckDBPyConnection, site: str, extract: date, digest: str) -> None:
    """Make out_cdm_source; the vocabulary version names our package and the digest of the maps."""
    database.execute(
        "CREATE TABLE out_cdm_source AS SELECT ? AS cdm_source_name, ? AS cdm_source_abbreviation, ? AS cdm_holder, "
        "?::DATE AS source_release_date, ?::DATE AS cdm_release_date, 'v5.4' AS cdm_version, "
        "?::INTEGER AS cdm_version_concept_id, ? AS vocabulary_version",
        [site, site, site, extract, extract, CDM_5_4, f"fedhealth {__version__} maps {digest[:16]}"],
    )


_KEYS = {
    "person": "person_id",
    "visit_occurrence": "visit_occurrence_id",
    "visit_detail": "visit_detail_id",
    "condition_occurrence": "condition_occurrence_id",
    "measurement": "measurement_id",
    "observation": "observation_id",
    "drug_exposure": "drug_exposure_id",
    "procedure_occurrence": "procedure_occurrence_id",
    "care_site": "care_site_id",
}


def trace_rows(database: duckdb.DuckDBPyConnection) -> None:
    """Make the tables that trace a row to its source."""
    with_ref = " UNION ALL ".join(
        f"SELECT '{table}' AS omop_table, {key} AS omop_id, ref AS fhir_reference FROM out_{table}"
        for table, key in _KEYS.items()
        if not table.startswith("visit")
    )
    visits = " UNION ALL ".join(
        f"SELECT '{table}', {table}_id, ref FROM out_{table} JOIN p_Encounter USING (seq)"
        for table in ("visit_occurrence", "visit_detail")
    )
    database.execute(f"CREATE TABLE private_id_map AS {with_ref} UNION ALL {visits}")
    database.execute(
        "CREATE TABLE private_quarantine AS "
        "SELECT r.type AS resource_type, s.line, reason AS reason_code, r.type AS json_path, sha256(text) AS source_digest "
        "FROM rejected r JOIN resource s USING (seq) WHERE kind = 'quarantined' "
        "UNION ALL SELECT type, line, reason, type, digest FROM counted WHERE kind = 'quarantined' "
        "UNION ALL SELECT 'Observation', s.line, v.state, CASE WHEN n = 0 THEN 'Observation.valueQuantity' "
        "ELSE 'Observation.component.valueQuantity' END, sha256(text) "
        "FROM valued v JOIN resource s USING (seq) WHERE is_lost"
    )
    database.execute(f"CREATE TABLE private_unmapped AS {_unmapped()}")


def _unmapped() -> str:
    """SQL: every code with concept 0, with its unit and how many rows carry it."""
    rows = []
    for table, field_name in _LINKED.items():
        prefix = table.split("_")[0]
        unit = "unit_source_value" if table == "measurement" else "NULL"
        rows.append(
            f"SELECT {prefix}_source_value AS value, {unit} AS unit, '{field_name}' AS field FROM out_{table} "
            f"WHERE {prefix}_concept_id = 0"
        )
    rows.append("SELECT class_value, NULL, 'class' FROM visit WHERE visit_concept_id = 0")
    rows.append("SELECT discharged_value, NULL, 'disposition' FROM visit WHERE discharged_to = 0")
    rows.append("SELECT admitted_value, NULL, 'admit_source' FROM visit WHERE admitted_from = 0")
    fields = (*dict.fromkeys(_LINKED.values()), "class", "disposition", "admit_source")
    names = " UNION ALL ".join(
        f"SELECT '{name}' AS field, source_value AS value, max(display) AS display FROM coded_{name} GROUP BY source_value"
        for name in fields
    )
    return (
        "SELECT split_part(coalesce(value, '|'), '|', 1) AS system, "
        "substr(value, strpos(value, '|') + 1) AS code, max(display) AS display, unit, count(*) AS n "
        f"FROM ({' UNION ALL '.join(rows)}) LEFT JOIN ({names}) USING (field, value) GROUP BY value, unit"
    )


def account_run(
    database: duckdb.DuckDBPyConnection,
    site: str,
    total: int,
    tables: dict[str, int],
    seconds: dict[str, float],
) -> Accounting:
    read = _counts(
        database,
        "SELECT type, count(*) FROM (SELECT type FROM resource UNION ALL SELECT type FROM counted) GROUP BY 1",
    )
    if sum(read.values()) != total:
        raise DataError("lines were lost while reading (code accounting)", "report this as a defect")
    left = database.execute(
        "SELECT type, kind, reason, count(*) FROM (SELECT type, kind, reason FROM rejected "
        "UNION ALL SELECT type, kind, reason FROM counted) GROUP BY ALL"
    ).fetchall()
    unused = [("Medication", "excluded", "read_for_code_only", row[1]) for row in _medications(database)]
    notes = {
        "time_is_date_only": "SELECT count(*) FROM row_of WHERE time IS NULL",
        "death_disagrees": "SELECT count(*) FROM out_death WHERE disagrees",
        "death_without_date": "SELECT count(*) FROM patient WHERE deceasedBoolean AND person_id NOT IN "
        "(SELECT person_id FROM out_death)",
        "open_encounter": "SELECT count(*) FROM visit WHERE is_open",
    }
    return Accounting(
        site=site,
        resources=account_resources(
            read, _loaded(database), {(name, kind, reason): n for name, kind, reason, n in (*left, *unused)}
        ),
        values=_values(database),
        links={table: _links(database, table) for table in _LINKED},
        notes={name: _one(database, query) for name, query in notes.items()},
        tables=tables,
        unmapped=[
            Unmapped(system=system, code=code or "", unit=unit or "", n=n)
            for system, code, unit, n in database.execute(
                "SELECT system, code, unit, n FROM private_unmapped ORDER BY n DESC, system, code, unit"
            ).fetchall()
        ],
        seconds=seconds,
    )


def _counts(database: duckdb.DuckDBPyConnection, query: str) -> dict[str, int]:
    return dict(database.execute(query).fetchall())


def _one(database: duckdb.DuckDBPyConnection, query: str) -> int:
    row = database.execute(query).fetchone()
    return int(row[0]) if row else 0


def _medications(database: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    return database.execute(
        "SELECT 'Medication', count(*) FROM p_Medication ANTI JOIN rejected USING (seq) HAVING count(*) > 0"
    ).fetchall()


def _loaded(database: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Resources with a row in an out table, per type: counted from the rows, not from what was left out."""
    union = " UNION ".join(f"SELECT seq FROM out_{table}" for table in _KEYS)
    counted = _counts(
        database, f"SELECT type, count(*) FROM ({union}) JOIN resource USING (seq) GROUP BY type"
    )
    return {name: counted.get(name, 0) for name in LOADED if counted.get(name, 0)}


def _values(database: duckdb.DuckDBPyConnection) -> ValueCount:
    """The numbers of measurements whose concept has a canonical unit."""
    states = _counts(
        database, "SELECT state, count(*) FROM valued WHERE has_number AND state <> 'source' GROUP BY state"
    )
    lost: dict[str, int] = {name: states[name] for name in ("unit", "unit_missing") if name in states}
    read = sum(states.values())
    return ValueCount(
        read=read,
        loaded=read - sum(lost.values()),
        converted=states.get("converted", 0),
        inferred=states.get("inferred", 0),
        quarantined=lost,
    )


def _links(database: duckdb.DuckDBPyConnection, table: str) -> LinkCount:
    found = _counts(database, f"SELECT link, count(*) FROM out_{table} GROUP BY link")
    return LinkCount(
        reference=found.get("reference", 0), time=found.get("time", 0), none=found.get("none", 0)
    )
