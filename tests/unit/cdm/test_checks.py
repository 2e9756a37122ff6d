"""The SQL checks: every one has a resource that it finds, at its path, and none finds a valid one."""

import json
from importlib import import_module

import pytest
from simulator.hospital import RXNORM, UCUM, coded, encounter, event, observation, patient, small_hospital

from fedhealth.fhir.checks import checks
from fedhealth.fhir.resources import FOREIGN, SHAPES
from fedhealth.fhir.structure import elements_of

PULSE = observation("p", "8867-4", 60, "/min")
BARE = observation("p", "8867-4")
ABSENT = {"dataAbsentReason": {"text": "lost"}}
GIVEN = {"recordedDate": "2021-05-01"}
DRUG = {"medicationCodeableConcept": coded(RXNORM, "4603"), "authoredOn": "2021-05-01", "intent": "order"}
ORDER = event("MedicationRequest", "m", status="active", **DRUG)
DOSE = event(
    "MedicationAdministration",
    "a",
    status="completed",
    medicationCodeableConcept=coded(RXNORM, "4603"),
)
DONE = event("Procedure", "r", status="completed", code=coded("urn:x", "1"))
SICK = event("Condition", "c", code=coded("urn:x", "1"))
_HL7 = "http://terminology.hl7.org/CodeSystem/"
SPACE = {"reference": "number one"}
STRANGER = {"reference": "https://x.example/Practitioner/1"}
LATE = {"start": "2021-05-02T00:30:00+02:00", "end": "2021-05-01T22:00:00Z"}
VAGUE = {"start": "2021-05-01", "end": "2021-05-01T06:00:00Z"}
ODD = {"start": "2021-05-01T06:00:00", "end": "2021-05-01T07:00Z"}


UNREAD = [
    ("Encounter.period", encounter("e", period={"start": "2021-13-45"})),
    ("Encounter.period", encounter("e", period={"start": "2021-05-01", "end": "soon"})),
    ("Condition.onset[x]", SICK | {"onsetDateTime": "2021-1-1"}),
    ("Observation.effective[x]", PULSE | {"effectiveDateTime": "2021-02-30"}),
    ("MedicationRequest.authoredOn", ORDER | {"authoredOn": "in May"}),
    ("MedicationAdministration.effective[x]", DOSE | {"effectivePeriod": {"start": "2021-05-32"}}),
    ("Procedure.performed[x]", DONE | {"performedDateTime": "2021-05-01T25:00:00Z"}),
]


def quantity(**fields):
    return {"valueQuantity": {"value": 1, "unit": "/min"} | fields}


def part(**fields):
    return {"component": [{"code": coded("urn:x", "1")} | fields]}


def status(field, system, code):
    return SICK | GIVEN | {field: coded(_HL7 + system, code)}


def without(resource, *names):
    return {name: value for name, value in resource.items() if name not in names}


def periods(resource, field):
    """A resource with periods that break what a period can break."""
    path = f"{resource['resourceType']}.{field}"
    return [
        (f"noted date_format {path}.start", resource | {field: ODD}),
        (f"noted date_format {path}.end", resource | {field: ODD | {"start": "2021-05-01T05:00:00Z"}}),
        (f"noted period_precision {path}", resource | {field: VAGUE}),
        (f"quarantined end_before_start {path}", resource | {field: LATE}),
    ]


def times(resource, field):
    return [
        (f"noted date_format {resource['resourceType']}.{field}", resource | {field: "2021-05-01T06:00:00"})
    ]


def subjects(resource):
    path = f"{resource['resourceType']}.subject.reference"
    return [
        (f"quarantined reference_target {path}", resource | {"subject": STRANGER}),
        (f"quarantined reference_syntax {path}", resource | {"subject": SPACE}),
    ]


LOST_VALUES = [
    *(("value_unreadable", quantity(value=value)) for value in ("5,4", float("nan"), None, {})),
    *(("value_unreadable", {"valueQuantity": value}) for value in (5.4, "5.4", [])),
    ("value_unreadable", {"valueInteger": "many"}),
    ("value_unreadable", {"valueBoolean": "perhaps"}),
    ("value_not_loaded", {"valueString": "5.4"}),
    ("value_not_loaded", {"valueRange": {"low": {"value": 4}}}),
    ("value_not_loaded", {"valueRatio": {"numerator": {"value": 1}}}),
    ("value_not_loaded", {"valueSampledData": {"data": "1 2"}}),
    ("value_not_loaded", {"valueTime": "10:00:00"}),
    ("value_not_loaded", {"valueDateTime": "2021"}),
    ("value_not_loaded", {"valuePeriod": {"start": "2021"}}),
    *(
        ("value_not_loaded", {"valueCodeableConcept": value})
        for value in ({"text": "high"}, {"coding": [{}]}, "x")
    ),
]


