"""The account: read = loaded + excluded(reason) + quarantined(reason), and nothing stops a run."""

import copy
import json
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import ValidationError
from simulator.hospital import (
    RXNORM,
    bundle,
    coded,
    encounter,
    event,
    lines,
    observation,
    patient,
    small_hospital,
)

import fedhealth
from fedhealth.cdm import read_accounting
from fedhealth.cdm.accounting import ResourceCount, account_resources
from fedhealth.errors import DataError
from fedhealth.fhir.resources import SHAPES, notes, verdicts

GIVEN = {"recordedDate": "2021-05-01"}
DRUG = {"medicationCodeableConcept": coded(RXNORM, "4603"), "authoredOn": "2021-05-01", "intent": "order"}
DOSE = {"medicationCodeableConcept": coded(RXNORM, "4603"), "effectiveDateTime": "2021-05-01"}
DONE = {"performedDateTime": "2021-05-01"}
PULSE = observation("x", "8867-4", 60, "/min")
ERROR = coded("http://terminology.hl7.org/CodeSystem/condition-ver-status", "entered-in-error")

LEFT_OUT = [
    ("quarantined:invalid_birth_date", patient("x", birthDate="in spring")),
    ("quarantined:missing_birth_date", {"resourceType": "Patient", "id": "x"}),
    ("quarantined:invalid_id", patient("not an id")),
    ("quarantined:missing_id", {"resourceType": "Patient", "birthDate": "1950"}),
    ("quarantined:fhir_version", patient("x", animal={"species": coded("urn:s", "dog")})),
    ("quarantined:missing_time", encounter("x", period={})),
    ("quarantined:invalid_date", encounter("x", period={"start": "2021-05-01", "end": "later"})),
    ("quarantined:end_before_start", encounter("x", period={"start": "2021-05-02", "end": "2021-05-01"})),
    ("quarantined:invalid_status", encounter("x", status="bogus")),
    ("excluded:planned", encounter("x", status="planned")),
    ("excluded:cancelled", encounter("x", status="cancelled")),
    ("excluded:entered_in_error", encounter("x", status="entered-in-error")),
    ("quarantined:fhir_version", encounter("x", incomingReferral=[{}])),  # STU3
    ("quarantined:fhir_version", encounter("x", reason=[{"value": [{"concept": coded("urn:s", "1")}]}])),  # R5
    ("quarantined:fhir_version", encounter("x", **{"class": [coded("urn:s", "IMP")]})),  # R5
    ("quarantined:fhir_version", encounter("x", actualPeriod={"start": "2021-05-01"})),  # R5
    ("quarantined:missing_time", event("Condition", "x")),
    ("excluded:entered_in_error", event("Condition", "x", **GIVEN, verificationStatus=ERROR)),
    ("quarantined:fhir_version", event("Condition", "x", **GIVEN, verificationStatus="confirmed")),  # STU3
    ("quarantined:fhir_version", event("Condition", "x", **GIVEN, participant=[{}])),  # R5
    ("quarantined:missing_code", PULSE | {"code": {"text": "pulse"}}),
    ("quarantined:invalid_status", PULSE | {"status": "done"}),
    ("excluded:cancelled", PULSE | {"status": "cancelled"}),
    ("excluded:entered_in_error", PULSE | {"status": "entered-in-error"}),
    ("quarantined:fhir_version", PULSE | {"comment": "fine"}),  # STU3
    ("quarantined:fhir_version", PULSE | {"triggeredBy": [{}]}),  # R5
    ("excluded:planned", event("MedicationRequest", "x", **DRUG, status="draft")),
    ("excluded:planned", event("MedicationRequest", "x", **DRUG | {"intent": "plan"}, status="active")),
    ("excluded:not_done", event("MedicationRequest", "x", **DRUG, status="active", doNotPerform=True)),
    ("quarantined:invalid_status", event("MedicationRequest", "x", **DRUG)),
    ("quarantined:fhir_version", event("MedicationRequest", "x", **DRUG, status="active", medication={})),  # R5
    ("excluded:not_done", event("MedicationAdministration", "x", **DOSE, status="not-done")),
    ("quarantined:fhir_version", event("MedicationAdministration", "x", **DOSE, notGiven=True)),  # STU3
    ("excluded:not_done", event("Procedure", "x", **DONE, status="not-done")),
    ("excluded:planned", event("Procedure", "x", **DONE, status="preparation")),
    ("quarantined:fhir_version", event("Procedure", "x", status="completed", occurrenceDateTime="2021")),  # R5
    ("excluded:read_for_code_only", {"resourceType": "Medication", "id": "x"}),
    ("excluded:type_not_loaded", {"resourceType": "Practitioner", "id": "x"}),
]  # fmt: skip


