"""Step 2, once: what all parts together say, as lookup tables for step 3.

Persons, visits and visit details are few and made here whole; of the events only what they mention is read: references,
codings, units, and ids that occur more than once. The lookups are Parquet files in ``lookup/``.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from fedhealth.cdm.coding import match_codings, match_quantities, match_references
from fedhealth.cdm.consent import keep_consents
from fedhealth.cdm.profiles import deidentification_of
from fedhealth.cdm.staged import QUANTITY, REFERENCES, TIMES, parsed_fields, staged_columns
from fedhealth.cdm.validating import settle_verdicts
from fedhealth.cdm.visits import keep_encounters, keep_patients, outermost_stays
from fedhealth.cdm.wards import WARD, find_wards
from fedhealth.cdm.workspace import SMALL_TABLES, has, read_plan, save, saved, step
from fedhealth.fhir.resources import SHAPES, verdicts
from fedhealth.vocabulary.site_map import SiteMap

WHOLE = ("Patient", "Encounter", "Organization", "Medication", "Consent")
"""The types whose resources are all brought together here."""


def gather(work: Path, *, site_secret: bytes) -> None:
    """Make the lookups of a working folder all of whose parts are scanned; the secret keys what has no id of its own."""
    plan = read_plan(work)
    mapped = plan.mapped()
    lookup = work / "lookup"
    lookup.mkdir(exist_ok=True)
    with step(work, time_zone=mapped.settings.time_zone) as database:
        for name in SMALL_TABLES:
            database.execute(f'CREATE VIEW "all_{name}" AS FROM {saved(work, "scan", name)}')
        found = _view_resources(database, work)
        settle_verdicts(database, work)
        _find_losers(database, found)
        _load_whole(database)
        match_references(database)
        _match_codings(database, mapped)
        keep_patients(database)
        keep_encounters(database, mapped.settings)
        outermost_stays(database)
        is_dropped = WARD in deidentification_of(mapped, plan.profile).dropped
        locations = () if is_dropped else mapped.settings.intensive_care_locations
        find_wards(database, locations, site_secret=site_secret)
        keep_consents(database)
        _make_places(database)
        match_quantities(database, site_map=mapped)
        _save_lookups(database, lookup)


def _view_resources(database: duckdb.DuckDBPyConnection, work: Path) -> tuple[str, ...]:
    """Make ``s_<Type>``, the staged resources of all parts, of the types that any part has and of ``WHOLE``."""
    found = tuple(name for name in SHAPES if has(work, "scan", f"{name}-*"))
    for name in found:
        database.execute(f"CREATE VIEW s_{name} AS FROM {saved(work, 'scan', f'{name}-*')}")
    for name in set(WHOLE) - set(found):
        _view_none(database, name)
    return found


def _view_none(database: duckdb.DuckDBPyConnection, name: str) -> None:
    columns = ", ".join(f'{sql} AS "{column}"' for column, sql in staged_columns(name).items())
    database.execute(
        f"CREATE VIEW s_{name} AS SELECT 0::BIGINT AS seq, 0 AS piece, 0::BIGINT AS line, id, 0::BIGINT AS key, "
        f"meta.lastUpdated AS updated, 0::BIGINT AS version, 0::SMALLINT AS verdict, id AS digest, {columns} "
        f"FROM ({parsed_fields(name, _NO_TEXT)}) WHERE false"
    )


_NO_TEXT = "(SELECT '{}' AS text)"

_LOSERS = """
INSERT INTO loser
SELECT seq, '{name}', 'excluded', 'duplicate', '{name}' FROM (
    SELECT seq, row_number() OVER (
        PARTITION BY id ORDER BY at_end(updated) DESC NULLS LAST, version DESC NULLS LAST, {content}) AS rank
    FROM (SELECT seq, id, updated, version, {told} FROM s_{name} s ANTI JOIN loser USING (seq)
          WHERE key IN (SELECT key FROM s_{name} GROUP BY key HAVING count(*) > 1))) WHERE rank > 1
