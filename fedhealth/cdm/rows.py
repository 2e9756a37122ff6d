"""The remaining OMOP tables, as SQL over the kept resources."""

from datetime import date

import duckdb

from fedhealth.cdm.visits import PERSON_DEATH
from fedhealth.vocabulary.concepts import (
    CONDITION_CONFIRMED,
    CONDITION_PRELIMINARY,
    CONDITION_REFUTED,
    ETHNICITIES,
    GENDER_FEMALE,
    GENDER_MALE,
    GENDER_OTHER,
    RACES,
    TYPE_EHR,
    TYPE_EHR_ADMINISTRATION,
    TYPE_EHR_PRESCRIPTION,
)

_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"


def _extension(name: str) -> str:
    """SQL for the OMB category of a US Core extension."""
    outer = f"list_filter(extension, lambda x: x.url = '{_US_CORE}{name}')[1].extension"
    return f"list_filter({outer}, lambda x: x.url = 'ombCategory')[1].valueCoding.code"


def _choose(column: str, table: dict[str, int]) -> str:
    cases = " ".join(f"WHEN '{code}' THEN {concept}" for code, concept in table.items())
    return f"CASE {column} {cases} ELSE 0 END"


_GENDERS = {"male": GENDER_MALE, "female": GENDER_FEMALE, "other": GENDER_OTHER}

_PERSON = f"""
CREATE TABLE out_person AS
SELECT seq, person_id, {_choose("gender", _GENDERS)} AS gender_concept_id,
       year(day_of(birthDate)) AS year_of_birth,
       CASE WHEN length(birthDate) >= 7 THEN month(day_of(birthDate)) END AS month_of_birth,
       CASE WHEN length(birthDate) >= 10 THEN dayofmonth(day_of(birthDate)) END AS day_of_birth,
       CASE WHEN length(birthDate) >= 10 THEN day_of(birthDate)::TIMESTAMP END AS birth_datetime,
       {_choose("race", RACES)} AS race_concept_id, {_choose("ethnicity", ETHNICITIES)} AS ethnicity_concept_id,
       NULL::BIGINT AS care_site_id,
       CASE WHEN gender IN ('male', 'female', 'other', 'unknown') THEN gender END AS gender_source_value,
       race AS race_source_value, ethnicity AS ethnicity_source_value, ref
FROM (SELECT *, {_extension("race")} AS race, {_extension("ethnicity")} AS ethnicity FROM patient)
"""

_STATUS = "json_extract_string(verificationStatus, '$.coding[0].code')"

_CONDITION = f"""
CREATE TABLE out_condition_occurrence AS
SELECT seq, key AS condition_occurrence_id, person_id, coalesce(code_concept_id, 0) AS condition_concept_id,
       day AS condition_start_date, time AS condition_start_datetime, day_of(abatementDateTime) AS condition_end_date,
       {TYPE_EHR} AS condition_type_concept_id,
       CASE {_STATUS} WHEN 'confirmed' THEN {CONDITION_CONFIRMED} WHEN 'refuted' THEN {CONDITION_REFUTED}
            WHEN 'provisional' THEN {CONDITION_PRELIMINARY} WHEN 'differential' THEN {CONDITION_PRELIMINARY}
            WHEN 'unconfirmed' THEN {CONDITION_PRELIMINARY} END AS condition_status_concept_id,
       code_value AS condition_source_value, 0 AS condition_source_concept_id, visit_id AS visit_occurrence_id, link, ref
FROM e_Condition
"""

_PROCEDURE = f"""
CREATE TABLE out_procedure_occurrence AS
SELECT seq, key AS procedure_occurrence_id, person_id, coalesce(code_concept_id, 0) AS procedure_concept_id,
       day AS procedure_date, time AS procedure_datetime, {TYPE_EHR} AS procedure_type_concept_id,
       visit_id AS visit_occurrence_id, code_value AS procedure_source_value, link, ref
FROM e_Procedure
"""