def left_out_resources():
    """The resources above, each with an id of its own where it has a good one."""
    return [
        resource | ({"id": f"x{number}"} if resource.get("id") == "x" else {})
        for number, (_, resource) in enumerate(LEFT_OUT)
    ]


@pytest.fixture(scope="module")
def left_out(load):
    return load([patient("ada"), *left_out_resources()])


@pytest.mark.parametrize("kind", sorted({resource["resourceType"] for _, resource in LEFT_OUT}))
def test_what_is_left_out_is_counted_under_its_reason(left_out, kind):
    expected = Counter(outcome for outcome, resource in LEFT_OUT if resource["resourceType"] == kind)
    assert left_out.reasons(kind) == expected


def test_what_is_left_out_has_no_row(left_out):
    assert left_out.column("private/id_map", "fhir_reference") == ["Patient/ada"]


def test_what_is_quarantined_is_listed_with_its_place_and_nothing_of_its_text(left_out):
    rows = left_out.rows("private/quarantine", "line", "file", "resource_type", "reason_code")
    expected = {
        (number, "all.ndjson", resource["resourceType"], outcome.split(":")[1]): resource
        for number, ((outcome, _), resource) in enumerate(
            zip(LEFT_OUT, left_out_resources(), strict=True), start=2
        )
        if outcome.startswith("quarantined")
    }
    assert rows == sorted(expected)
    found = left_out.rows("private/quarantine", "line", "source_digest", "fhir_id")
    for (line, digest, fhir_id), resource in zip(found, (expected[row] for row in rows), strict=True):
        assert digest or fhir_id, line  # what the text alone condemns has its digest, the rest its id
        assert digest in (None, sha256(lines([resource])).hexdigest())
        assert fhir_id in (None, resource.get("id"))


def test_every_reason_in_the_code_is_explained_in_the_reference():
    package = Path(fedhealth.__file__).parent
    staging, *others = (
        (package / "cdm" / f"{name}.py").read_text() for name in ("scan", "gather", "visits", "events")
    )
    named = set(re.findall(r'"(?:excluded|quarantined)",\s*"(\w+)"', staging + "".join(others)))
    named |= set(re.findall(r"(?:THEN|ELSE|state =) '(\w+)'", staging))
    named |= {check.reason for name in SHAPES for check in (*verdicts(name), *notes(name))}
    others_named = re.findall(r"'(?:excluded|quarantined)'\"?, \"?'(\w+)'", "".join(others))
    named |= set(others_named) | {"too_large", "malformed_bundle", "malformed_entry"}
    named -= {"excluded", "quarantined", "not_utf8"}  # kinds, and a state that becomes not_json
    assert {
        "fhir_version",
        "not_json",
        "type_not_loaded",
        "malformed_bundle",
        "planned",
        "duplicate",
    } <= named
    page = (package.parent / "docs" / "reference" / "harmonisation.md").read_text()
    assert {reason for reason in named if f"`{reason}`" not in page} == set()


def test_the_strict_models_quarantine_what_is_no_r4(load):
    bad = patient("bo", maritalStatus="married")
    assert load([patient("ada"), bad], validate="all").reasons("Patient") == {"quarantined:r4b_invalid": 1}
    assert load([patient("ada"), bad], validate="off").reasons("Patient") == {}


