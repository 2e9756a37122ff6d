"""Codes and units: mapped, converted, or reported; never guessed unless the site says so."""

import json

import pytest
import yaml
from simulator.hospital import (
    ACT,
    DISPOSITION,
    ICD10,
    LOINC,
    SNOMED,
    UCUM,
    VERIFICATION,
    bundle,
    coded,
    encounter,
    event,
    key,
    observation,
    patient,
)

from fedhealth.vocabulary.concepts import CONDITION_REFUTED

LAB = "urn:house:lab"


def concept_map(source, target, codes, equivalence="equivalent"):
    elements = [{"code": a, "target": [{"code": b, "equivalence": equivalence}]} for a, b in codes.items()]
    group = {"source": source, "target": target, "element": elements}
    return json.dumps({"resourceType": "ConceptMap", "status": "active", "group": [group]})


@pytest.fixture
def site_map(tmp_path):
    """Write a site map: ConceptMaps by file name, and the settings of site.yaml."""

    def write(maps=(), **settings):
        for number, text in enumerate(maps):
            (tmp_path / f"map-{number}.json").write_text(text)
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(settings))
        return tmp_path

    return write


def lab(code, value, unit, *, system=LAB, **fields):
    """A laboratory value of a local code, its unit as text alone."""
    quantity = {"value": value} | ({"unit": unit} if unit else {})
    return observation("x", "", code=coded(system, code), valueQuantity=quantity) | fields


def number(loaded):
    return loaded.one("measurement", "measurement_concept_id", "value_as_number", "unit_concept_id")


@pytest.mark.parametrize(
    ("loinc", "value", "unit", "expected"),
    [
        ("8867-4", 72, "bpm", (3027018, 72.0, 8541)),
        ("8310-5", 98.6, "degF", (3020891, pytest.approx(37.0), 586323)),
        ("8310-5", 310.15, "K", (3020891, pytest.approx(37.0), 586323)),
        ("2160-0", 88.4, "umol/L", (3016723, pytest.approx(1.0, rel=1e-3), 8840)),
        ("2345-7", 5.5, "mmol/L", (3004501, pytest.approx(99.1, rel=1e-3), 8840)),
        ("3094-0", 10, "mmol/L", (3013682, pytest.approx(28.0, rel=1e-3), 8840)),
        ("2823-3", 4.1, "mEq/L", (3023103, 4.1, 8753)),
        ("718-7", 135, "g/L", (3000963, 13.5, 8713)),
        ("6690-2", 7.1, "K/uL", (3000905, 7.1, 8848)),
        ("777-3", 250000, "/uL", (3024929, 250.0, 8848)),
        ("8480-6", 16, "kPa", (3004249, pytest.approx(120.0, rel=1e-3), 8876)),
        ("8302-2", 6, "[ft_i]", (3036277, pytest.approx(182.88), 8582)),
    ],
)
def test_a_number_is_in_the_unit_of_its_concept(load, loinc, value, unit, expected):
    assert number(load([patient("ada"), lab(loinc, value, unit, system=LOINC)])) == expected


def test_the_reference_range_is_converted_with_the_number(load):
    given = lab("8310-5", 98.6, "degF", system=LOINC)
    given["referenceRange"] = [{"low": {"value": 95}, "high": {"value": 104}}]
    loaded = load([patient("ada"), given])
    assert loaded.one("measurement", "range_low", "range_high") == pytest.approx((35.0, 40.0))


@pytest.mark.parametrize(
    ("loinc", "unit", "reason"),
    [("2160-0", "furlong", "unit"), ("17861-6", "U/L", "unit"), ("2160-0", "", "unit_missing")],
)
def test_a_number_whose_unit_does_not_fit_is_kept_as_a_row_without_a_value(load, loinc, unit, reason):
    loaded = load([patient("ada"), lab(loinc, 2.5, unit, system=LOINC)])
    assert number(loaded)[1:] == (None, 0)
    assert loaded.column("measurement", "value_source_value") == ["2.5"]
    values = loaded.account.values
    assert (values.read, values.loaded, values.quarantined) == (1, 0, {reason: 1})
    assert loaded.column("private/quarantine", "reason_code") == [reason]