def _drug(name: str, *, kind: int, end: str, dose: str, quantity: str, route: str) -> str:
    return f"""
SELECT seq, key AS drug_exposure_id, person_id, coalesce(code_concept_id, 0) AS drug_concept_id,
       day AS drug_exposure_start_date, time AS drug_exposure_start_datetime,
       greatest(coalesce(day_of({end}), day), day) AS drug_exposure_end_date,
       CASE WHEN day_of({end}) IS NULL THEN time ELSE greatest(moment({end}), time) END AS drug_exposure_end_datetime,
       {kind} AS drug_type_concept_id, {quantity} AS quantity, CASE WHEN r.json IS NOT NULL THEN 0 END AS route_concept_id,
       visit_id AS visit_occurrence_id, code_value AS drug_source_value, r.source_value AS route_source_value,
       coalesce({dose}.code, {dose}.unit) AS dose_unit_source_value, link, ref
FROM e_{name} e LEFT JOIN coded_route r ON r.json = {route}"""


_DRUG = "CREATE TABLE out_drug_exposure AS " + " UNION ALL ".join(
    (
        _drug(
            "MedicationRequest",
            kind=TYPE_EHR_PRESCRIPTION,
            end="NULL::VARCHAR",
            dose="dosageInstruction[1].doseAndRate[1].doseQuantity",
            quantity="dispenseRequest.quantity.value",
            route="dosageInstruction[1].route.coding",
        ),
        _drug(
            "MedicationAdministration",
            kind=TYPE_EHR_ADMINISTRATION,
            end='effectivePeriod."end"',
            dose="dosage.dose",
            quantity="dosage.dose.value",
            route="dosage.route.coding",
        ),
    )
)

_CARE_SITE = """
CREATE TABLE out_care_site AS
SELECT seq, key AS care_site_id, NULL::VARCHAR AS care_site_name, 0 AS place_of_service_concept_id, ref
FROM p_Organization ANTI JOIN rejected USING (seq)
"""

_EVENT_DAYS = """
SELECT person_id, visit_start_date AS first, visit_end_date AS last FROM out_visit_occurrence
UNION ALL SELECT person_id, condition_start_date, condition_start_date FROM out_condition_occurrence
UNION ALL SELECT person_id, measurement_date, measurement_date FROM out_measurement
UNION ALL SELECT person_id, observation_date, observation_date FROM out_observation
UNION ALL SELECT person_id, drug_exposure_start_date, drug_exposure_start_date FROM out_drug_exposure
UNION ALL SELECT person_id, procedure_date, procedure_date FROM out_procedure_occurrence
"""

_PERIOD = """
CREATE TABLE out_observation_period AS
SELECT person_id AS observation_period_id, person_id, first AS observation_period_start_date,
       greatest(first, least(coalesce(death_date, DATE '{extract}'), DATE '{extract}')) AS observation_period_end_date,
       {kind} AS period_type_concept_id
FROM (SELECT person_id, min(first) AS first FROM event_day GROUP BY person_id)
LEFT JOIN out_death USING (person_id)
"""


def latest_day(database: duckdb.DuckDBPyConnection) -> date:
    """The last day that any kept encounter or event has; 1970-01-01 when there is none."""
    columns = ["SELECT max(greatest(coalesce(ended, began), began))::DATE AS day FROM stay"]
    columns += [f"SELECT max(day) FROM e_{name}" for name in ("Observation", "Condition", "Procedure")]
    columns += [
        f"SELECT max(day) FROM e_{name}" for name in ("MedicationRequest", "MedicationAdministration")
    ]
    row = database.execute(f"SELECT max(day) FROM ({' UNION ALL '.join(columns)})").fetchone()
    return row[0] if row and row[0] is not None else date(1970, 1, 1)


def write_events(database: duckdb.DuckDBPyConnection) -> None:
    """Make the out tables of persons, conditions, procedures, drugs, care sites and deaths."""
    for statement in (_PERSON, _CONDITION, _PROCEDURE, _DRUG, _CARE_SITE, PERSON_DEATH):
        database.execute(statement)


def write_periods(database: duckdb.DuckDBPyConnection, extract: date) -> None:
    """Make out_observation_period: first event to death or the extract date. Needs all other out tables."""
    database.execute(f"CREATE TABLE event_day AS {_EVENT_DAYS}")
    database.execute(_PERIOD.format(extract=extract.isoformat(), kind=TYPE_EHR))
