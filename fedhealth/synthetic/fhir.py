"""A hospital's patients and stays as FHIR R4 resources, in the hospital's dialect, one JSON line each."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import msgspec
import numpy as np

from fedhealth.synthetic.codes import (
    CATEGORY,
    DISPOSITION,
    DRUGS,
    HOUSE_DISPOSITIONS,
    ICD10,
    KIDNEY_INJURY,
    LOCAL_DIAGNOSES,
    LOCAL_DRUGS,
    LOCAL_LABS,
    PCS,
    PRIORITY,
    RXNORM,
)
from fedhealth.synthetic.dialect import LOINC, UCUM, Dialect, lab_system, local_system
from fedhealth.synthetic.model import SURGICAL, Hospital, Patient, Stay
from fedhealth.synthetic.observations import LABS, Measured, measure

FIRST_DAY = datetime(2023, 1, 1, tzinfo=UTC)
_FAMILY = (
    "Abbott",
    "Berg",
    "Castillo",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Haas",
    "Ito",
    "Jansen",
    "Keller",
    "Lopez",
)
_GIVEN = ("Alex", "Robin", "Chris", "Dominique", "Kim", "Luca", "Maria", "Noor", "Sam", "Toni")
_encode = msgspec.json.encode

Resource = dict[str, object]


@dataclass(slots=True)
class Ndjson:
    """Lines by resource type."""

    lines: dict[str, list[bytes]] = field(default_factory=dict)

    def add(self, resource: Resource) -> None:
        """Append one resource."""
        self.lines.setdefault(str(resource["resourceType"]), []).append(_encode(resource))


def moment(day: float) -> str:
    """Days from the start of the extract as an instant with seconds."""
    return (
        (FIRST_DAY + timedelta(seconds=round(day * 86400)))
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )


def patient_resource(patient: Patient, hospital: Hospital, death_day: float | None) -> Resource:
    """A patient with invented identifiers, so that de-identification has something to remove."""
    born = date(2023, 1, 1) + timedelta(days=patient.birth_day)
    key = f"{hospital.name}-p{patient.number:05d}"
    resource: Resource = {
        "resourceType": "Patient",
        "id": key,
        "identifier": [{"system": f"urn:{hospital.name}:mrn", "value": f"MRN{patient.number:07d}"}],
        "name": [{"family": _FAMILY[patient.number % 12], "given": [_GIVEN[patient.number % 10]]}],
        "telecom": [{"system": "phone", "value": f"555-01{patient.number % 100:02d}"}],
        "address": [
            {"line": [f"{patient.number} Example Street"], "city": "Sampletown", "postalCode": "00000"}
        ],
        "gender": "female" if patient.female else "male",
        "birthDate": born.isoformat(),
    }
    if death_day is not None:
        resource["deceasedDateTime"] = moment(death_day)
    return resource


def stay_resources(
    stay: Stay, hospital: Hospital, dialect: Dialect, generator: np.random.Generator
) -> Iterator[Resource]:
    """Encounter, diagnoses, drugs, procedures and observations of a stay."""
    patient = f"Patient/{hospital.name}-p{stay.patient.number:05d}"
    key = encounter_id(stay, hospital)
    encounter = f"Encounter/{key}"
    yield _encounter(stay, key, patient, hospital, dialect)
    yield from _conditions(stay, key, patient, encounter, hospital, dialect)
    yield from _drugs(stay, key, patient, encounter, hospital, dialect)
    if stay.principal in SURGICAL:
        yield {
            "resourceType": "Procedure",
            "id": f"{key}-op",
            "status": "completed",
            "code": {
                "coding": [
                    {"system": PCS, "code": "0SR90JZ" if stay.principal.startswith("S72") else "0FT44ZZ"}
                ]
            },
            "subject": {"reference": patient},
            "encounter": {"reference": encounter},
            "performedDateTime": moment(stay.start_day + 0.3),
        }
    measured = measure(stay, hospital, generator)
    unlinked = generator.random(len(measured)) < 0.05
    yield from _observations(measured, unlinked.tolist(), stay, key, patient, encounter, hospital, dialect)


def encounter_id(stay: Stay, hospital: Hospital) -> str:
    """The id of a stay's encounter."""
    return f"{hospital.name}-p{stay.patient.number:05d}-s{stay.number}"


