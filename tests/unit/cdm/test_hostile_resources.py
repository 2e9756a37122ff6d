"""What two bundles claim, what has no id, what is nested without end: nobody else's data, no denial lost, no run stopped."""

import json

import pytest
from simulator.hospital import bundle, encounter, key, lines, observation, patient

UUID = "61ebe359-bfdc-4613-8bf2-c5e300945f0a"


def entries(*pairs, kind="collection"):
    found = [{"fullUrl": url, "resource": resource} for url, resource in pairs]
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": found}).encode()


def pulse(name, of, value=70):
    return observation(name, "8867-4", value, "/min") | {"subject": {"reference": of}}


def denial(**fields):
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"code": "research"}]},
        "patient": {"reference": "Patient/ada"},
        "provision": {"type": "deny"},
    } | fields


def test_a_full_url_that_bundles_use_for_two_patients_means_neither(load):
    files = {
        f"{name}.json": entries(
            ("urn:uuid:patient", patient(name)),
            (f"urn:uuid:{name}-pulse", pulse(f"{name}-pulse", "urn:uuid:patient")),
        )
        for name in ("ada", "ben")
    }
    loaded = load(files=files)
    assert loaded.reasons("Observation") == {"quarantined:dangling_subject": 2}
    assert loaded.rows("measurement") == []


def test_no_full_url_means_another_than_a_plain_reference(load):
    taken = entries(("Patient/ada", patient("eve")))
    loaded = load(files={"a.ndjson": lines([patient("ada"), pulse("o", "Patient/ada")]), "b.json": taken})
    assert loaded.column("measurement", "person_id") == [key("Patient/ada")]


def test_entries_without_an_id_are_named_by_their_full_url(load):
    of, stay = f"urn:uuid:{UUID}", encounter("x")
    who = patient("x")
    for resource in (who, stay, seen := pulse("x", of)):
        del resource["id"]
    stay["subject"] = {"reference": of}
    posted = entries(
        (of, who),
        (f"urn:uuid:{UUID[:-1]}b", stay),
        ("https://example.org/fhir/Observation/o1", seen),
        kind="transaction",
    )
    loaded = load(files={"a.json": posted})
    assert {kind: count.loaded for kind, count in loaded.account.resources.items()} == {
        "Bundle": 0,
        "Patient": 1,
        "Encounter": 1,
        "Observation": 1,
    }
    assert loaded.column("measurement", "person_id") == [key(f"Patient/{UUID}")]


def test_what_has_neither_id_nor_a_full_url_that_is_unique_is_counted(load):
    who = patient("x")
    del who["id"]
    loaded = load(files={"a.json": entries(("urn:uuid:patient", who)), "b.json": bundle([patient("ada")])})
    assert loaded.reasons("Patient") == {"quarantined:missing_id": 1}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "missing_id"),
        ({"id": "not an id"}, "missing_id"),
        ({"id": "c", "meta": {"fhirVersion": "5.0.0"}}, "fhir_version"),
    ],
    ids=["no id", "bad id", "another version"],
)
def test_a_denial_denies_whatever_is_wrong_with_it(load, fields, reason):
    loaded = load([patient("ada"), denial(**fields)])
    assert loaded.reasons("Consent") == {f"quarantined:{reason}": 1}
    assert loaded.column("private/consent", "person_id") == [key("Patient/ada")]


def test_of_two_panels_of_one_id_the_content_decides_not_the_order(load):
    def pressure(high, low):
        parts = [("8480-6", high), ("8462-4", low)]
        return observation("bp", "85354-9") | {
            "component": [
                {
                    "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
                    "valueQuantity": quantity(value),
                }
                for code, value in parts
            ]
        }

    def quantity(value):
        return {"value": value, "unit": "mm[Hg]", "code": "mm[Hg]", "system": "http://unitsofmeasure.org"}

    one, other = pressure(120, 80), pressure(150, 95)
    first, second = (load([patient("ada"), *order]) for order in ((one, other), (other, one)))
    assert first.reasons("Observation") == {"excluded:duplicate": 1}
    assert first.digests() == second.digests()


def deep(depth=3000):
    return "[" * depth + "]" * depth


NESTED = {
    "a coding": json.dumps(pulse("bad", "Patient/ada")).replace(
        '"8867-4"}', '"8867-4", "extension": ' + deep() + "}", 1
    ),
    "a provision": json.dumps(denial(id="bad")).replace('"deny"}', '"deny", "provision": ' + deep() + "}", 1),
    "beside the context of STU3": json.dumps(
        pulse("bad", "Patient/ada") | {"context": {"reference": "Encounter/e"}}
    ).replace('{"resourceType"', '{"extension": ' + deep() + ', "resourceType"', 1),
}


@pytest.mark.parametrize("text", NESTED.values(), ids=NESTED.keys())
def test_nesting_without_end_costs_one_resource_and_stops_no_run(load, text):
    good = lines([patient("ada"), pulse("good", "Patient/ada")])
    loaded = load(files={"a.ndjson": good + text.encode() + b"\n"}, validate="all")
    assert loaded.column("measurement", "person_id") == [key("Patient/ada")]


def test_a_provision_nested_without_end_denies(load):
    loaded = load(files={"a.ndjson": lines([patient("ada")]) + NESTED["a provision"].encode()})
    (said,) = loaded.column("private/consent", "provision")
    assert json.loads(said)["is_narrowed"]