def test_a_number_that_is_infinite_in_the_unit_of_its_concept_is_kept_as_a_row_without_a_value(load):
    given = lab("2345-7", 1e308, "mmol/L", system=LOINC)
    loaded = load([patient("ada"), given, lab("2345-7", 5.5, "mmol/L", system=LOINC) | {"id": "other"}])
    assert sorted(loaded.column("measurement", "value_as_number"), key=str)[1:] == [None]
    values = loaded.account.values
    assert (values.read, values.loaded, values.quarantined) == (2, 1, {"unit": 1})


def test_a_limit_that_is_infinite_in_the_unit_of_its_concept_goes(load):
    given = lab("2345-7", 5.5, "mmol/L", system=LOINC)
    given["referenceRange"] = [{"low": {"value": 1}, "high": {"value": 1e308}}]
    low, high = load([patient("ada"), given]).one("measurement", "range_low", "range_high")
    assert low == pytest.approx(18.0, rel=1e-2)
    assert high is None


def test_a_unit_of_a_divalent_ion_in_equivalents_is_not_taken_for_millimoles(load):
    assert number(load([patient("ada"), lab("17861-6", 5, "mEq/L", system=LOINC)]))[1] == pytest.approx(10.02)


@pytest.mark.parametrize(
    ("infer", "value", "expected"),
    [(False, 37.0, None), (True, 37.0, 37.0), (True, 98.6, pytest.approx(37.0)), (True, 60.0, None)],
)
def test_a_missing_unit_is_inferred_only_when_allowed_and_only_one_is_plausible(
    load, site_map, infer, value, expected
):
    given = [patient("ada"), lab("8310-5", value, "", system=LOINC)]
    loaded = load(given, site_map=site_map(unit_inference=infer))
    assert number(loaded)[1] == expected
    assert loaded.account.values.inferred == (expected is not None)
    assert len(loaded.rows("private/quarantine")) == (expected is None)


@pytest.mark.parametrize(("sign", "concept"), [("<", 4171756), (">=", 4171755), (None, None)])
def test_a_comparator_is_kept_beside_the_number(load, sign, concept):
    given = lab("2160-0", 0.2, "mg/dL", system=LOINC)
    given["valueQuantity"] |= {} if sign is None else {"comparator": sign}
    loaded = load([patient("ada"), given])
    assert loaded.one("measurement", "operator_concept_id", "value_as_number") == (concept, 0.2)


def test_unmapped_codes_are_reported_with_their_units_most_frequent_first(load):
    of_many = [
        resource
        for n in range(11)
        for resource in (
            patient(f"p{n}"),
            lab("K9", 1, "U/L") | {"id": f"k{n}", "subject": {"reference": f"Patient/p{n}"}},
        )
    ]
    loaded = load([patient("ada"), *of_many, lab("Z1", 1, "") | {"id": "z"}])
    assert [(u.system, u.code, u.unit, u.n) for u in loaded.account.unmapped] == [
        (LAB, "K9", "U/L", 11),
        (LAB, "other", "", 1),
    ]
    assert {row[1] for row in loaded.rows("private/unmapped")} == {"K9", "Z1"}
    assert set(loaded.column("measurement", "measurement_concept_id")) == {0}
    assert set(loaded.column("measurement", "value_as_number")) == {1.0}


def test_classes_and_dispositions_without_a_concept_are_reported_too(load, site_map):
    odd = {"class": {"system": "urn:house", "code": "S"}}
    left = {"hospitalization": {"dischargeDisposition": coded("urn:house", "gone")}}
    nowhere = concept_map("urn:house", "urn:none", {"S": "x", "gone": "y"})
    loaded = load([patient("ada"), encounter("e", **odd, **left)], site_map=site_map([nowhere]))
    assert {(u.system, u.code) for u in loaded.account.unmapped} == {
        ("urn:house", "S"),
        ("urn:house", "gone"),
    }
    assert loaded.one("visit_occurrence", "visit_concept_id", "discharged_to_concept_id") == (0, 0)


def test_a_local_code_is_mapped_through_the_sites_map(load, site_map):
    given = [patient("ada"), lab("K9", 88.4, "umol/L")]
    maps = [concept_map(LAB, LOINC, {"K9": "2160-0"})]
    loaded = load(given, site_map=site_map(maps))
    assert number(loaded) == (3016723, pytest.approx(1.0, rel=1e-3), 8840)
    assert loaded.account.unmapped == []
    assert loaded.column("measurement", "measurement_source_value") == [f"{LAB}|K9"]