def visit_resource(
    hospital: Hospital, dialect: Dialect, patient: Patient, *, number: int, day: float, emergency: bool
) -> Resource:
    """An emergency or ambulatory visit."""
    kind = "emergency" if emergency else "ambulatory"
    system, code = dialect.classes[kind]
    key = f"{hospital.name}-p{patient.number:05d}"
    return {
        "resourceType": "Encounter",
        "id": f"{key}-v{number}",
        "status": "finished",
        "class": {"system": system, "code": code},
        "subject": {"reference": f"Patient/{key}"},
        "period": {"start": moment(day), "end": moment(day + (0.2 if emergency else 0.03))},
        "serviceProvider": {"reference": f"Organization/{hospital.name}"},
    }


def _encounter(stay: Stay, key: str, patient: str, hospital: Hospital, dialect: Dialect) -> Resource:
    kind = "inpatient" if stay.emergency or "elective" not in dialect.classes else "elective"
    system, code = dialect.classes[kind]
    return {
        "resourceType": "Encounter",
        "id": key,
        "status": "finished",
        "class": {"system": system, "code": code},
        "priority": {"coding": [{"system": PRIORITY, "code": "EM" if stay.emergency else "EL"}]},
        "subject": {"reference": patient},
        "period": {"start": moment(stay.start_day), "end": moment(stay.end_day)},
        "hospitalization": {
            "dischargeDisposition": {"coding": [_disposition(stay, hospital, dialect)]},
        },
        "serviceProvider": {"reference": f"Organization/{hospital.name}"},
    }


def _disposition(stay: Stay, hospital: Hospital, dialect: Dialect) -> Resource:
    code = "exp" if stay.died else "home"
    if dialect.local_dispositions:
        return {"system": local_system(hospital.name, "disposition"), "code": HOUSE_DISPOSITIONS[code]}
    return {"system": DISPOSITION, "code": code}


def _conditions(
    stay: Stay, key: str, patient: str, encounter: str, hospital: Hospital, dialect: Dialect
) -> Iterator[Resource]:
    codes = [(stay.principal, stay.start_day)]
    codes += [(code, stay.start_day + 0.05) for code in stay.patient.chronic]
    if stay.kidney_injury:
        codes.append((KIDNEY_INJURY, stay.end_day))
    for number, (code, day) in enumerate(codes):
        yield {
            "resourceType": "Condition",
            "id": f"{key}-c{number}",
            "clinicalStatus": {
                "coding": [
                    {"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}
                ]
            },
            "verificationStatus": {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/condition-ver-status",
                        "code": "confirmed",
                    }
                ]
            },
            "code": {"coding": [_diagnosis(code, hospital, dialect)]},
            "subject": {"reference": patient},
            "encounter": {"reference": encounter},
            "onsetDateTime": moment(day),
            "recordedDate": moment(day),
        }


def _diagnosis(code: str, hospital: Hospital, dialect: Dialect) -> Resource:
    if dialect.local_diagnoses:
        return {"system": local_system(hospital.name, "diagnosis"), "code": LOCAL_DIAGNOSES[code]}
    return {"system": ICD10, "code": code.replace(".", "") if dialect.dotless else code}


def _drug(code: str, hospital: Hospital, dialect: Dialect) -> Resource:
    if dialect.local_diagnoses:
        return {"system": local_system(hospital.name, "drug"), "code": LOCAL_DRUGS[code]}
    return {"system": RXNORM, "code": code}


