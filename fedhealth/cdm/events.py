"""Clinical events: conditions, observations, drugs and procedures as rows, each linked to its person and visit.

Every event has a person, a day, a time (null when the source gives a date alone), the moment ``at`` by which it had
happened (a date counts as its end), and the visit found by reference or, failing that, by patient and time: the
visit whose [start - 24 h, end] holds the moment, the latest start winning. A reference to another patient's
encounter counts as none.
"""

import duckdb

from fedhealth.cdm.staging import reject
from fedhealth.cdm.visits import subject_checks

_PERIOD = 'coalesce({0}Period."end", {0}Period.start)'
TIMES: dict[str, str] = {
    "Condition": "coalesce(onsetDateTime, onsetPeriod.start, recordedDate)",
    "Observation": f"coalesce(effectiveDateTime, {_PERIOD.format('effective')}, effectiveInstant, issued)",
    "MedicationRequest": "authoredOn",
    "MedicationAdministration": "coalesce(effectiveDateTime, effectivePeriod.start)",
    "Procedure": "coalesce(performedDateTime, performedPeriod.start)",
}
"""SQL for the FHIR text of an event's time; without one the start of its encounter is used."""

CODES = {
    "Condition": "condition",
    "Observation": "measurement",
    "MedicationRequest": "drug",
    "MedicationAdministration": "drug",
    "Procedure": "procedure",
}


def encounter_field(name: str) -> str:
    """SQL for the encounter reference of a type."""
    return "context.reference" if name == "MedicationAdministration" else "encounter.reference"


def keep_events(database: duckdb.DuckDBPyConnection) -> None:
    """Make ``e_<Type>`` for the five event types: the resources that are kept, with person, time and visit."""
    database.execute(
        "CREATE TABLE place AS SELECT stay.ref, stay.person_id, stay.began, stay.start_text, visit.key AS visit_id, "
        "CASE WHEN depth > 0 THEN stay.key END AS detail_id "
        "FROM stay JOIN root USING (ref) JOIN visit ON visit.ref = root.top"
    )
    for name in TIMES:
        _reject_strangers(database, name)
        subject_checks(database, name)
        _make(database, name)
        reject(
            database,
            name,
            "quarantined",
            "missing_time",
            f"seq IN (SELECT seq FROM e_{name} WHERE day IS NULL)",
        )
        reject(
            database, name, "quarantined", "missing_code", f"seq IN (SELECT seq FROM e_{name} WHERE no_code)"
        )
        database.execute(f"DELETE FROM e_{name} WHERE day IS NULL OR no_code")
        _link_by_time(database, name)


def _reject_strangers(database: duckdb.DuckDBPyConnection, name: str) -> None:
    """What belongs to another organisation's patient or encounter."""
    for field, table in (
        ("subject.reference", "foreign_patient"),
        (encounter_field(name), "foreign_encounter"),
    ):
        theirs = f"SELECT d.ref FROM pointed d JOIN {table} f ON f.ref = d.target"
        reject(database, name, "excluded", "other_organization", f"coalesce({field} IN ({theirs}), false)")


def _code_text(name: str) -> str:
    if CODES[name] != "drug":
        return "code.coding"
    inside = "list_filter(contained, lambda c: '#' || c.id = medicationReference.reference)[1].code.coding"
    return f"coalesce(medicationCodeableConcept.coding, {inside}, m.coding)"


def _make(database: duckdb.DuckDBPyConnection, name: str) -> None:
    text, field = TIMES[name], encounter_field(name)
    medication = ""
    if CODES[name] == "drug":
        medication = (
            "LEFT JOIN (SELECT d.ref AS med_ref, any_value(code.coding ORDER BY seq) AS coding FROM p_Medication "
            "ANTI JOIN rejected USING (seq) JOIN pointed d ON d.target = p_Medication.ref GROUP BY d.ref) m "
            "ON m.med_ref = p.medicationReference.reference"
        )
    needs_code = "coded.json IS NULL" if name == "Observation" else "false"
    database.execute(f"""
CREATE TABLE e_{name} AS
SELECT *, day_of(time_text) AS day, moment(time_text) AS time, at_end(time_text) AS at FROM (
SELECT p.*, patient.person_id, coalesce({text}, place.start_text) AS time_text,
       coded.concept_id AS code_concept_id, coded.source_value AS code_value, {needs_code} AS no_code,
       place.visit_id, place.detail_id,
       CASE WHEN place.visit_id IS NOT NULL THEN 'reference' END AS link
FROM p_{name} p ANTI JOIN rejected USING (seq)
JOIN pointed who ON who.ref = p.subject.reference JOIN patient ON patient.ref = who.target
LEFT JOIN pointed at_place ON at_place.ref = p.{field}
LEFT JOIN place ON place.ref = at_place.target AND place.person_id = patient.person_id
{medication}
LEFT JOIN coded_{CODES[name]} coded ON coded.json = {_code_text(name)})""")


def _link_by_time(database: duckdb.DuckDBPyConnection, name: str) -> None:
    """Give events without a known encounter the visit, and the visit detail, that their time falls into."""
    database.execute(f"""
CREATE OR REPLACE TEMP TABLE by_time AS
SELECT e.seq, arg_max(v.key, (v.began, v.key)) AS visit_id
FROM e_{name} e JOIN visit v ON v.person_id = e.person_id
 AND e.at BETWEEN v.began - INTERVAL 24 HOUR AND coalesce(v.ended, TIMESTAMP '9999-12-31')
WHERE e.link IS NULL GROUP BY e.seq""")
    database.execute(f"""
CREATE OR REPLACE TABLE e_{name} AS
SELECT e.* REPLACE (coalesce(e.visit_id, t.visit_id) AS visit_id,
                    coalesce(e.detail_id, d.detail_id) AS detail_id,
                    CASE WHEN e.link IS NOT NULL THEN e.link WHEN t.visit_id IS NOT NULL THEN 'time' ELSE 'none' END AS link)
FROM e_{name} e LEFT JOIN by_time t USING (seq)
LEFT JOIN (SELECT e.seq, arg_max(s.key, (s.began, s.key)) AS detail_id
           FROM e_{name} e LEFT JOIN by_time USING (seq) JOIN stay s ON s.person_id = e.person_id
           JOIN root ON root.ref = s.ref AND depth > 0 JOIN visit ON visit.ref = root.top
            AND visit.key = coalesce(e.visit_id, by_time.visit_id)
           WHERE e.at BETWEEN s.began AND coalesce(s.ended, TIMESTAMP '9999-12-31') GROUP BY e.seq) d USING (seq)""")
