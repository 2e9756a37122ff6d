"""Whole resources: the models, then the rules that they leave out. Every rule has a resource that breaks it."""

import json
import re
from pathlib import Path

import pytest
from simulator.hospital import LOINC, SNOMED, coded, encounter, event, observation, patient, small_hospital

import fedhealth
from fedhealth.fhir import rules
from fedhealth.fhir.code_syntax import is_possible_code
from fedhealth.fhir.narrative import narrative_fault
from fedhealth.fhir.validation import Fault, faults_of

PULSE = observation("p", "8867-4", 60, "/min")
QUANTITY = {"value": 1, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}
ACTIVE = coded("http://terminology.hl7.org/CodeSystem/condition-clinical", "active")
ERROR = coded("http://terminology.hl7.org/CodeSystem/condition-ver-status", "entered-in-error")
DRUG = event(
    "MedicationRequest", "m", status="active", intent="order", medicationCodeableConcept={"text": "x"}
)
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'
PRACTITIONER = {"resourceType": "Practitioner", "id": "inside"}
ASKED = {"reference": "#inside"}


def drug(**repeat):
    return DRUG | {"dosageInstruction": [{"timing": {"repeat": repeat}}]}


def photo(**fields):
    return patient("p", photo=[fields])


BROKEN = [
    ("empty_element Observation.category", PULSE | {"category": []}),
    ("empty_element Observation.valueQuantity", PULSE | {"valueQuantity": {}}),
    ("empty_element Observation.note.text", PULSE | {"note": [{"text": " "}]}),
    ("wrong_json_type Patient.active", patient("p", active="true")),
    ("wrong_json_type Observation.valueQuantity.value", PULSE | {"valueQuantity": QUANTITY | {"value": "1"}}),
    ("invalid_code Patient.name.use", patient("p", name=[{"use": "stage", "family": "x"}])),
    ("invalid_code Patient.gender", patient("p", gender="F")),
    ("invalid_id Patient.contained.id", patient("p", contained=[PRACTITIONER | {"id": "x" * 65}])),
    ("invalid_uri Patient.identifier.system", patient("p", identifier=[{"system": "urn:a|b", "value": "1"}])),
    (
        "invalid_uri Patient.identifier.value",
        patient("p", identifier=[{"system": "urn:ietf:rfc:3986", "value": "7"}]),
    ),
    ("control_character Patient.name.family", patient("p", name=[{"family": "a\x07"}])),
    ("reference_target Encounter.subject.reference", encounter("e", subject={"reference": "Practitioner/1"})),
    ("reference_syntax Encounter.subject.reference", encounter("e", subject={"reference": "number one"})),
    (
        "reference_syntax Observation.device.reference",
        PULSE | {"device": {"reference": "Device?identifier=1&?=="}},
    ),
    (
        "reference_type Encounter.subject.type",
        encounter("e", subject={"reference": "Patient/1", "type": "Group"}),
    ),
    (
        "end_before_start Encounter.period",
        encounter("e", period={"start": "2021-02-02", "end": "2021-02-01"}),
    ),
    ("period_precision Encounter.period", encounter("e", period={"start": "2021-02", "end": "2021-02-01"})),
    (
        "unit_without_system Observation.valueQuantity.system",
        PULSE | {"valueQuantity": {"value": 1, "code": "mg"}},
    ),
    ("extension_value Patient.extension", patient("p", extension=[{"url": "urn:a"}])),
    ("code_syntax Observation.code.coding.code", PULSE | {"code": coded(LOINC, "8867-5")}),
    ("contact_without_system Patient.telecom.system", patient("p", telecom=[{"value": "1"}])),
    (
        "narrative_not_xhtml Patient.text.div",
        patient("p", text={"status": "generated", "div": DIV.format("<script/>x")}),
    ),
    ("narrative_empty Patient.text.div", patient("p", text={"status": "generated", "div": DIV.format(" ")})),
    ("attachment_without_type Patient.photo.contentType", photo(data="YQ==")),
    ("invalid_base64 Patient.photo.data", photo(contentType="image/png", data="***")),
    ("attachment_size Patient.photo.size", photo(contentType="image/png", data="YQ==", size=2)),
    (
        "range_reversed Observation.valueRange",
        observation("o", "8867-4") | {"valueRange": {"low": {"value": 2}, "high": {"value": 1}}},
    ),
    (
        "ratio_of_one Observation.valueRatio",
        observation("o", "8867-4") | {"valueRatio": {"numerator": {"value": 2}}},
    ),
    ("timing_without_unit MedicationRequest.dosageInstruction.timing.repeat.periodUnit", drug(period=1)),
    (
        "timing_negative MedicationRequest.dosageInstruction.timing.repeat.period",
        drug(period=-1, periodUnit="d"),
    ),
    ("timing_bound MedicationRequest.dosageInstruction.timing.repeat.countMax", drug(countMax=2)),
    ("value_and_absent_reason Observation.dataAbsentReason", PULSE | {"dataAbsentReason": {"text": "lost"}}),
    ("component_repeats_code Observation.component.code", PULSE | {"component": [{"code": PULSE["code"]}]}),
    (
        "empty_reference_range Observation.referenceRange",
        PULSE | {"referenceRange": [{"age": {"low": {"value": 1}}}]},
    ),
    (
        "abated_but_active Condition.abatement[x]",
        event("Condition", "c", clinicalStatus=ACTIVE, abatementDateTime="2021"),
    ),
    (
        "clinical_status_of_error Condition.clinicalStatus",
        event("Condition", "c", clinicalStatus=ACTIVE, verificationStatus=ERROR),
    ),
    ("empty_contact Patient.contact", patient("p", contact=[{"gender": "male"}])),
    ("nameless_organization Organization", {"resourceType": "Organization", "id": "o", "active": True}),
    (
        "home_of_organization Organization.address.use",
        {"resourceType": "Organization", "name": "o", "address": [{"use": "home", "city": "x"}]},
    ),
    ("dangling_local_reference Patient.contained.id", patient("p", generalPractitioner=[ASKED])),
    ("contained_unused Patient.contained", patient("p", contained=[PRACTITIONER])),
    (
        "contained_in_contained Patient.contained",
        patient("p", generalPractitioner=[ASKED], contained=[PRACTITIONER | {"contained": [PRACTITIONER]}]),
    ),
    (
        "contained_with_meta Patient.contained.meta",
        patient("p", generalPractitioner=[ASKED], contained=[PRACTITIONER | {"meta": {"versionId": "1"}}]),
    ),
]