"""


def _told(name: str, column: str) -> str:
    """SQL over ``s`` for what a column of a resource says, where a number stands for it too."""
    if name in TIMES and column in REFERENCES:
        return f"(SELECT any_value(ref) FROM all_refs r WHERE r.number = s.{column})"
    if name == "Observation" and column in QUANTITY:
        return f"(SELECT any_value({column}) FROM all_quantities q WHERE q.number = s.quantity)"
    return f's."{column}"'


_DELETED = """
INSERT INTO loser
SELECT s.seq, '{name}', 'excluded', 'deleted', '{name}' FROM s_{name} s ANTI JOIN loser USING (seq)
JOIN (SELECT ref, max(at_end(stamp)) AS deleted_at, count(*) = count(stamp) AS has_dates FROM all_deleted GROUP BY ref) d
  ON d.ref = '{name}/' || s.id
WHERE NOT coalesce(has_dates AND at_end(s.updated) > deleted_at, false)
"""


def _find_losers(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """Make ``loser``: staged resources that the models refuse, that were deleted, or that are an older version.

    A deletion counts against every version that is not known to be later. Among versions that say the same of
    their age the content decides, so that the order of input never does.
    """
    database.execute(
        "CREATE TABLE loser (seq BIGINT, type VARCHAR, kind VARCHAR, reason VARCHAR, path VARCHAR)"
    )
    database.execute("INSERT INTO loser SELECT seq, type, 'quarantined', reason, path FROM refused")
    any_deleted = _one(database, "SELECT count(*) FROM all_deleted")
    for name in names:
        if any_deleted:
            database.execute(_DELETED.format(name=name))
        columns = ("verdict", *staged_columns(name))
        content = ", ".join(f'"{column}"' for column in columns)
        told = ", ".join(f'{_told(name, column)} AS "{column}"' for column in columns)
        database.execute(_LOSERS.format(name=name, content=content, told=told))


def _load_whole(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``p_<Type>`` of the few types, and ``rejected`` with what of them is left out by now."""
    database.execute(
        "CREATE TABLE rejected (seq BIGINT, type VARCHAR, kind VARCHAR, reason VARCHAR, path VARCHAR)"
    )
    names = ", ".join(f"'{name}'" for name in WHOLE)
    database.execute(f"INSERT INTO rejected FROM loser WHERE type IN ({names})")
    for name in WHOLE:
        database.execute(f"CREATE TABLE p_{name} AS SELECT *, '{name}/' || id AS ref FROM s_{name}")
        for number, check in enumerate(verdicts(name), 1):
            database.execute(
                f"INSERT INTO rejected SELECT seq, '{name}', '{check.kind}', '{check.reason}', '{check.path}' "
                f"FROM p_{name} ANTI JOIN rejected USING (seq) WHERE verdict = {number}"
            )


def _match_codings(database: duckdb.DuckDBPyConnection, mapped: SiteMap) -> None:
    """Make ``coded_<field>`` for every field that is coded."""
    of_encounters = {
        "admit_source": "hospitalization.admitSource.coding",
        "disposition": "hospitalization.dischargeDisposition.coding",
        "priority": "priority.coding",
    }
    queries = {field: f"SELECT {sql} FROM p_Encounter" for field, sql in of_encounters.items()}
    queries |= {
        field: f"SELECT json FROM all_codings WHERE field = '{field}'"
        for field in ("condition", "procedure", "value", "route")
    }
    queries["measurement"] = "SELECT code FROM all_quantities"
    queries["drug"] = (
        "SELECT json FROM all_codings WHERE field = 'drug' UNION ALL SELECT code.coding FROM p_Medication"
    )
    for field, query in queries.items():
        match_codings(database, field, query, site_map=mapped)  # type: ignore[arg-type]
    match_codings(
        database,
        "class",
        "SELECT class FROM p_Encounter",
        site_map=mapped,
        default_system=mapped.settings.default_class_system,
    )


_NUMBERED = """
CREATE TABLE numbered AS
SELECT number, target FROM (SELECT DISTINCT number, ref FROM all_refs) JOIN pointed USING (ref)
"""
"""Where the references of events lead, by their numbers."""

