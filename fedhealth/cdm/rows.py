"""The rows of the OMOP tables, as SQL over what is kept of the resources."""

from dataclasses import dataclass
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
    NOT_STATED,
    OPERATORS,
    RACES,
    TYPE_EHR,
    TYPE_EHR_ADMINISTRATION,
    TYPE_EHR_PRESCRIPTION,
)
from fedhealth.vocabulary.maps import Field

_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"


def _extension(name: str) -> str:
    """SQL for the OMB category of a US Core extension."""
    outer = f"list_filter(extension, lambda x: x.url = '{_US_CORE}{name}')[1].extension"
    return f"list_filter({outer}, lambda x: x.url = 'ombCategory')[1].valueCoding.code"


def _choose(column: str, table: dict[str, int]) -> str:
    cases = " ".join(f"WHEN '{code}' THEN {concept}" for code, concept in table.items())
    return f"CASE {column} {cases} ELSE 0 END"


def _known(column: str, table: dict[str, int]) -> str:
    """SQL for a code if it is one of the categories: any text could stand there."""
    return (
        f"CASE WHEN {column} IN ({', '.join(repr(code) for code in (*table, *NOT_STATED))}) THEN {column} END"
    )


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
       {_known("race", RACES)} AS race_source_value, {_known("ethnicity", ETHNICITIES)} AS ethnicity_source_value, ref
FROM (SELECT *, {_extension("race")} AS race, {_extension("ethnicity")} AS ethnicity FROM patient)
"""

_CONDITION = f"""
SELECT seq, key AS condition_occurrence_id, person_id, coalesce(concept_id, 0) AS condition_concept_id,
       day AS condition_start_date, time AS condition_start_datetime, abated AS condition_end_date,
       {TYPE_EHR} AS condition_type_concept_id,
       CASE verification WHEN 'confirmed' THEN {CONDITION_CONFIRMED} WHEN 'refuted' THEN {CONDITION_REFUTED}
            WHEN 'provisional' THEN {CONDITION_PRELIMINARY} WHEN 'differential' THEN {CONDITION_PRELIMINARY}
            WHEN 'unconfirmed' THEN {CONDITION_PRELIMINARY} END AS condition_status_concept_id,
       code_value AS condition_source_value, 0 AS condition_source_concept_id, visit_id AS visit_occurrence_id,
       link, 'Condition/' || id AS ref
FROM kept
"""

_PROCEDURE = f"""
SELECT seq, key AS procedure_occurrence_id, person_id, coalesce(concept_id, 0) AS procedure_concept_id,
       day AS procedure_date, time AS procedure_datetime, {TYPE_EHR} AS procedure_type_concept_id,
       visit_id AS visit_occurrence_id, code_value AS procedure_source_value, link, 'Procedure/' || id AS ref
FROM kept
"""


def _drug(name: str, kind: int) -> str:
    return f"""
SELECT seq, key AS drug_exposure_id, person_id, coalesce(kept.concept_id, 0) AS drug_concept_id,
       day AS drug_exposure_start_date, time AS drug_exposure_start_datetime,
       greatest(coalesce(end_day, day), day) AS drug_exposure_end_date,
       CASE WHEN end_day IS NULL THEN time WHEN end_time IS NOT NULL THEN greatest(end_time, time) END
       AS drug_exposure_end_datetime,
       {kind} AS drug_type_concept_id, quantity, r.concept_id AS route_concept_id,
       visit_id AS visit_occurrence_id, code_value AS drug_source_value, r.source_value AS route_source_value,
       dose_unit AS dose_unit_source_value, link, '{name}/' || id AS ref
FROM kept LEFT JOIN coded_route r ON r.json = route
"""


_OPERATORS = "CASE comparator " + " ".join(f"WHEN '{c}' THEN {n}" for c, n in OPERATORS.items()) + " END"

_MEASUREMENT = f"""
SELECT seq, key AS measurement_id, person_id, concept_id AS measurement_concept_id, day AS measurement_date,
       time AS measurement_datetime, {TYPE_EHR} AS measurement_type_concept_id,
       {_OPERATORS} AS operator_concept_id,
       CASE WHEN NOT is_lost THEN number * factor + shift END AS value_as_number,
       value_concept AS value_as_concept_id,
       CASE WHEN number IS NULL THEN NULL WHEN is_lost THEN 0 ELSE unit_concept_id END AS unit_concept_id,
       CASE WHEN number IS NOT NULL AND NOT is_lost THEN low * factor + shift END AS range_low,
       CASE WHEN number IS NOT NULL AND NOT is_lost THEN high * factor + shift END AS range_high,
       visit_id AS visit_occurrence_id, detail_id AS visit_detail_id, code_value AS measurement_source_value,
       unit_value AS unit_source_value, coalesce(value_coded, number::VARCHAR, flag::VARCHAR) AS value_source_value,
       link, 'Observation/' || id AS ref
FROM valued WHERE is_measurement
"""

_OBSERVATION = f"""
SELECT seq, key AS observation_id, person_id, concept_id AS observation_concept_id, day AS observation_date,
       time AS observation_datetime, {TYPE_EHR} AS observation_type_concept_id, NULL::DOUBLE AS value_as_number,
       coalesce(value_coded, flag::VARCHAR) AS value_as_string,
       value_concept AS value_as_concept_id, visit_id AS visit_occurrence_id,
       code_value AS observation_source_value, link, 'Observation/' || id AS ref