@pytest.mark.parametrize(("expected", "resource"), BROKEN, ids=[expected for expected, _ in BROKEN])
def test_a_broken_rule_is_noted_with_its_path(expected, resource):
    reason, path = expected.split()
    found = faults_of(resource["resourceType"], json.dumps(resource))
    assert Fault("noted", reason, path) in found
    assert {fault.kind for fault in found} == {"noted"}


def test_every_rule_in_the_code_has_a_resource_that_breaks_it_and_a_line_in_the_reference():
    named = set(re.findall(r'yield "(\w+)"', Path(rules.__file__).read_text()))
    named |= {"narrative_not_xhtml", "narrative_empty"}
    assert named == {expected.split()[0] for expected, _ in BROKEN}
    page = (Path(fedhealth.__file__).parent.parent / "docs" / "reference" / "fhir-checks.md").read_text()
    assert {reason for reason in named if f"`{reason}`" not in page} == set()


@pytest.mark.parametrize("resource", small_hospital(), ids=lambda resource: resource["id"])
def test_a_valid_resource_has_no_fault(resource):
    assert faults_of(resource["resourceType"], json.dumps(resource)) == ()


def test_a_valid_contained_resource_and_a_valid_period_have_no_fault():
    whole = patient("p", generalPractitioner=[ASKED], contained=[PRACTITIONER])
    assert faults_of("Patient", json.dumps(whole)) == ()
    stay = encounter("e", period={"start": "2021-02-01T23:00:00+02:00", "end": "2021-02-01T21:30:00Z"})
    assert faults_of("Encounter", json.dumps(stay)) == ()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("Patient.birthDate", '{"resourceType": "Patient", "birthDate": {"year": 1950}}'),
        ("Patient", '{"resourceType": "Patient", "Quillfeather": 1}'),
        ("Patient.name", '{"resourceType": "Patient", "name": [{"Quillfeather": 1}]}'),
        ("Observation.code", '{"resourceType": "Observation", "status": "final"}'),
        ("Patient", "no json"),
        ("Patient", '{"resourceType": "Patient", "contained": [{"resourceType": "Quillfeather"}]}'),
        ("Patient", '{"resourceType": "Patient", "contained": [{"resourceType": ["Quillfeather"]}]}'),
        ("Patient", '{"resourceType": "Patient", "x": ' + "[" * 100_000),
    ],
)
def test_what_the_models_refuse_is_quarantined_at_an_element_of_r4_and_never_by_a_name_of_the_data(
    path, text
):
    assert faults_of(path.split(".")[0], text) == (Fault("quarantined", "r4b_invalid", path),)


def test_a_name_that_comes_twice_is_quarantined():
    text = '{"resourceType": "Patient", "active": true, "active": false}'
    assert faults_of("Patient", text) == (Fault("quarantined", "duplicate_name", "Patient"),)


@pytest.mark.parametrize(
    ("system", "code", "possible"),
    [
        (LOINC, "8310-5", True),
        (LOINC, "8310-6", False),
        (LOINC, "LA9633-4", True),
        (LOINC, "8310", False),
        (SNOMED, "73211009", True),
        (SNOMED, "73211008", False),
        (SNOMED, "276885007x", False),
        (SNOMED, "34552-0", False),
        (SNOMED, "73211009:363698007=113331007", True),
        ("urn:local", "34552-0", True),
    ],
)
def test_a_code_is_possible_when_its_form_and_check_digit_are(system, code, possible):
    assert is_possible_code(system, code) is possible


@pytest.mark.parametrize(
    ("inside", "fault"),
    [
        ("<p>text</p>", None),
        ('<img src="#a"/>', None),
        ("a &amp; b", None),
        ("a &nbsp; b", "narrative_not_xhtml"),
        ("<p>text", "narrative_not_xhtml"),
        ('<p onclick="x()">text</p>', "narrative_not_xhtml"),
        ("<form>x</form>", "narrative_not_xhtml"),
        ("<p> </p>", "narrative_empty"),
    ],
)
def test_a_narrative_is_the_xhtml_that_r4_allows(inside, fault):
    assert narrative_fault(DIV.format(inside)) == fault


def test_a_narrative_with_a_document_type_is_never_parsed():
    bomb = '<!DOCTYPE a [<!ENTITY b "bb">]>' + DIV.format("&b;")
    assert narrative_fault(bomb) == "narrative_not_xhtml"


def test_what_a_scan_reads_of_stu3_is_not_refused_by_the_models():
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    pulse = {"resourceType": "Observation", "id": "a", "status": "final", "code": code}
    context = {"reference": "Encounter/stay"}
    dated = pulse | {"context": context, "effectiveDateTime": "2024-05-01T10:00:00"}
    assert faults_of("Observation", json.dumps(dated)) == ()
    assert faults_of("Observation", json.dumps(dated | {"related": []}))[0].reason == "r4b_invalid"