def test_a_local_unit_is_mapped_through_the_sites_map(load, site_map):
    maps = [concept_map("urn:house:unit", UCUM, {"Einheiten": "umol/L"})]
    given = [patient("ada"), lab("2160-0", 88.4, "Einheiten", system=LOINC)]
    assert number(load(given, site_map=site_map(maps)))[1] == pytest.approx(1.0, rel=1e-3)


def test_a_map_can_go_straight_to_omop_and_unmatched_targets_are_not_used(load, site_map):
    given = [
        patient("ada"),
        *(event("Condition", c, recordedDate="2021-05-01", code=coded(LAB, c)) for c in "ab"),
    ]
    maps = [
        concept_map(LAB, "https://fhir-terminology.ohdsi.org", {"a": "4329847"}),
        concept_map(LAB, "https://fhir-terminology.ohdsi.org", {"b": "4329847"}, equivalence="unmatched"),
        concept_map(LAB, "urn:none", {"b": "y"}),
    ]
    loaded = load(given, site_map=site_map(maps))
    assert dict(loaded.rows("condition_occurrence", "condition_source_value", "condition_concept_id")) == {
        f"{LAB}|a": 4329847,
        f"{LAB}|b": 0,
    }


def test_what_is_an_admission_is_the_sites_to_say(load, site_map):
    odd = encounter("e", **{"class": {"code": "S"}})
    plain = load([patient("ada"), odd])
    settings = {"default_class_system": "urn:house", "admission_classes": ["urn:house|S"]}
    said = load([patient("ada"), odd], site_map=site_map(**settings))
    assert plain.column("visit_occurrence", "visit_concept_id") == [0]
    assert said.column("visit_occurrence", "visit_concept_id") == [9201]


def test_another_map_gives_another_digest_in_source_row_and_record(load, site_map):
    bare, mapped = load([patient("ada")]), load([patient("ada")], site_map=site_map(unit_inference=True))
    assert bare.column("cdm_source", "vocabulary_version") != mapped.column(
        "cdm_source", "vocabulary_version"
    )
    assert bare.record()["map_digest"] != mapped.record()["map_digest"]


def test_the_mapped_coding_of_a_concept_is_chosen_before_others(load):
    codings = [{"system": LAB, "code": "K9"}, {"system": LOINC, "code": "2160-0"}]
    given = lab("", 1, "mg/dL") | {"code": {"coding": codings}}
    assert number(load([patient("ada"), given]))[0] == 3016723


def test_a_disposition_code_is_no_class(load):
    odd = encounter("e", **{"class": {"system": DISPOSITION, "code": "home"}})
    loaded = load([patient("ada"), odd])
    assert loaded.column("visit_occurrence", "visit_concept_id") == [0]


def test_a_death_in_the_disposition_wins_over_the_patients_and_the_difference_is_noted(load):
    stay = encounter("e", hospitalization={"dischargeDisposition": coded(DISPOSITION, "exp")})
    loaded = load([patient("ada", deceasedDateTime="2021-05-20"), stay])
    assert [str(day) for day in loaded.column("death", "death_date")] == ["2021-05-04"]
    assert loaded.account.notes["death_disagrees"] == 1


@pytest.mark.parametrize(
    "beside", [{"display": None}, {"userSelected": None}, {"display": None, "userSelected": True}]
)
def test_a_null_in_a_coding_counts_as_absent(load, beside):
    pulse = {"system": LOINC, "code": "8867-4"} | beside
    stay = encounter("e", **{"class": {"system": ACT, "code": "IMP", "display": None}})
    loaded = load([patient("ada"), stay, observation("o", "", 60, "/min", code={"coding": [pulse]})])
    assert loaded.one("measurement", "measurement_source_value", "value_as_number") == (f"{LOINC}|8867-4", 60)
    assert loaded.column("visit_occurrence", "visit_source_value") == [f"{ACT}|IMP"]