def test_of_one_id_the_newest_version_is_loaded_and_the_others_are_excluded(load):
    versions = [
        patient("ada", birthDate=f"19{50 + n}-01-01", meta={"lastUpdated": f"2021-0{when}-01T00:00:00Z"})
        for n, when in enumerate((2, 9, 3))
    ]
    loaded = load(versions)
    assert loaded.reasons("Patient") == {"excluded:duplicate": 2}
    assert loaded.column("person", "year_of_birth") == [1951]


def test_lines_that_are_no_resource_are_quarantined_and_never_stop_the_run(load):
    data = b"\n".join(
        [
            b"no json at all",
            lines([patient("ada")]).strip(),
            b'{"resourceType":"Patient","id":"cut off',
            b'{"id":"typeless"}',
            b'["an","array"]',
            b'{"resourceType":"Heptapod","id":"1"}',
            '{"resourceType":"Patient","name":"\xd6"}'.encode("latin-1"),
            b"   \t ",
            b"",
            b'{"resourceType":"Patient","id":"\0"}',
            b"[" * 5000,
        ]
    )
    loaded = load(files={"a.ndjson": data})
    assert loaded.reasons("unknown") == {
        "quarantined:no_resource_type": 2,
        "quarantined:not_json": 5,
        "quarantined:unknown_type": 1,
    }
    assert loaded.account.resources["Patient"].loaded == 1


def test_a_malformed_bundle_is_quarantined_and_leaves_others_alone(load):
    files = {
        "a.json": bundle([patient("ada")]),
        "b.json": b'{"resourceType":"Bundle","type":"batch","entry":{"not":"a list"}}',
        "c.json": b'{"resourceType":"Bundle","entry":[{"resource":' + b"[" * 5000 + b"]" * 5000 + b"}]}",
        "d.json": bundle([patient("bo")]),
    }
    loaded = load(files=files)
    assert loaded.reasons("Bundle") == {"excluded:container": 2, "quarantined:malformed_bundle": 2}
    assert loaded.account.resources["Patient"].loaded == 2


def test_a_malformed_entry_is_quarantined_and_leaves_the_others_of_its_bundle_alone(load):
    entries = [
        {"resource": patient("ada")},
        {"fullUrl": 7, "resource": patient("bo")},
        {"request": None, "resource": patient("cy")},
        {"resource": patient("di")},
    ]
    loaded = load(files={"a.json": json.dumps({"resourceType": "Bundle", "entry": entries}).encode()})
    assert loaded.reasons("unknown") == {"quarantined:malformed_entry": 2}
    assert loaded.reasons("Bundle") == {"excluded:container": 1}
    assert loaded.account.resources["Patient"].loaded == 2


def test_entries_without_a_resource_and_deleted_versions_are_counted(load):
    entries = [
        {"resource": patient("ada")},
        {"fullUrl": "urn:uuid:1"},
        {"request": {"method": "DELETE", "url": "Patient/bo"}},
        {"fullUrl": "https://ehr.example/Patient/bo", "resource": patient("bo")},
    ]
    history = {"resourceType": "Bundle", "type": "history", "entry": entries}
    loaded = load(files={"a.json": json.dumps(history).encode()})
    assert loaded.reasons("unknown") == {"quarantined:no_resource": 1, "excluded:deleted": 2}
    assert loaded.account.resources["Patient"].read == 1


