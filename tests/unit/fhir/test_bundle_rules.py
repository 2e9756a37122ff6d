"""What stands around the entries of a bundle. Every rule has a bundle that breaks it."""

import json
import re
from pathlib import Path

import pytest
from simulator.hospital import patient

import fedhealth
from fedhealth.fhir import bundle_rules
from fedhealth.fhir.bundle_rules import broken_bundle_rules

ADA = patient("ada")
AT = "http://x.example/fhir/Patient/ada"
COMPOSITION = {"resourceType": "Composition", "id": "c", "subject": {"reference": "Patient/ada"}}
PLACE = "http://x.example/fhir/Composition/c"
NAMED = {"identifier": {"system": "urn:a", "value": "1"}, "timestamp": "2021-05-01T00:00:00Z"}


def bundle(kind, *entries, **fields):
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)} | fields


def document(*entries, **fields):
    return bundle("document", {"resource": COMPOSITION, "fullUrl": PLACE}, *entries, **NAMED | fields)


WHOLE = {"resource": ADA, "fullUrl": AT}
BROKEN = [
    ("bundle_total Bundle.total", bundle("collection", WHOLE, total=1)),
    (
        "bundle_link Bundle.link.relation",
        bundle("searchset", WHOLE, link=[{"relation": "self", "url": "a"}] * 2),
    ),
    ("entry_search Bundle.entry.search", bundle("collection", WHOLE | {"search": {"mode": "match"}})),
    ("entry_search Bundle.entry.search.mode", bundle("searchset", WHOLE | {"search": {"mode": "outcome"}})),
    ("entry_request Bundle.entry.request", bundle("transaction", WHOLE)),
    ("entry_response Bundle.entry.response", bundle("batch-response", WHOLE)),
    ("empty_element Bundle.entry", bundle("collection")),
    ("empty_element Bundle.entry", bundle("collection", {"fullUrl": "urn:uuid:1"})),
    ("empty_element Bundle.link", bundle("collection", WHOLE, link=[])),
    ("invalid_code Bundle.type", bundle("pile", WHOLE)),
    ("full_url_repeated Bundle.entry.fullUrl", bundle("collection", WHOLE, WHOLE)),
    (
        "full_url_versioned Bundle.entry.fullUrl",
        bundle("collection", WHOLE | {"fullUrl": f"{AT}/_history/1"}),
    ),
    ("full_url_relative Bundle.entry.fullUrl", bundle("collection", WHOLE | {"fullUrl": "Patient/ada"})),
    ("full_url_mismatch Bundle.entry.fullUrl", bundle("collection", WHOLE | {"fullUrl": f"{AT}m"})),
    ("document_identifier Bundle.identifier", document(WHOLE, identifier={"value": "1"})),
    ("document_timestamp Bundle.timestamp", document(WHOLE, timestamp=None)),
    ("first_entry Bundle.entry.resource", bundle("message", WHOLE)),
    ("first_entry Bundle.entry.resource", bundle("document", WHOLE, **NAMED)),
    ("unresolved_in_document Bundle.entry.resource", document()),
]


@pytest.mark.parametrize(("expected", "broken"), BROKEN)
def test_a_broken_rule_is_named_with_its_path(expected, broken):
    assert broken_bundle_rules(json.dumps(broken)) == [tuple(expected.split())]


def test_every_rule_in_the_code_has_a_bundle_that_breaks_it_and_a_line_in_the_reference():
    named = set(re.findall(r'yield "(\w+)"', Path(bundle_rules.__file__).read_text()))
    assert named == {expected.split()[0] for expected, _ in BROKEN}
    page = (Path(fedhealth.__file__).parent.parent / "docs" / "reference" / "fhir-checks.md").read_text()
    assert {reason for reason in named if f"`{reason}`" not in page} == set()


@pytest.mark.parametrize(
    "valid",
    [
        bundle("collection", WHOLE),
        bundle(
            "searchset",
            WHOLE | {"search": {"mode": "match"}},
            total=1,
            link=[{"relation": "self", "url": "a"}],
        ),
        bundle("transaction", WHOLE | {"request": {"method": "PUT", "url": "Patient/ada"}}),
        bundle("collection", {"resource": ADA, "fullUrl": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"}),
        document(WHOLE),
    ],
)
def test_a_valid_bundle_breaks_no_rule(valid):
    assert broken_bundle_rules(json.dumps(valid)) == []