def _drugs(
    stay: Stay, key: str, patient: str, encounter: str, hospital: Hospital, dialect: Dialect
) -> Iterator[Resource]:
    codes = sorted({DRUGS[code] for code in (stay.principal, *stay.patient.chronic) if code in DRUGS})
    for number, code in enumerate(codes):
        common: Resource = {
            "medicationCodeableConcept": {"coding": [_drug(code, hospital, dialect)]},
            "subject": {"reference": patient},
        }
        yield common | {
            "resourceType": "MedicationRequest",
            "id": f"{key}-m{number}",
            "status": "completed",
            "intent": "order",
            "encounter": {"reference": encounter},
            "authoredOn": moment(stay.start_day + 0.1),
        }
        if number == 0:
            yield common | {
                "resourceType": "MedicationAdministration",
                "id": f"{key}-a{number}",
                "status": "completed",
                "context": {"reference": encounter},
                "effectiveDateTime": moment(stay.start_day + 0.15),
            }


def _observations(
    measured: list[Measured],
    unlinked: list[bool],
    stay: Stay,
    key: str,
    patient: str,
    encounter: str,
    hospital: Hospital,
    dialect: Dialect,
) -> Iterator[Resource]:
    labs = {quantity.name for quantity in LABS}
    pressures: dict[float, dict[str, Measured]] = {}
    for number, each in enumerate(measured):
        if dialect.panels and each.quantity.name.endswith("_bp"):
            pressures.setdefault(each.hour, {})[each.quantity.name] = each
            continue
        is_lab = each.quantity.name in labs
        resource = _observation(
            f"{key}-o{number}", "laboratory" if is_lab else "vital-signs", stay, each.hour, patient
        )
        resource["code"] = {"coding": [_coding(each, hospital, dialect, is_lab=is_lab)]}
        resource["valueQuantity"] = _quantity(each, dialect, number)
        if not (unlinked[number] or (is_lab and dialect.unlinked_labs)):
            resource["encounter"] = {"reference": encounter}
        yield resource
    for number, (hour, pair) in enumerate(pressures.items()):
        resource = _observation(f"{key}-b{number}", "vital-signs", stay, hour, patient)
        resource["code"] = {"coding": [{"system": LOINC, "code": "85354-9"}]}
        resource["encounter"] = {"reference": encounter}
        resource["component"] = [
            {
                "code": {"coding": [{"system": LOINC, "code": each.quantity.loinc}]},
                "valueQuantity": _quantity(each, dialect, number),
            }
            for each in pair.values()
        ]
        yield resource


def _observation(identity: str, category: str, stay: Stay, hour: float, patient: str) -> Resource:
    return {
        "resourceType": "Observation",
        "id": identity,
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": category}]}],
        "subject": {"reference": patient},
        "effectiveDateTime": moment(stay.start_day + hour / 24),
    }


def _coding(each: Measured, hospital: Hospital, dialect: Dialect, *, is_lab: bool) -> Resource:
    if is_lab and dialect.local_labs:
        return {"system": lab_system(hospital.name), "code": LOCAL_LABS[each.quantity.loinc]}
    return {"system": LOINC, "code": each.quantity.loinc}


def _quantity(each: Measured, dialect: Dialect, number: int) -> Resource:
    """A value in the dialect's unit, which every n-th has lost where the dialect loses some."""
    quantity = each.quantity
    unit, factor, digits = dialect.units.get(quantity.name, (quantity.unit, 1.0, quantity.digits))
    value = round(each.value * factor, digits)
    is_ucum = unit == quantity.unit or unit in ("umol/L", "mmol/L", "g/L")
    if quantity.name == "temperature" and dialect.fahrenheit:
        value, unit, is_ucum = round(each.value * 9 / 5 + 32, 1), "degF", True
    if dialect.unit_lost_every and number % dialect.unit_lost_every == dialect.unit_lost_every - 1:
        return {"value": value}
    code = "[degF]" if unit == "degF" else unit
    limit = _comparator(each) if dialect.comparators else ""
    written: Resource = {"value": value, "unit": unit} | ({"comparator": limit} if limit else {})
    return written | ({"system": UCUM, "code": code} if is_ucum else {})


def _comparator(each: Measured) -> str:
    """What a value at a limit of the measurement is written with; nothing within the limits."""
    if each.value >= each.quantity.high:
        return ">="
    return "<=" if each.value <= each.quantity.low else ""
