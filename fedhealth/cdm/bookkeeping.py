"""What the run leaves beside its tables: the CDM's source row, the private traces, the account."""

from datetime import date

import duckdb

from fedhealth import __version__
from fedhealth.cdm.accounting import Accounting, LinkCount, Unmapped, ValueCount, account_resources
from fedhealth.cdm.findings import account_findings
from fedhealth.cdm.rows import EVENT_TABLES
from fedhealth.errors import DataError
from fedhealth.fhir.resources import LOADED
from fedhealth.vocabulary.concepts import CDM_5_4


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
    """Make the tables that trace a row to its source, and what was left out to its line."""
    union = " UNION ALL ".join(
        f"SELECT {n}::UTINYINT AS place, '{table}' AS omop_table, {key} AS omop_id, ref AS fhir_reference FROM out_{table}"
        for n, (table, key) in enumerate(sorted(_KEYS.items()))
    )
    database.execute(f"CREATE VIEW private_id_map AS {union}")
    database.execute(
        "CREATE VIEW private_quarantine AS SELECT type AS resource_type, file, line + lines_before AS line, "
        "reason AS reason_code, path AS json_path, digest AS source_digest, id AS fhir_id "
        "FROM all_left JOIN place USING (piece) WHERE kind IN ('quarantined', 'value')"
    )
    database.execute(
        "CREATE VIEW private_findings AS SELECT type AS resource_type, file, line + lines_before AS line, "
        "reason AS reason_code, path AS json_path, id AS fhir_id FROM all_noted JOIN place USING (piece)"
    )
    database.execute(f"CREATE TABLE private_unmapped AS {_unmapped()}")


def _unmapped() -> str:
    """SQL: every code with concept 0, with its unit and how many rows carry it."""
    rows = [
        "SELECT name AS field, split_part(detail, chr(0), 1) AS value, nullif(split_part(detail, chr(0), 2), '') AS unit, n "
        "FROM all_tally WHERE what = 'unmapped'"
    ]
    of_visits = {
        "class": ("class_value", "visit_concept_id"),
        "disposition": ("discharged_value", "discharged_to"),
        "admit_source": ("admitted_value", "admitted_from"),
    }
    rows += [
        f"SELECT '{field}', coalesce({value}, '|'), NULL, 1 FROM visit WHERE {concept} = 0"
        for field, (value, concept) in of_visits.items()
    ]
    fields = (*dict.fromkeys(table.field for table in EVENT_TABLES.values()), *of_visits)
    names = " UNION ALL ".join(
        f"SELECT '{name}' AS field, source_value AS value, max(display) AS display FROM coded_{name} GROUP BY source_value"
        for name in fields
    )
    return (
        "SELECT split_part(value, '|', 1) AS system, substr(value, strpos(value, '|') + 1) AS code, "
        "max(display) AS display, unit, sum(n)::BIGINT AS n "
        f"FROM ({' UNION ALL '.join(rows)}) LEFT JOIN ({names}) USING (field, value) GROUP BY value, unit"
    )


_SHOWN_UNMAPPED = """
SELECT split_part(value, '|', 1) AS system, substr(value, strpos(value, '|') + 1) AS code, unit, sum(n)::BIGINT AS n
FROM (SELECT coalesce(c.shown, system || '|' || code) AS value, coalesce(u.shown, unit) AS unit, n FROM private_unmapped
      LEFT JOIN hidden c ON c.kind = 'code' AND c.value = system || '|' || code
      LEFT JOIN hidden u ON u.kind = 'unit' AND u.value = unit)
GROUP BY value, unit ORDER BY n DESC, system, code, unit
"""
"""What of ``private_unmapped`` may stand in the account: codes and units as the CDM shows them."""


def account_run(
    database: duckdb.DuckDBPyConnection,
    site: str,
    *,
    total: int,
    tables: dict[str, int],
    dropped: frozenset[tuple[str, str]] = frozenset(),
) -> Accounting:
    """The account, from counts that the steps made apart: of inputs, of rows, and of what was left out."""
    read = _counts(database, "SELECT name, sum(n)::BIGINT FROM all_tally WHERE what = 'read' GROUP BY name")
    if sum(read.values()) != total:
        raise DataError("lines were lost while reading (code accounting)", "report this as a defect")
    left = database.execute(
        "SELECT type, kind, reason, count(*) FROM all_left WHERE kind <> 'value' GROUP BY ALL"
    ).fetchall()
    medications = _one(database, "SELECT count(*) FROM medication")
    unused = [("Medication", "excluded", "read_for_code_only", medications)] if medications else []
    notes = {
        "time_is_date_only": "SELECT coalesce(sum(n), 0) FROM all_tally WHERE what = 'note' AND name = 'time_is_date_only'",
        "death_disagrees": "SELECT count(*) FROM out_death WHERE disagrees",
        "death_without_date": "SELECT count(*) FROM patient "
        "WHERE (deceasedBoolean OR deceasedDateTime IS NOT NULL) AND person_id NOT IN (SELECT person_id FROM out_death)",
        "open_encounter": "SELECT count(*) FROM visit WHERE is_open",
        "intensive_care_without_time": "SELECT (SELECT count(*) FROM there) - (SELECT count(*) FROM ward)",
        "encounter_refused": "SELECT coalesce(sum(n), 0) FROM all_tally WHERE what = 'refused'",
    }
    return Accounting(
        site=site,
        resources=account_resources(
            read, _loaded(database), {(name, kind, reason): n for name, kind, reason, n in (*left, *unused)}
        ),
        values=_values(database),
        links={table: _links(database, table) for table in EVENT_TABLES},
        notes={name: _one(database, query) for name, query in notes.items()},
        tables=tables,
        findings=account_findings(database),
        unmapped=[
            Unmapped(system=system, code=code or "", unit=unit or "", n=n)
            for system, code, unit, n in database.execute(_SHOWN_UNMAPPED).fetchall()
        ],
        seconds={},
    )


def _counts(database: duckdb.DuckDBPyConnection, query: str) -> dict[str, int]:
    return dict(database.execute(query).fetchall())


def _one(database: duckdb.DuckDBPyConnection, query: str) -> int:
    row = database.execute(query).fetchone()
    return int(row[0]) if row else 0


def _loaded(database: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Resources with a row in an out table, per type: counted from the rows, not from what was left out."""
    of_rows = {
        "Patient": "SELECT seq FROM out_person",
        "Encounter": "SELECT seq FROM out_visit_occurrence UNION SELECT seq FROM out_visit_detail",
        "Organization": "SELECT seq FROM out_care_site",
        "Consent": "SELECT seq FROM consent_said",
    }
    counted = {
        name: _one(database, f"SELECT count(DISTINCT seq) FROM ({query})") for name, query in of_rows.items()
    }
    counted |= _counts(
        database, "SELECT name, sum(n)::BIGINT FROM all_tally WHERE what = 'loaded' GROUP BY name"
    )
    return {name: counted[name] for name in LOADED if counted.get(name, 0)}


def _values(database: duckdb.DuckDBPyConnection) -> ValueCount:
    """The numbers of measurements whose concept has a canonical unit."""
    states = _counts(
        database, "SELECT name, sum(n)::BIGINT FROM all_tally WHERE what = 'value' GROUP BY name"
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
    found = _counts(
        database,
        f"SELECT detail, sum(n)::BIGINT FROM all_tally WHERE what = 'link' AND name = '{table}' GROUP BY detail",
    )
    return LinkCount(
        reference=found.get("reference", 0), time=found.get("time", 0), none=found.get("none", 0)
    )
