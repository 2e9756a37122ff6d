"""Patients and encounters: who and what is kept, and how encounters become visits and visit details."""

import duckdb

from fedhealth.vocabulary.concepts import (
    DISCHARGED_EXPIRED,
    STILL_PATIENT,
    TYPE_EHR,
    VISIT_EMERGENCY_TO_INPATIENT,
    VISIT_INPATIENT,
    VISIT_INTENSIVE_CARE,
)
from fedhealth.vocabulary.maps import ACT_CODE, ACT_PRIORITY
from fedhealth.vocabulary.site_map import SiteSettings

ADMITTED_FROM_EMERGENCY = 8870


_PATHS = {
    "missing_birth_date": ".birthDate",
    "invalid_birth_date": ".birthDate",
    "missing_subject": ".subject",
    "dangling_subject": ".subject.reference",
    "missing_time": ".period.start",
    "invalid_date": ".period",
    "end_before_start": ".period",
    "part_of_cycle": ".partOf",
    "dangling_part_of": ".partOf",
}


def reject(database: duckdb.DuckDBPyConnection, name: str, kind: str, reason: str, where: str) -> None:
    """Leave out the resources of a type for which ``where`` holds and that are not left out already."""
    path = name + _PATHS.get(reason, "")
    database.execute(
        f"INSERT INTO rejected SELECT seq, '{name}', '{kind}', '{reason}', '{path}' FROM p_{name} p "
        f"WHERE ({where}) AND NOT EXISTS (FROM rejected r WHERE r.seq = p.seq)"
    )