FOUND = [
    ("noted stu3_mapped Observation.context", PULSE | {"context": {"reference": "Encounter/stay"}}),
    ("noted stu3_mapped Encounter.reason", encounter("e", reason=[coded("urn:x", "1")])),
    *((f"quarantined invalid_date {path}", resource) for path, resource in UNREAD),
    *subjects(encounter("e")),
    *periods(encounter("e"), "period"),
    ("noted missing_element Encounter.class", without(encounter("e"), "class")),
    ("noted invalid_code Patient.gender", patient("p", gender="F")),
    ("noted date_format Patient.birthDate", patient("p", birthDate="1950-03-04T00:00:00Z")),
    *times(patient("p"), "deceasedDateTime"),
    *(
        ("noted invalid_date Patient.deceasedDateTime", patient("p", deceasedDateTime=text))
        for text in ("01.02.2020", "2020-02-30", "9999-12-31", "unknown", "")
    ),
    *subjects(SICK | GIVEN),
    ("noted invalid_date Condition.abatementDateTime", SICK | GIVEN | {"abatementDateTime": "01.02.2020"}),
    (
        "noted invalid_date MedicationAdministration.effectivePeriod.end",
        DOSE | {"effectivePeriod": {"start": "2021-05-01", "end": "2021-05-32"}},
    ),
    *times(SICK, "onsetDateTime"),
    *times(SICK | GIVEN, "abatementDateTime"),
    *times(SICK, "recordedDate"),
    *periods(SICK, "onsetPeriod"),
    (
        "quarantined invalid_code Condition.verificationStatus.coding.code",
        status("verificationStatus", "condition-ver-status", "sure"),
    ),
    (
        "noted unbound_system Condition.verificationStatus.coding.system",
        status("verificationStatus", "other", "confirmed"),
    ),
    (
        "noted invalid_code Condition.clinicalStatus.coding.code",
        status("clinicalStatus", "condition-clinical", "ill"),
    ),
    (
        "noted unbound_system Condition.clinicalStatus.coding.system",
        status("clinicalStatus", "other", "active"),
    ),
    (
        "noted abated_but_active Condition.abatement[x]",
        status("clinicalStatus", "condition-clinical", "active") | {"abatementDateTime": "2021-06-01"},
    ),
    *subjects(PULSE),
    *times(PULSE, "effectiveDateTime"),
    *times(without(PULSE, "effectiveDateTime"), "issued"),
    *periods(without(PULSE, "effectiveDateTime"), "effectivePeriod"),
    ("quarantined invalid_code Observation.valueQuantity.comparator", BARE | quantity(comparator="~")),
    (
        "quarantined invalid_code Observation.component.valueQuantity.comparator",
        BARE | part(**quantity(comparator="~")),
    ),
    ("quarantined value_and_absent_reason Observation.dataAbsentReason", PULSE | ABSENT),
    (
        "quarantined value_and_absent_reason Observation.component.dataAbsentReason",
        BARE | part(**quantity(), **ABSENT),
    ),
    ("noted unit_without_system Observation.valueQuantity.system", BARE | quantity(code="/min")),
    (
        "noted unit_without_system Observation.component.valueQuantity.system",
        BARE | part(**quantity(code="/min")),
    ),
    (
        "noted component_repeats_code Observation.component.code",
        PULSE | {"component": [{"code": PULSE["code"] | {"text": "again"}}]},
    ),
    *((f"noted {reason} Observation.value[x]", BARE | value) for reason, value in LOST_VALUES),
    *(
        (f"noted {reason} Observation.component.value[x]", BARE | part(**value))
        for reason, value in LOST_VALUES
    ),
    *(
        ("noted missing_code Observation.component.code", BARE | {"component": [{"code": code} | quantity()]})
        for code in (
            {"text": "systolic"},
            {},
            None,
            {"coding": []},
            {"coding": [{"display": "systolic"}]},
            "systolic",
        )
    ),
    *subjects(ORDER),
    *times(ORDER, "authoredOn"),
    ("quarantined invalid_code MedicationRequest.intent", ORDER | {"intent": "wish"}),
    ("noted missing_element MedicationRequest.intent", without(ORDER, "intent")),
    (
        "quarantined missing_element MedicationRequest.medication[x]",
        without(ORDER, "medicationCodeableConcept"),
    ),
    *subjects(DOSE),
    *times(DOSE, "effectiveDateTime"),
    *periods(DOSE, "effectivePeriod"),
    (
        "quarantined missing_element MedicationAdministration.medication[x]",
        without(DOSE | {"effectiveDateTime": "2021"}, "medicationCodeableConcept"),
    ),
    *subjects(DONE),
    *times(DONE, "performedDateTime"),
    *periods(DONE, "performedPeriod"),
]
VALID = [
    BARE | quantity(system=UCUM, code="/min", comparator="<="),
    PULSE | {"subject": {"reference": "https://x.example/fhir/Patient/ada"}},
    PULSE | {"subject": {"reference": "Patient/ada/_history/2"}},
    PULSE | {"effectiveDateTime": "2021-05-01T06:00:00.123456+02:00"},
    PULSE | {"effectiveDateTime": "2021-05"},
    BARE | ABSENT | part(**quantity()),
    without(PULSE, "effectiveDateTime") | {"effectivePeriod": {"start": "2021-05-01", "end": "2021-05-01"}},
    without(PULSE, "effectiveDateTime")
    | {"effectivePeriod": {"start": "2021-05-02T00:30:00+02:00", "end": "2021-05-01T23:00:00Z"}},
    without(PULSE, "effectiveDateTime") | {"effectivePeriod": {"start": "2021-05-01"}},
    status("verificationStatus", "condition-ver-status", "provisional"),
    SICK
    | GIVEN
    | {
        "clinicalStatus": {
            "coding": [
                {"system": "urn:x", "code": "x"},
                {"system": f"{_HL7}condition-clinical", "code": "active"},
            ]
        }
    },
    PULSE | {"component": [{"code": coded("urn:x", "1")}]},
    *(
        holder
        for value in (
            quantity(value=0),
            {"valueInteger": 0},
            {"valueBoolean": False},
            {"valueCodeableConcept": coded("urn:x", "1")},
            {"valueQuantity": None},
            {"valueString": None},
        )
        for holder in (observation("p", "99999-9") | value, BARE | part(**value))
    ),
]


