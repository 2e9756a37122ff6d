"""Patients and Organizations: person, death, care_site, observation_period."""

from datetime import datetime, time

from reference.resources import keyed_id
from reference.visits import EHR

from fedhealth.vocabulary.concepts import ETHNICITIES, NOT_STATED, RACES

GENDERS = {"male": 8507, "female": 8532, "other": 8521}
EXPIRED = 32218
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"


def keep_patients(extract):
    """Leave out the patients without a birth date."""
    for name, patient in list(extract.kept["Patient"].items()):
        if patient.get("birthDate") is None:
            extract.drop("Patient", name, "quarantined", "missing_birth_date")
        elif extract.clock.day(patient["birthDate"]) is None:
            extract.drop("Patient", name, "quarantined", "invalid_birth_date")


def _category(patient, name):
    """The OMB category of a US Core extension."""
    for extension in patient.get("extension", []):
        if extension.get("url") == US_CORE + name:
            for inner in extension.get("extension", []):
                if inner.get("url") == "ombCategory":
                    return inner.get("valueCoding", {}).get("code")
            return None
    return None


def person_row(name, patient, clock, secret):
    text, day = patient["birthDate"], clock.day(patient["birthDate"])
    race, ethnicity = _category(patient, "race"), _category(patient, "ethnicity")
    gender = patient.get("gender")
    return {
        "person_id": keyed_id(f"Patient/{name}", secret),
        "gender_concept_id": GENDERS.get(gender, 0),
        "year_of_birth": day.year,
        "month_of_birth": day.month if len(text) >= 7 else None,
        "day_of_birth": day.day if len(text) >= 10 else None,
        "birth_datetime": datetime.combine(day, time()) if len(text) >= 10 else None,
        "race_concept_id": RACES.get(race, 0),
        "ethnicity_concept_id": ETHNICITIES.get(ethnicity, 0),
        "care_site_id": None,
        "gender_source_value": gender if gender in (*GENDERS, "unknown") else None,
        "race_source_value": race if race in (*RACES, *NOT_STATED) else None,
        "ethnicity_source_value": ethnicity if ethnicity in (*ETHNICITIES, *NOT_STATED) else None,
        "reference": f"Patient/{name}",
    }


def care_site_row(name, secret):
    reference = f"Organization/{name}"
    return {
        "care_site_id": keyed_id(reference, secret),
        "care_site_name": None,
        "place_of_service_concept_id": 0,
        "reference": reference,
    }


def death_rows(patients, stays, clock):
    """A discharge as expired, the first, then ``deceasedDateTime``; a flag alone has no date and gives no row."""
    rows = []
    for name, patient in patients.items():
        expired = [
            stay
            for stay in stays.values()
            if stay.person == name and stay.outer is None and stay.end is not None
            if stay.discharged and stay.discharged.concept_id == EXPIRED
        ]
        if expired:
            text = min(expired, key=lambda stay: stay.ended).end
        else:
            text = patient.get("deceasedDateTime")
        if clock.day(text) is not None:
            row = {"person_id": name, "death_date": clock.day(text), "death_datetime": clock.moment(text)}
            rows.append(row | {"death_type_concept_id": EHR, "cause_concept_id": None})
    return rows


def period_rows(tables, extract_day):
    """From the first event to death or the extract date, whichever is first."""
    first = {}
    for table, column in (("visit_occurrence", "visit_start_date"), *EVENT_DAYS.items()):
        for row in tables[table]:
            person = row["person_id"]
            first[person] = min(first.get(person, row[column]), row[column])
    died = {row["person_id"]: row["death_date"] for row in tables["death"]}
    return [
        {
            "observation_period_id": person,
            "person_id": person,
            "observation_period_start_date": start,
            "observation_period_end_date": max(start, min(died.get(person, extract_day), extract_day)),
            "period_type_concept_id": EHR,
        }
        for person, start in first.items()
    ]


EVENT_DAYS = {
    "condition_occurrence": "condition_start_date",
    "measurement": "measurement_date",
    "observation": "observation_date",
    "drug_exposure": "drug_exposure_start_date",
    "procedure_occurrence": "procedure_date",
}