_PERSON_OF = """
CREATE TABLE person_of AS
SELECT d.number, patient.person_id, f.ref IS NOT NULL AS is_foreign
FROM numbered d LEFT JOIN patient ON patient.ref = d.target LEFT JOIN foreign_patient f ON f.ref = d.target
WHERE patient.ref IS NOT NULL OR f.ref IS NOT NULL
"""

_PLACE_OF = """
CREATE TABLE place_of AS
SELECT d.number, stay.person_id, visit.key AS visit_id, CASE WHEN depth > 0 THEN stay.key END AS detail_id,
       day_of(stay.start_text) AS start_day, moment(stay.start_text) AS start_time, f.ref IS NOT NULL AS is_foreign
FROM numbered d LEFT JOIN stay ON stay.ref = d.target LEFT JOIN root ON root.ref = stay.ref
LEFT JOIN visit ON visit.ref = root.top LEFT JOIN foreign_encounter f ON f.ref = d.target
WHERE visit.ref IS NOT NULL OR f.ref IS NOT NULL
"""

_MEDICATION_OF = """
CREATE TABLE medication_of AS
SELECT d.number, any_value(code.coding ORDER BY seq) AS coding FROM p_Medication ANTI JOIN rejected USING (seq)
JOIN numbered d ON d.target = p_Medication.ref GROUP BY d.number
"""

_DETAIL = """
CREATE TABLE detail AS
SELECT stay.person_id, stay.key, stay.began, stay.ended, visit.key AS visit_id
FROM stay JOIN root USING (ref) JOIN visit ON visit.ref = root.top WHERE depth > 0
UNION ALL
SELECT ward.person_id, ward.key, ward.began, ward.ended, visit.key FROM ward JOIN visit ON visit.ref = ward.top
"""


def _make_places(database: duckdb.DuckDBPyConnection) -> None:
    """Where references lead: to persons, to encounters with their visit, to medications."""
    for statement in (_NUMBERED, _PERSON_OF, _PLACE_OF, _MEDICATION_OF, _DETAIL):
        database.execute(statement)


_LOOKUPS = {
    "loser": "FROM loser",
    "person_of": "FROM person_of",
    "place_of": "FROM place_of",
    "medication_of": "FROM medication_of",
    "detail": "FROM detail",
    "span": "SELECT person_id, key, began, ended FROM visit",
    "measure_of": "FROM measure_of",
    "plausible": "FROM plausible",
    "coded_condition": "FROM coded_condition",
    "coded_procedure": "FROM coded_procedure",
    "coded_drug": "FROM coded_drug",
    "coded_route": "FROM coded_route",
    "coded_value": "FROM coded_value",
    "coded_measurement": "FROM coded_measurement",
    "coded_class": "FROM coded_class",
    "coded_disposition": "FROM coded_disposition",
    "coded_admit_source": "FROM coded_admit_source",
    "patient": "FROM patient",
    "stay": "FROM stay",
    "root": "FROM root",
    "visit": "FROM visit",
    "ward": "FROM ward",
    "there": "SELECT ref FROM there",
    "organization": "SELECT seq, key, id FROM p_Organization ANTI JOIN rejected USING (seq)",
    "consent_said": "FROM consent_said",
    "medication": "SELECT seq FROM p_Medication ANTI JOIN rejected USING (seq)",
}


def _save_lookups(database: duckdb.DuckDBPyConnection, lookup: Path) -> None:
    for name, query in _LOOKUPS.items():
        save(database, query, lookup / f"{name}.parquet")
    union = " UNION ALL ".join(f"SELECT seq, piece, line, digest, id FROM p_{name}" for name in WHOLE)
    save(
        database,
        "SELECT r.seq, r.type, r.kind, r.reason, r.path, p.piece, p.line, p.digest, p.id "
        f"FROM rejected r JOIN ({union}) p USING (seq)",
        lookup / "left.parquet",
    )


def _one(database: duckdb.DuckDBPyConnection, query: str) -> int:
    row = database.execute(query).fetchone()
    return int(row[0]) if row else 0