def numbered(resources):
    return [resource | {"id": f"x{n}"} for n, resource in enumerate(resources)]


@pytest.fixture(scope="module")
def broken(load):
    return load([patient("ada"), *numbered(resource for _, resource in FOUND)])


@pytest.mark.parametrize("number", range(len(FOUND)), ids=[expected for expected, _ in FOUND])
def test_a_check_finds_what_it_is_for_at_its_path(broken, number):
    kind, reason, path = FOUND[number][0].split()
    table = "private/quarantine" if kind == "quarantined" else "private/findings"
    rows = broken.rows(table, "line", "fhir_id", "reason_code", "json_path")
    assert (number + 2, f"x{number}", reason, path) in rows


def test_every_check_has_a_resource_that_it_finds():
    claimed = {f"{check.kind} {check.reason} {check.path}" for name in SHAPES for check in checks(name)}
    assert claimed <= {expected for expected, _ in FOUND}


def test_findings_are_counted_per_type_and_path(broken):
    counted = {(each.type, each.reason, each.path): each.n for each in broken.account.findings}
    listed = broken.rows("private/findings", "resource_type", "reason_code", "json_path")
    assert counted == {row: listed.count(row) for row in listed}


def test_valid_resources_are_neither_quarantined_nor_noted(load):
    loaded = load([patient("ada"), *small_hospital()[2:], *numbered(VALID)])
    assert loaded.rows("private/quarantine", "fhir_id", "reason_code") == []
    assert loaded.account.findings == []


def test_more_findings_than_are_listed_are_counted(load):
    loaded = load([patient("ada"), *numbered([BARE | quantity(code="/min")] * 50)])
    assert [each.n for each in loaded.account.findings] == [50]
    assert len(loaded.rows("private/findings", "fhir_id")) == 20


def test_a_bundle_that_breaks_a_rule_is_opened_all_the_same_and_counted(load):
    entry = {"resource": patient("ada"), "fullUrl": "Patient/ada"}
    whole = {"resourceType": "Bundle", "type": "collection", "entry": [entry]}
    loaded = load(files={"b.json": json.dumps(whole).encode()})
    assert loaded.account.resources["Patient"].loaded == 1
    assert [(each.type, each.reason, each.n) for each in loaded.account.findings] == [
        ("Bundle", "full_url_relative", 1)
    ]
    assert loaded.rows("private/findings", "line", "json_path") == [(1, "Bundle.entry.fullUrl")]


def test_the_context_of_an_observation_in_stu3_is_its_encounter(load):
    pulse = without(PULSE, "encounter") | {
        "context": {"reference": "Encounter/stay"},
        "effectiveDateTime": "2022-01-01",
    }
    loaded = load([patient("ada"), encounter("stay"), pulse])
    assert loaded.account.links["measurement"].reference == 1


@pytest.mark.parametrize("name", SHAPES)
def test_the_elements_that_tell_another_version_are_of_one_and_not_of_r4(name):
    of_r4 = elements_of(name).keys()
    others = {
        field.alias or key
        for package in ("fhir.resources", "fhir.resources.STU3")
        for key, field in getattr(import_module(f"{package}.{name.lower()}"), name).model_fields.items()
    }
    assert set(FOREIGN[name]) <= others - of_r4
