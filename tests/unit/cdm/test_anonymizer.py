"""Configurations of Microsoft's FHIR anonymizer: followed where we can, more strictly where we cannot, refused else."""

import json

import pytest
from simulator.hospital import SNOMED, coded, encounter, event, observation, patient

from fedhealth.cdm.anonymizer import read_anonymizer
from fedhealth.errors import ConfigError

SCOPE = {"dateShiftScope": "patient", "enablePartialDatesForRedact": True}


def configuration(*rules, **parameters):
    listed = [{"path": path, "method": method} for path, method in rules]
    return json.dumps(
        {"fhirVersion": "R4", "fhirPathRules": listed, "parameters": SCOPE | parameters}
    ).encode()


SHIFT = (
    ("nodesByType('date')", "dateShift"),
    ("nodesByType('dateTime')", "dateShift"),
    ("nodesByType('instant')", "dateShift"),
)
SAFE_HARBOR = (
    ("nodesByType('Extension')", "redact"),
    ("Organization.identifier", "keep"),
    ("nodesByType('HumanName').use", "keep"),
    ("Resource.id", "cryptoHash"),
    ("Bundle.entry.fullUrl", "redact"),
    ("FamilyMemberHistory.condition.onset as Age", "perturb"),
    ("Condition.onset", "redact"),
    ("Observation.value", "redact"),
    ("Observation.component.value", "redact"),
    ("nodesByType('CodeableConcept').text", "redact"),
    ("nodesByType('Reference').reference", "cryptoHash"),
    *SHIFT,
    ("nodesByType('HumanName')", "redact"),
)
"""The kinds of rules that the tool's own sample has."""


def test_a_configuration_that_keeps_everything_changes_nothing():
    found = read_anonymizer(configuration(("Resource", "keep")))
    assert (found.profile, found.dropped, found.warnings) == ("local-only", frozenset(), ())


def test_moved_dates_are_a_limited_data_set():
    assert read_anonymizer(configuration(*SHIFT)).profile == "limited-dataset"


def test_the_strictest_rule_on_a_date_decides():
    found = read_anonymizer(configuration(("Condition.onset", "redact"), *SHIFT))
    assert found.profile == "safe-harbor"
    later = read_anonymizer(configuration(*SHIFT, ("Condition.onset", "redact")))
    assert later.profile == "limited-dataset"  # the first rule that selects a node is the one


def test_rules_like_those_of_the_sample_are_followed():
    found = read_anonymizer(configuration(*SAFE_HARBOR))
    assert found.profile == "safe-harbor"
    assert ("measurement", "value_as_number") in found.dropped
    assert ("person", "race_concept_id") in found.dropped
    assert ("measurement", "measurement_concept_id") not in found.dropped
    assert ("person", "gender_concept_id") not in found.dropped
    assert any(text.startswith("Observation.value[x]") for text in found.warnings)


@pytest.mark.parametrize(
    ("path", "dropped"),
    [
        ("Patient.gender", {"gender_concept_id", "gender_source_value"}),
        ("Encounter.hospitalization", {"admitted_from_concept_id", "discharged_to_source_value"}),
        ("Encounter.hospitalization.dischargeDisposition.coding.code", {"discharged_to_concept_id"}),
        ("nodesByName('gender')", {"gender_source_value"}),
        ("nodesByType('Quantity').unit", {"unit_source_value", "dose_unit_source_value"}),
        ("nodesByType('Dosage')", {"route_concept_id", "dose_unit_source_value"}),
        ("Observation.valueQuantity", {"value_as_number", "unit_source_value"}),
        ("Observation.referenceRange.low", {"range_low"}),
        ("Medication", {"drug_concept_id", "drug_source_value"}),
    ],
)
@pytest.mark.parametrize("method", ["redact", "perturb", "generalize", "substitute", "cryptoHash"])
def test_what_a_path_selects_is_dropped_whatever_else_the_method_would_do(path, dropped, method):
    found = read_anonymizer(configuration((path, method)))
    assert dropped <= {column for _, column in found.dropped}
    assert found.warnings


def test_a_longer_path_than_any_field_of_ours_selects_nothing():
    assert not read_anonymizer(configuration(("Patient.gender.extension", "redact"))).dropped
    assert not read_anonymizer(configuration(("Patient.contact.gender", "redact"))).dropped


