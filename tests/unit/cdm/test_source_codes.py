"""Which source codes and units stay: what a map names, what its form proves, what enough patients carry."""

import json

import pytest
from simulator.hospital import ICD10, LOINC, RXNORM, SNOMED, UCUM, coded, event, observation, patient

from fedhealth.cdm.plain_codes import is_plain_bare, is_plain_code, is_plain_unit
from fedhealth.vocabulary.site_map import SiteMap

PCS = "http://www.cms.gov/Medicare/Coding/ICD10"
HOUSE = "urn:house:lab"


@pytest.mark.parametrize(
    ("system", "code", "is_plain"),
    [
        (LOINC, "8867-4", True),
        (LOINC, "8867-5", False),
        (LOINC, "02139-4307", False),
        (SNOMED, "22298006", True),
        (SNOMED, "22298007", False),
        (SNOMED, "987654320", False),
        (ICD10, "I50.9", True),
        (ICD10, "I509", True),
        (ICD10, "I50.93210", False),
        (ICD10, "Quill", False),
        (PCS, "0DTJ4ZZ", True),
        (PCS, "0123456", False),
        (RXNORM, "02139", False),
        (HOUSE, "K9", False),
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "IMP", True),
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "Quillfeather", False),
        (HOUSE, "8867-4", False),
    ],
)
def test_a_code_is_plain_by_a_map_or_by_the_form_of_its_system(system, code, is_plain):
    assert is_plain_code(system, code, SiteMap()) == is_plain


@pytest.mark.parametrize("unit", ["mg/dL", "mm Hg", "kg/m2", "10*3/uL", "{beats}/min", "ng/mL"])
def test_known_units_are_plain(unit):
    assert is_plain_unit(unit, SiteMap())


@pytest.mark.parametrize("unit", ["Quill", "{Quillfeather}/min", "mg Quill", "5550142", "", "mg/dL Ada"])
def test_other_units_are_not(unit):
    assert not is_plain_unit(unit, SiteMap())


def labs(people, code="K9", system=HOUSE, unit="Einheit"):
    """A lab value of each of so many patients."""
    given = []
    for n in range(people):
        given += [
            patient(f"p{n}"),
            observation(
                f"o{n}",
                "",
                code=coded(system, code),
                valueQuantity={"value": 1, "unit": unit},
                subject={"reference": f"Patient/p{n}"},
            ),
        ]
    return given


@pytest.mark.parametrize(
    ("people", "code", "unit"), [(10, f"{HOUSE}|other", "other"), (11, f"{HOUSE}|K9", "Einheit")]
)
def test_eleven_patients_make_a_local_code_and_unit_common(load, people, code, unit):
    other_codes = [
        observation(f"x{n}", "", code=coded(HOUSE, f"A{n}"), subject={"reference": f"Patient/p{n % people}"})
        for n in range(people * 2)
    ] + [
        patient("late"),
        observation("late", "", code=coded(HOUSE, "B"), subject={"reference": "Patient/late"}),
    ]
    loaded = load([*labs(people), *other_codes])
    rows = set(loaded.rows("measurement", "measurement_source_value", "unit_source_value"))
    assert (code, unit) in rows
    assert not [value for value, _ in rows if value.startswith((f"{HOUSE}|A", f"{HOUSE}|B"))]


def test_one_patient_with_a_code_many_times_is_one_patient(load):
    given = [patient("ada")] + [observation(f"o{n}", "", code=coded(HOUSE, "K9")) for n in range(30)]
    assert set(load(given).column("measurement", "measurement_source_value")) == {"|other"}


@pytest.mark.parametrize("code", ["two words", "Quillfeather,Ada", "x" * 33, "q@mail.example"])
def test_what_does_not_look_like_a_code_stays_in_no_case(load, code):
    values = set(load(labs(12, code=code)).column("measurement", "measurement_source_value"))
    assert values == {f"{HOUSE}|other"}