@pytest.mark.parametrize("bad", [None, 5, "x", [], {"code": 5}, {"system": [], "code": "a"}, {"display": {}}])
def test_a_malformed_coding_loses_itself_alone(load, bad):
    codings = [bad, {"system": LOINC, "code": "8867-4"}]
    loaded = load([patient("ada"), observation("o", "", 60, "/min", code={"coding": codings})])
    assert loaded.column("measurement", "measurement_source_value") == [f"{LOINC}|8867-4"]


@pytest.mark.parametrize(
    "first", [{"system": "urn:house", "code": "X"}, {"code": "confirmed"}, {"text": "?"}]
)
def test_a_verification_status_is_read_from_its_bound_system_wherever_it_stands(load, first):
    def sick(name, *codings):
        status = {"coding": [first, *codings]}
        return event(
            "Condition", name, recordedDate="2021", code=coded(ICD10, "E11.9"), verificationStatus=status
        )

    error, refuted, bogus = (
        {"system": VERIFICATION, "code": code} for code in ("entered-in-error", "refuted", "sure")
    )
    people = [patient("ada"), sick("e", error), sick("r", refuted), sick("b", bogus)]
    loaded = load(people)
    assert loaded.reasons("Condition") == {"excluded:entered_in_error": 1, "quarantined:invalid_code": 1}
    assert loaded.column("condition_occurrence", "condition_status_concept_id") == [CONDITION_REFUTED]


def test_a_verification_status_without_its_system_is_read_from_any_known_code(load):
    status = {"coding": [{"code": "X"}, {"code": "entered-in-error"}]}
    sick = event("Condition", "c", recordedDate="2021", code=coded(ICD10, "E11.9"), verificationStatus=status)
    assert load([patient("ada"), sick]).reasons("Condition") == {"excluded:entered_in_error": 1}


def test_a_component_without_a_code_is_counted_and_the_others_are_rows(load):
    said = {"valueQuantity": {"value": 80, "unit": "mm[Hg]"}}
    parts = [{"code": {"text": "systolic"}} | said, {"code": coded(LOINC, "8462-4")} | said]
    loaded = load([patient("ada"), observation("o", "85354-9", component=parts)])
    assert loaded.column("measurement", "measurement_source_value") == [f"{LOINC}|8462-4"]
    found = [(each.reason, each.path, each.n) for each in loaded.account.findings]
    assert found == [("missing_code", "Observation.component.code", 1)]


def test_a_death_without_a_date_is_noted_and_gives_no_row(load):
    dead = [
        {"deceasedBoolean": True},
        {"deceasedDateTime": "01.02.2020"},
        {"deceasedDateTime": "2020-02-30"},
    ]
    people = [patient(f"p{n}", **said) for n, said in enumerate([*dead, {"deceasedBoolean": False}, {}])]
    loaded = load(people)
    assert loaded.rows("death") == []
    assert loaded.account.notes["death_without_date"] == len(dead)


def test_a_medication_is_read_through_its_reference_and_from_inside(load):
    inside = event(
        "MedicationRequest",
        "inside",
        status="active",
        intent="order",
        authoredOn="2021-05-01",
        contained=[{"resourceType": "Medication", "id": "m", "code": coded(SNOMED, "387458008")}],
        medicationReference={"reference": "#m"},
    )
    outside = inside | {
        "id": "outside",
        "contained": [],
        "medicationReference": {"reference": "Medication/m"},
    }
    tablet = {"resourceType": "Medication", "id": "m", "code": coded(SNOMED, "387207008")}
    loaded = load(files={"a.json": bundle([patient("ada"), inside, outside, tablet])})
    assert set(loaded.rows("drug_exposure", "drug_exposure_id", "drug_source_value")) == {
        (key("MedicationRequest/inside"), f"{SNOMED}|387458008"),
        (key("MedicationRequest/outside"), f"{SNOMED}|387207008"),
    }


@pytest.mark.parametrize(
    ("code", "concept"), [("IMP", 9201), ("EMER", 9203), ("AMB", 9202), ("OBSENC", 9202), ("HH", 581476)]
)
def test_the_standard_classes_have_their_visit_concepts(load, code, concept):
    given = encounter("e", **{"class": {"system": ACT, "code": code}})
    assert load([patient("ada"), given]).column("visit_occurrence", "visit_concept_id") == [concept]