def keep_patients(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``patient``: the patients that are kept so far."""
    reject(database, "Patient", "quarantined", "missing_birth_date", "birthDate IS NULL")
    reject(database, "Patient", "quarantined", "invalid_birth_date", "day_of(birthDate) IS NULL")
    database.execute(
        "CREATE TABLE patient AS SELECT p.*, p.key AS person_id FROM p_Patient p ANTI JOIN rejected USING (seq)"
    )


def subject_checks(database: duckdb.DuckDBPyConnection, name: str, *, field: str = "subject") -> None:
    """Leave out the resources of a type whose patient is not named or not known."""
    reject(database, name, "quarantined", "missing_subject", f"{field}.reference IS NULL")
    known = "SELECT d.ref FROM pointed d JOIN patient ON patient.ref = d.target"
    reject(database, name, "quarantined", "dangling_subject", f"{field}.reference NOT IN ({known})")


def keep_encounters(database: duckdb.DuckDBPyConnection, settings: SiteSettings) -> None:
    """Make ``stay``: the encounters that are kept, with person, class, times and the root of their partOf chain.

    With ``organizations`` set, other organisations' encounters and patients without one here are excluded.
    """
    subject_checks(database, "Encounter")
    database.execute("CREATE TABLE foreign_patient (ref VARCHAR)")
    database.execute("CREATE TABLE foreign_encounter (ref VARCHAR)")
    if settings.organizations:
        _keep_own(database, settings.organizations)
    start, end = "at_end(period.start)", 'at_end(period."end")'
    reject(database, "Encounter", "quarantined", "missing_time", "period.start IS NULL")
    reject(database, "Encounter", "quarantined", "invalid_date", "day_of(period.start) IS NULL")
    reject(
        database,
        "Encounter",
        "quarantined",
        "invalid_date",
        'period."end" IS NOT NULL AND day_of(period."end") IS NULL',
    )
    reject(
        database,
        "Encounter",
        "quarantined",
        "end_before_start",
        f"{end} < CASE WHEN length(period.start) > 10 THEN {start} ELSE day_of(period.start)::TIMESTAMP END",
    )
    admissions = ", ".join(_quote(value) for value in settings.admission_classes) or "NULL"
    database.execute(_STAY.format(admissions=admissions))
    _find_roots(database)


def _quote(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _keep_own(database: duckdb.DuckDBPyConnection, organizations: tuple[str, ...]) -> None:
    listed = ", ".join(_quote("Organization/" + name.removeprefix("Organization/")) for name in organizations)
    own = f"SELECT ref FROM pointed WHERE target IN ({listed})"
    reject(
        database,
        "Encounter",
        "excluded",
        "other_organization",
        f"serviceProvider.reference IS NULL OR serviceProvider.reference NOT IN ({own})",
    )
    database.execute(
        "INSERT INTO foreign_encounter SELECT p.ref FROM p_Encounter p JOIN rejected USING (seq) "
        "WHERE rejected.reason = 'other_organization'"
    )
    database.execute(
        "INSERT INTO foreign_patient SELECT ref FROM patient WHERE ref NOT IN (SELECT d.target FROM p_Encounter e "
        "ANTI JOIN rejected USING (seq) JOIN pointed d ON d.ref = e.subject.reference)"
    )
    reject(database, "Patient", "excluded", "other_organization", "ref IN (SELECT ref FROM foreign_patient)")
    database.execute("DELETE FROM patient WHERE ref IN (SELECT ref FROM foreign_patient)")


_STAY = f"""
CREATE TABLE stay AS
SELECT e.seq, e.ref, e.key, patient.person_id, above.target AS parent, provider.target AS organization,
       e.period.start AS start_text, e.period."end" AS end_text,
       CASE WHEN length(e.period.start) > 10 THEN moment(e.period.start) ELSE day_of(e.period.start)::TIMESTAMP END AS began,
       at_end(e.period."end") AS ended, c.source_value AS class_value,
       (c.standard_system = '{ACT_CODE}' AND c.standard_code = 'ACUTE') OR c.concept_id = {VISIT_INTENSIVE_CARE} AS is_icu,
       CASE WHEN c.source_value IN ({{admissions}}) THEN {VISIT_INPATIENT} ELSE coalesce(c.concept_id, 0) END AS concept_id,
       s.concept_id AS admitted_from, s.source_value AS admitted_value,
       d.concept_id AS discharged_to, d.source_value AS discharged_value,
       CASE WHEN u.standard_system = '{ACT_PRIORITY}' THEN u.standard_code END AS priority
FROM p_Encounter e ANTI JOIN rejected USING (seq)
JOIN pointed who ON who.ref = e.subject.reference JOIN patient ON patient.ref = who.target
LEFT JOIN pointed above ON above.ref = e.partOf.reference
LEFT JOIN pointed provider ON provider.ref = e.serviceProvider.reference
LEFT JOIN coded_class c ON c.json = e.class
LEFT JOIN coded_admit_source s ON s.json = e.hospitalization.admitSource.coding
LEFT JOIN coded_disposition d ON d.json = e.hospitalization.dischargeDisposition.coding
LEFT JOIN coded_priority u ON u.json = e.priority.coding
"""

_ROOTS = """
CREATE OR REPLACE TABLE root AS
WITH RECURSIVE up AS (
  SELECT ref, ref AS top, 0 AS depth FROM stay
  UNION ALL
  SELECT up.ref, s.parent, depth + 1 FROM up JOIN stay s ON s.ref = up.top
  JOIN stay above ON above.ref = s.parent AND above.person_id = s.person_id WHERE depth < 8)
SELECT ref, arg_max(top, depth) AS top, max(depth) AS depth FROM up GROUP BY ref
"""


def _find_roots(database: duckdb.DuckDBPyConnection) -> None:
    """Follow partOf to the outermost encounter; a chain without an end, and intensive care in nothing, go."""
    database.execute(_ROOTS)
    reject(
        database,
        "Encounter",
        "quarantined",
        "part_of_cycle",
        "ref IN (SELECT ref FROM root WHERE depth >= 8)",
    )
    _leave(database)
    lost = "SELECT ref FROM stay JOIN root USING (ref) WHERE depth = 0 AND is_icu"
    while True:  # what goes may leave more intensive care in nothing
        reject(
            database,
            "Encounter",
            "quarantined",
            "dangling_part_of",
            f"partOf.reference IS NOT NULL AND ref IN ({lost})",
        )
        if not _leave(database):
            return


def _leave(database: duckdb.DuckDBPyConnection) -> bool:
    """Take the rejected encounters out of ``stay`` and find the roots anew; whether there were any."""
    left = database.execute(
        "DELETE FROM stay WHERE seq IN (SELECT seq FROM rejected) RETURNING seq"
    ).fetchall()
    database.execute(_ROOTS)
    return bool(left)


def outermost_stays(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``visit``: the encounters that are part of no other."""
    database.execute(f"CREATE TABLE visit AS {_VISIT}")


def write_visits(database: duckdb.DuckDBPyConnection) -> None:
    """Make out_visit_occurrence, out_visit_detail and out_visit_extra; needs ``followed`` and ``ward``.

    An open encounter ends when its person's follow-up does, without a time, and is "still patient".
    """
    database.execute(
        "UPDATE visit SET end_date = greatest(until, began::DATE) FROM followed "
        "WHERE followed.person_id = visit.person_id AND end_date IS NULL"
    )
    database.execute(_OUT_VISIT)
    database.execute(_OUT_EXTRA)
    database.execute(_OUT_DETAIL)


_VISIT = f"""
SELECT stay.*, hashed.care_site_id,
       CASE WHEN concept_id IN ({VISIT_INPATIENT}, {VISIT_INTENSIVE_CARE}) THEN
            CASE WHEN admitted_from = {ADMITTED_FROM_EMERGENCY} THEN {VISIT_EMERGENCY_TO_INPATIENT} ELSE {VISIT_INPATIENT} END
            ELSE concept_id END AS visit_concept_id,
       day_of(end_text) AS end_date, end_text IS NULL AS is_open
FROM stay JOIN root USING (ref)
LEFT JOIN (SELECT ref AS organization, key AS care_site_id FROM p_Organization ANTI JOIN rejected USING (seq)) hashed
USING (organization) WHERE depth = 0
"""

_OUT_VISIT = f"""
CREATE TABLE out_visit_occurrence AS
SELECT seq, key AS visit_occurrence_id, person_id, visit_concept_id, began::DATE AS visit_start_date,
       moment(start_text) AS visit_start_datetime, end_date AS visit_end_date, moment(end_text) AS visit_end_datetime,
       {TYPE_EHR} AS visit_type_concept_id, care_site_id, class_value AS visit_source_value,
       admitted_from AS admitted_from_concept_id, admitted_value AS admitted_from_source_value,
       CASE WHEN is_open THEN {STILL_PATIENT} ELSE discharged_to END AS discharged_to_concept_id,
       discharged_value AS discharged_to_source_value,
       lag(key) OVER (PARTITION BY person_id ORDER BY began, key) AS preceding_visit_occurrence_id, ref
FROM visit
"""

_OUT_EXTRA = f"""
CREATE TABLE out_visit_extra AS
SELECT key AS visit_occurrence_id,
       coalesce(priority IN ('EM', 'UR', 'S'), admitted_from = {ADMITTED_FROM_EMERGENCY}, false) AS is_emergency,
       coalesce(priority = 'EL', false) AS is_planned, is_open
FROM visit
"""

_OUT_DETAIL = f"""
CREATE TABLE out_visit_detail AS
SELECT s.seq, s.key AS visit_detail_id, visit.person_id,
       CASE WHEN s.is_icu THEN {VISIT_INTENSIVE_CARE} ELSE s.concept_id END AS visit_detail_concept_id,
       s.began::DATE AS visit_detail_start_date, moment(s.start_text) AS visit_detail_start_datetime,
       greatest(coalesce(day_of(s.end_text), visit.end_date), s.began::DATE) AS visit_detail_end_date,
       CASE WHEN s.end_text IS NOT NULL THEN moment(s.end_text)
            WHEN visit.end_text IS NOT NULL THEN greatest(moment(visit.end_text), moment(s.start_text)) END
       AS visit_detail_end_datetime,
       {TYPE_EHR} AS visit_detail_type_concept_id, visit.care_site_id,
       visit.key AS visit_occurrence_id, s.ref
FROM (SELECT * FROM stay UNION ALL BY NAME SELECT *, true AS is_icu FROM ward) s
JOIN (SELECT ref, top FROM root WHERE depth > 0 UNION ALL SELECT ref, top FROM ward) r ON r.ref = s.ref
JOIN visit ON visit.ref = r.top
"""

PERSON_DEATH = f"""
CREATE TABLE out_death AS
WITH stated AS (SELECT person_id, deceasedDateTime AS text, deceasedBoolean AS flag FROM patient),
     left_dead AS (SELECT person_id, end_date AS day, moment(end_text) AS at FROM visit
                   WHERE discharged_to = {DISCHARGED_EXPIRED} AND NOT is_open
                   QUALIFY row_number() OVER (PARTITION BY person_id ORDER BY ended, key) = 1)
SELECT person_id, coalesce(l.day, day_of(text)) AS death_date,
       CASE WHEN l.day IS NOT NULL THEN l.at ELSE moment(text) END AS death_datetime,
       {TYPE_EHR} AS death_type_concept_id, NULL::INTEGER AS cause_concept_id,
       abs(date_diff('day', l.day, day_of(text))) > 1 AS disagrees
FROM stated LEFT JOIN left_dead l USING (person_id) WHERE day_of(text) IS NOT NULL OR l.day IS NOT NULL
"""
"""Rule order: a discharge as expired, then Patient.deceasedDateTime; a flag alone, or a text that is no date, gives none."""