@pytest.mark.parametrize("scope", ["resource", "file", "folder"])
def test_a_shift_that_is_not_a_patients_is_warned_of(scope):
    found = read_anonymizer(configuration(*SHIFT, dateShiftScope=scope))
    assert any("dateShiftScope is not patient" in text for text in found.warnings)


def test_a_fixed_offset_is_warned_of():
    found = read_anonymizer(configuration(*SHIFT, dateShiftFixedOffsetInDays=12))
    assert any("dateShiftFixedOffsetInDays is not used" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"{}", "has no fhirPathRules"),
        (b"SECRETWORD{", "has no fhirPathRules"),
        (configuration(("Observation.where(code.text = 'SECRETWORD').value", "redact")), "path 1"),
        (configuration(("nodesByType('date') | nodesByType('SECRETWORD')", "redact")), "path 1"),
        (configuration(("Resource.id", "redact")), "redact Organization.id"),
        (configuration(("nodesByType('Reference')", "redact")), "redact Encounter.subject.reference"),
        (configuration(("nodesByType('dateTime')", "perturb")), "perturb"),
        (configuration(("nodesByType('dateTime')", "SECRETWORD")), "another method"),
        (configuration(("Encounter.period", "redact"), enablePartialDatesForRedact=False), "leaves nothing"),
    ],
)
def test_what_cannot_be_followed_is_refused_without_its_words(data, what):
    with pytest.raises(ConfigError, match=what) as refused:
        read_anonymizer(data)
    assert "SECRETWORD" not in str(refused.value)


def test_a_site_follows_its_configuration(load, tmp_path):
    (tmp_path / "anonymizer.json").write_bytes(
        configuration(("Observation.value", "redact"), ("Encounter.class", "redact"), *SHIFT)
    )
    (tmp_path / "site.yaml").write_text("anonymizer: anonymizer.json\n")
    given = [
        patient("ada"),
        encounter("stay", priority=coded("http://terminology.hl7.org/CodeSystem/v3-ActPriority", "EM")),
        observation("pulse", "8867-4", 80, "/min"),
        event("Procedure", "p", status="completed", code=coded(SNOMED, "40701008")),
    ]
    loaded = load(given, site_map=tmp_path)
    assert loaded.one("measurement", "measurement_concept_id", "value_as_number", "unit_concept_id") == (
        *(3027018, None),
        None,
    )
    assert loaded.one("visit_occurrence", "visit_concept_id", "visit_source_value") == (0, None)
    assert loaded.one("visit_extra", "is_emergency") == (True,)
    record = loaded.record()
    assert record["profile"] == "limited-dataset"
    assert "measurement.value_as_number" in record["dropped"]
    assert loaded.account.unmapped == []
    plain = load(given)
    assert plain.record()["map_digest"] != record["map_digest"]


def test_a_configuration_that_is_not_there_is_an_error(load, tmp_path):
    (tmp_path / "site.yaml").write_text("anonymizer: anonymizer.json\n")
    with pytest.raises(ConfigError, match="that is not there"):
        load([patient("ada")], site_map=tmp_path)


def test_a_wrong_configuration_stops_the_load_before_it_reads(load, tmp_path):
    (tmp_path / "anonymizer.json").write_bytes(configuration(("Resource.id", "redact")))
    (tmp_path / "site.yaml").write_text("anonymizer: anonymizer.json\n")
    with pytest.raises(ConfigError, match=r"redact Organization\.id"):
        load([patient("ada")], site_map=tmp_path)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("Encounter.location", "redact"),
        ("Encounter.location.location", "cryptoHash"),
        ("nodesByName('location')", "redact"),
        ("Encounter.location.period", "redact"),
    ],
)
def test_locations_that_are_dropped_tell_no_intensive_care(load, tmp_path, path, method):
    said = json.dumps({"fhirPathRules": [{"path": path, "method": method}], "parameters": {}})
    site = tmp_path / "site.yaml"
    stay = encounter("stay", location=[{"location": {"reference": "Location/icu"}}])
    for anonymizer, details in (("", 1), ("anonymizer: rules.json\n", 0)):
        site.write_text(f"intensive_care_locations: [icu]\n{anonymizer}")
        if anonymizer:
            (tmp_path / "rules.json").write_text(said)
        loaded = load([patient("ada"), stay], site_map=tmp_path)
        assert len(loaded.rows("visit_detail")) == details
    assert "visit_detail.location" in loaded.record()["dropped"]