def test_encounters_and_patients_of_another_organisation_are_excluded(load, tmp_path):
    (tmp_path / "site.yaml").write_text("organizations: [house]\n")
    ours, theirs = ({"serviceProvider": {"reference": f"Organization/{name}"}} for name in ("house", "other"))
    resources = [
        *(patient(name) for name in ("ada", "bo")),
        encounter("a", of="ada", **ours),
        encounter("b", of="ada", **theirs),
        encounter("c", of="bo", **theirs),
        PULSE | {"id": "1", "encounter": {"reference": "Encounter/a"}},
        PULSE | {"id": "2", "encounter": {"reference": "Encounter/b"}},
        PULSE | {"id": "3", "subject": {"reference": "Patient/bo"}},
        {
            "resourceType": "Consent",
            "id": "d",
            "status": "active",
            "scope": coded("http://terminology.hl7.org/CodeSystem/consentscope", "research"),
            "category": [coded("http://loinc.org", "59284-0")],
            "patient": {"reference": "Patient/bo"},
            "dateTime": "2025-03-01",
            "policyRule": coded("http://terminology.hl7.org/CodeSystem/v3-ActCode", "OPTIN"),
            "provision": {"type": "deny"},
        },
    ]
    loaded = load(resources, site_map=tmp_path)
    for kind, n in (("Patient", 1), ("Encounter", 2), ("Observation", 2), ("Consent", 1)):
        assert loaded.reasons(kind) == {"excluded:other_organization": n}, kind


WRONG = [
    *(
        None,
        5,
        -1,
        1e308,
        True,
        "",
        "x",
        "é" * 100,
        "\x00",
        "\ud800",
        [],
        [None],
        [[]],
        {},
        {"a": 1},
        10**400,
    ),
    *("9999-12-31", "infinity     ", "99999-01-01T00:00:00Z", "0001-01-01", "#x", "Patient/ada"),
    "'; DROP TABLE resource; --",
]


def places(value, path=()):
    """The path of every value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in inside:
        yield (*path, name)
        yield from places(child, (*path, name))


def replaced(resource, path, value):
    changed = copy.deepcopy(resource)
    holder = changed
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return changed


def test_a_wrong_value_in_any_place_never_stops_the_run_and_the_account_adds_up(load):
    good = small_hospital()
    wrong = [
        replaced(resource | {"id": f"w{number}-{n}"}, path, value)
        for number, resource in enumerate(good)
        for n, (path, value) in enumerate((p, v) for p in places(resource) for v in WRONG)
    ]
    account = load(good + wrong).account
    assert sum(count.read for count in account.resources.values()) == len(good) + len(wrong)
    assert account.resources["Procedure"].loaded > 1  # a wrong value where nothing is read does no harm
    for name, count in account.resources.items():
        parts = (count.loaded, *count.excluded.values(), *count.quarantined.values())
        assert count.read == sum(parts), name


def test_an_account_that_does_not_add_up_is_refused():
    with pytest.raises(ValidationError, match="read is not loaded"):
        ResourceCount(read=3, loaded=1, excluded={"duplicate": 1})
    with pytest.raises(DataError, match="Patient does not add up"):
        account_resources({"Patient": 3}, {"Patient": 1}, {("Patient", "excluded", "duplicate"): 1})


def test_the_account_is_in_the_folder_and_a_changed_one_is_refused(load):
    loaded = load(small_hospital())
    assert read_accounting(loaded.folder) == loaded.account
    path = loaded.folder / "accounting.json"
    path.write_text(path.read_text().replace('"read": 3', '"read": 4'))
    with pytest.raises(DataError, match="no valid accounting"):
        read_accounting(loaded.folder)


def test_the_tables_of_the_account_are_the_rows_on_disk(load):
    loaded = load(small_hospital())
    assert loaded.account.tables == {name: len(loaded.rows(name)) for name in loaded.account.tables}


def test_a_summary_hides_counts_of_1_to_10_and_every_total_that_would_tell_them(load):
    people = [patient(f"p{n}") for n in range(40)]
    summary = load(
        [*people, *people[:11], *[{"resourceType": "Practitioner", "id": "x"}] * 10]
    ).account.summary()
    assert summary["resources"] == {
        "Patient": {"read": 51, "loaded": 40, "excluded:duplicate": 11},
        "Practitioner": {"read": None, "loaded": 0, "excluded:type_not_loaded": None},
    }