FROM valued WHERE NOT is_measurement
"""

_ROWS: dict[str, dict[str, str]] = {
    "Condition": {"condition_occurrence": _CONDITION},
    "Procedure": {"procedure_occurrence": _PROCEDURE},
    "Observation": {"measurement": _MEASUREMENT, "observation": _OBSERVATION},
    "MedicationRequest": {"drug_exposure": _drug("MedicationRequest", TYPE_EHR_PRESCRIPTION)},
    "MedicationAdministration": {"drug_exposure": _drug("MedicationAdministration", TYPE_EHR_ADMINISTRATION)},
}
"""By FHIR type, the tables that its resources go to, and their rows."""


@dataclass(frozen=True, slots=True)
class EventTable:
    """A table of events: the prefix of its columns, the field its codes belong to, and its column of days."""

    prefix: str
    field: Field
    day: str


EVENT_TABLES = {
    "condition_occurrence": EventTable("condition", "condition", "condition_start_date"),
    "measurement": EventTable("measurement", "measurement", "measurement_date"),
    "observation": EventTable("observation", "measurement", "observation_date"),
    "drug_exposure": EventTable("drug", "drug", "drug_exposure_start_date"),
    "procedure_occurrence": EventTable("procedure", "procedure", "procedure_date"),
}


def make_rows(database: duckdb.DuckDBPyConnection, name: str) -> tuple[str, ...]:
    """Make ``out_<table>`` for the tables that a type goes to, with seq, link and ref; returns their names."""
    for table, query in _ROWS[name].items():
        database.execute(f"CREATE OR REPLACE TEMP VIEW out_{table} AS {query}")
    return tuple(_ROWS[name])


_CARE_SITE = """
CREATE TABLE out_care_site AS
SELECT seq, key AS care_site_id, NULL::VARCHAR AS care_site_name, 0 AS place_of_service_concept_id,
       'Organization/' || id AS ref
FROM organization
"""

_PERIOD = f"""
CREATE TABLE out_observation_period AS
SELECT person_id AS observation_period_id, person_id, first AS observation_period_start_date,
       greatest(first, least(coalesce(death_date, until), until)) AS observation_period_end_date,
       {TYPE_EHR} AS period_type_concept_id
FROM lived JOIN followed USING (person_id) LEFT JOIN out_death USING (person_id) WHERE has_events
"""

_LIVED = """
CREATE TABLE lived AS
SELECT person_id, coalesce(first, death_date) AS first, greatest(last, death_date) AS last,
       coalesce(first_time, death_datetime) AS first_time, first IS NOT NULL AS has_events
FROM (SELECT person_id, min(day) AS first, max(last) AS last, min(timed) AS first_time FROM ({days}) GROUP BY person_id)
FULL JOIN out_death USING (person_id)
"""


def write_people(database: duckdb.DuckDBPyConnection) -> None:
    """Make the out tables of persons, care sites and deaths; needs ``patient``, ``organization`` and ``visit``."""
    for statement in (_PERSON, _CARE_SITE, PERSON_DEATH):
        database.execute(statement)


_STAYS = "SELECT person_id, began::DATE AS day, greatest(began::DATE, end_date) AS last, moment(start_text) AS timed FROM visit"


_ENDS = {"condition_occurrence": "condition_end_date", "drug_exposure": "drug_exposure_end_date"}
"""The columns of events that say when something ended."""


def find_lived(database: duckdb.DuckDBPyConnection, extract: date, *, visits: str = _STAYS) -> None:
    """Make ``lived``: a person's first and last day, and the first time. Needs ``visit``, out_death, events.

    Ends after the extract are plans, and do not count. ``visits`` is SQL for (person_id, day, last, timed) of every visit.
    """
    limit = f"DATE '{extract.isoformat()}'"
    days = [
        f"SELECT person_id, day, CASE WHEN last <= {limit} THEN last ELSE day END AS last, timed FROM ({visits})"
    ]
    for name, table in EVENT_TABLES.items():
        last = f"max({table.day})"
        if end := _ENDS.get(name):
            last = f"greatest({last}, max({end}) FILTER ({end} <= {limit}))"
        days.append(
            f"SELECT person_id, min({table.day}), {last}, min({table.day}time) FROM out_{name} GROUP BY person_id"
        )
    database.execute(_LIVED.format(days=" UNION ALL ".join(days)))


def write_periods(database: duckdb.DuckDBPyConnection) -> None:
    """Make out_observation_period: first event to death or the end of follow-up. Needs ``lived`` and ``followed``."""
    database.execute(_PERIOD)


def latest_day(database: duckdb.DuckDBPyConnection) -> date:
    """The last day that any kept encounter or event has; 1970-01-01 when there is none."""
    columns = ["SELECT max(greatest(coalesce(ended, began), began))::DATE AS day FROM stay"]
    columns += [f"SELECT max({table.day}) FROM out_{name}" for name, table in EVENT_TABLES.items()]
    row = database.execute(f"SELECT max(day) FROM ({' UNION ALL '.join(columns)})").fetchone()
    return row[0] if row and row[0] is not None else date(1970, 1, 1)
