"""Events as rows: condition_occurrence, procedure_occurrence, drug_exposure."""

from reference.resources import first, reference_of, verification
from reference.visits import EHR

PRESCRIPTION, ADMINISTRATION = 32838, 32818
CONFIRMED, REFUTED, PRELIMINARY = 32893, 2_000_000_001, 32899
STATUS = {
    "confirmed": CONFIRMED,
    "refuted": REFUTED,
    "provisional": PRELIMINARY,
    "differential": PRELIMINARY,
    "unconfirmed": PRELIMINARY,
}


def condition_row(event, codes, clock):
    resource = event.resource
    match = codes.match("condition", resource.get("code", {}).get("coding"))
    verified = verification(resource)
    return {
        "condition_occurrence_id": event.key,
        "person_id": event.person,
        "condition_concept_id": match.concept_id if match else 0,
        "condition_start_date": event.day,
        "condition_start_datetime": event.time,
        "condition_end_date": clock.day(resource.get("abatementDateTime")),
        "condition_type_concept_id": EHR,
        "condition_status_concept_id": STATUS.get(verified),
        "condition_source_value": match.source_value if match else None,
        "condition_source_concept_id": 0,
        "visit_occurrence_id": event.visit,
        "reference": event.reference,
    }


def procedure_row(event, codes):
    match = codes.match("procedure", event.resource.get("code", {}).get("coding"))
    return {
        "procedure_occurrence_id": event.key,
        "person_id": event.person,
        "procedure_concept_id": match.concept_id if match else 0,
        "procedure_date": event.day,
        "procedure_datetime": event.time,
        "procedure_type_concept_id": EHR,
        "visit_occurrence_id": event.visit,
        "procedure_source_value": match.source_value if match else None,
        "reference": event.reference,
    }


def drug_row(event, codes, clock, extract):
    resource = event.resource
    match = codes.match("drug", _drug_codings(resource, extract))
    if event.kind == "MedicationRequest":
        kind, end = PRESCRIPTION, None
        dosage = first(resource.get("dosageInstruction"))
        dose = first(dosage.get("doseAndRate")).get("doseQuantity", {})
        quantity = resource.get("dispenseRequest", {}).get("quantity", {}).get("value")
    else:
        kind, end = ADMINISTRATION, resource.get("effectivePeriod", {}).get("end")
        dosage = resource.get("dosage", {})
        dose = dosage.get("dose", {})
        quantity = dose.get("value")
    route = codes.match("route", dosage.get("route", {}).get("coding"))
    end_day, end_time = _end(event, end, clock)
    return {
        "drug_exposure_id": event.key,
        "person_id": event.person,
        "drug_concept_id": match.concept_id if match else 0,
        "drug_exposure_start_date": event.day,
        "drug_exposure_start_datetime": event.time,
        "drug_exposure_end_date": end_day,
        "drug_exposure_end_datetime": end_time,
        "drug_type_concept_id": kind,
        "quantity": quantity,
        "route_concept_id": route.concept_id if route else None,
        "visit_occurrence_id": event.visit,
        "drug_source_value": match.source_value if match else None,
        "route_source_value": route.source_value if route else None,
        "dose_unit_source_value": dose.get("code", dose.get("unit")),
        "reference": event.reference,
    }


def _end(event, text, clock):
    """Day and time of the end, never before the start; without an end, those of the start."""
    day, instant = clock.day(text), clock.moment(text)
    if day is None:
        return event.day, event.time
    if instant is not None and event.time is not None:
        instant = max(instant, event.time)
    return max(day, event.day), instant


def _drug_codings(resource, extract):
    """The codings of a drug: its own, those of a contained Medication, or of one that it refers to."""
    own = resource.get("medicationCodeableConcept", {}).get("coding")
    if own is not None:
        return own
    reference = reference_of(resource, "medicationReference")
    for contained in resource.get("contained", []):
        if reference == f"#{contained.get('id')}":
            return contained.get("code", {}).get("coding")
    kind, _, name = (extract.target(reference) or "").partition("/")
    found = extract.kept["Medication"].get(name, {}) if kind == "Medication" else {}
    return found.get("code", {}).get("coding")