def test_a_system_that_looks_like_none_goes_as_well(load):
    assert set(load(labs(12, system="Quill feather")).column("measurement", "measurement_source_value")) == {
        "|other"
    }


@pytest.mark.parametrize(
    ("people", "code", "kept"), [(11, "K9", "|K9"), (10, "K9", "|other"), (11, "Quill feather", "|other")]
)
def test_a_code_without_a_system_stays_under_the_same_rule(load, people, code, kept):
    loaded = load(labs(people, code=code, system=""))
    assert set(loaded.column("measurement", "measurement_source_value")) == {kept}
    assert {each.code for each in loaded.account.unmapped} == {kept[1:]}


def test_the_sites_map_keeps_a_code_without_a_system(load, tmp_path):
    element = {"code": "K9", "target": [{"code": "2160-0", "equivalence": "equivalent"}]}
    whole = {"resourceType": "ConceptMap", "group": [{"target": LOINC, "element": [element]}]}
    (tmp_path / "lab.json").write_text(json.dumps(whole))
    loaded = load(labs(1, system=""), site_map=tmp_path)
    assert loaded.one("measurement", "measurement_concept_id", "measurement_source_value") == (3016723, "|K9")


def test_the_sites_map_keeps_what_it_names_and_the_concept_is_found_in_any_case(load, tmp_path):
    element = {"code": "K9", "target": [{"code": "2160-0", "equivalence": "equivalent"}]}
    unit = {"code": "Einheit", "target": [{"code": "umol/L", "equivalence": "equivalent"}]}
    groups = [
        {"source": HOUSE, "target": LOINC, "element": [element]},
        {"source": "urn:house:unit", "target": UCUM, "element": [unit]},
    ]
    (tmp_path / "lab.json").write_text(json.dumps({"resourceType": "ConceptMap", "group": groups}))
    loaded = load(labs(1), site_map=tmp_path)
    assert loaded.one(
        "measurement", "measurement_concept_id", "measurement_source_value", "unit_source_value"
    ) == (
        *(3016723, f"{HOUSE}|K9"),
        "Einheit",
    )


def test_coded_values_and_routes_follow_the_same_rule(load):
    given = [
        patient("ada"),
        observation("a", "72166-2", category=[], valueCodeableConcept=coded("urn:quill", "feather")),
        observation("b", "72166-2", category=[], valueCodeableConcept=coded(SNOMED, "266919005")),
        event("Procedure", "p", status="completed", code=coded(PCS, "0DTJ4ZZ"), performedDateTime="2021"),
    ]
    loaded = load(given)
    assert set(loaded.column("observation", "value_as_string")) == {"|other", f"{SNOMED}|266919005"}
    assert loaded.column("procedure_occurrence", "procedure_source_value") == [f"{PCS}|0DTJ4ZZ"]


def test_a_race_that_is_no_category_is_not_copied(load):
    race = {
        "url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
        "extension": [{"url": "ombCategory", "valueCoding": {"code": "Quillfeather"}}],
    }
    assert load([patient("ada", extension=[race])]).column("person", "race_source_value") == [None]


@pytest.mark.parametrize("code", ["BARBARA", "HERBERT", "CHARLES", "M123456", "J99DOE", "1234567-4"])
def test_names_and_record_numbers_are_not_plain(code):
    assert not any(is_plain_code(system, code, SiteMap()) for system in (PCS, ICD10, LOINC, SNOMED))
    assert not is_plain_bare(code, SiteMap())


def test_a_nul_in_a_code_or_unit_does_not_carry_it_past_the_rule(load):
    given = [
        patient("ada"),
        observation("a", "", code=coded(LOINC, "SECRETNAME\0005")),
        observation("b", "", code=coded(LOINC, "x"), valueQuantity={"value": 1, "unit": "SECRET\0NAME"}),
    ]
    loaded = load(given)
    assert "SECRET" not in (loaded.folder / "accounting.json").read_text()
    assert not [row for row in loaded.rows("measurement") if "SECRET" in str(row)]
