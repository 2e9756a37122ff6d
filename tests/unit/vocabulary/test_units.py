"""Units: every spelling that hospitals use ends in UCUM, every conversion keeps the quantity."""

import pytest

from fedhealth.vocabulary.concepts import MEASUREMENTS, SERIES_CONCEPTS, STATIC_CONCEPTS, UNITS
from fedhealth.vocabulary.site_map import SiteMap
from fedhealth.vocabulary.units import (
    UCUM,
    conversion,
    conversions,
    convert,
    plausible_units,
    site_unit,
    ucum,
)

ID = {
    name: each[0].concept_id for group in (SERIES_CONCEPTS, STATIC_CONCEPTS) for name, each in group.items()
}


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        *(("mmHg", "mm[Hg]"), ("mm Hg", "mm[Hg]"), ("MMHG", "mm[Hg]")),
        *(("{beats}/min", "/min"), ("beats/min", "/min"), ("{Breaths}/min", "/min"), ("bpm", "/min")),
        *(("°F", "[degF]"), ("deg C", "Cel"), ("Cel", "Cel"), ("C", "Cel")),
        *(("K/uL", "10*3/uL"), ("x10^3/uL", "10*3/uL"), ("10*9/L", "10*9/L"), ("cells/mm3", "/uL")),
        *(("MG/DL", "mg/dL"), ("mEq/L", "meq/L"), ("µmol/L", "umol/L"), ("μmol/L", "umol/L")),
        *(("G/L", "g/L"), ("K", "K"), ("IU/L", "U/L"), ("mL/(24.h)", "mL"), (" kg ", "kg")),
        *(("", ""), ("{score}", ""), ("furlong", "furlong")),
    ],
)
def test_a_spelling_becomes_its_ucum_code(spelling, code):
    assert ucum(spelling) == code
    assert ucum(code) == code


@pytest.mark.parametrize(
    ("name", "unit", "value", "expected"),
    [
        ("glucose", "mmol/L", 1, 18.0156),  # 180.156 g/mol
        ("creatinine", "umol/L", 100, 1.1312),
        ("urea_nitrogen", "mmol/L", 1, 2.8014),
        ("calcium", "mmol/L", 1, 4.0078),
        ("calcium", "meq/L", 1, 2.0039),
        ("lactate", "mg/dL", 9.008, 1),
        ("haemoglobin", "mmol/L", 1, 1.6114),
        ("haemoglobin", "g/L", 10, 1),
        ("sodium", "meq/L", 140, 140),
        ("temperature", "[degF]", 212, 100),
        ("temperature", "[degF]", -40, -40),
        ("temperature", "K", 273.15, 0),
        ("systolic_bp", "kPa", 101.325, 760),
        ("spo2", "1", 0.97, 97),
        ("platelets", "/uL", 1000, 1),
        ("platelets", "10*9/L", 250, 250),
        ("weight", "[lb_av]", 1, 0.45359237),
        ("height", "[in_i]", 10, 25.4),
        ("urine_output", "L", 1.5, 1500),
    ],
)
def test_a_conversion_keeps_the_quantity(name, unit, value, expected):
    found = convert(ID[name], unit)
    assert value * found.factor + found.offset == pytest.approx(expected, rel=3e-4, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("calcium", "U/L"), ("creatinine", "meq/L"), ("lactate", "meq/L"), ("weight", "cm"), ("heart_rate", "")],
)
def test_a_unit_of_another_quantity_has_no_conversion(name, unit):
    assert convert(ID[name], unit) is None


@pytest.mark.parametrize(
    ("unit", "target", "names", "value", "expected"),
    [
        ("mg/dL", "mmol/L", ["glucose"], 18.0156, 1.0),
        ("umol/L", "mmol/L", ["creatinine"], 100.0, 0.1),
        ("umol/L", "mmol/L", [], 100.0, 0.1),
        ("g/dL", "mg/dL", ["creatinine"], 0.001, 1.0),
        ("[degF]", "K", [], 212.0, 373.15),
        ("K", "[degF]", ["temperature"], 273.15, 32.0),
        ("mEq/L", "mmol/L", ["sodium", "potassium"], 140.0, 140.0),
        ("{points}", "{score}", [], 4.0, 4.0),
        ("", "1", [], 4.0, 4.0),
        ("%", "1", [], 97.0, 0.97),
        ("in", "cm", [], 10.0, 25.4),
        ("mmol/mol", "mmol/mol", ["glucose"], 40.0, 40.0),
    ],
)
def test_a_unit_is_converted_to_any_other_of_its_quantity(unit, target, names, value, expected):
    found = conversion(unit, target, concept_ids=[ID[name] for name in names])
    assert value * found.factor + found.offset == pytest.approx(expected, rel=3e-4)


@pytest.mark.parametrize(
    ("unit", "target", "names"),
    [
        ("mmol/L", "mg/dL", []),
        ("mmol/L", "mg/dL", ["glucose", "creatinine"]),
        ("mmol/L", "mg/dL", ["glucose", "sodium"]),
        ("meq/L", "mmol/L", []),
        ("meq/L", "mmol/L", ["lactate"]),
        ("kg", "cm", []),
        ("", "mg/dL", ["glucose"]),
        ("mg/dL", "{score}", []),
        ("furlong", "cm", []),
    ],
)
def test_what_needs_a_substance_that_is_not_known_or_is_another_quantity_is_not_converted(
    unit, target, names
):
    assert conversion(unit, target, concept_ids=[ID[name] for name in names]) is None


@pytest.mark.parametrize("concept_id", MEASUREMENTS)
def test_every_measurement_keeps_its_own_unit_and_may_have_been_in_each_plausible_one(concept_id):
    canonical = MEASUREMENTS[concept_id].unit
    assert canonical in UNITS
    assert conversions(concept_id)[canonical].factor == 1
    for plausible in plausible_units(concept_id):
        assert plausible.low < plausible.high
        assert plausible.conversion == convert(concept_id, plausible.unit)


def test_the_sites_unit_comes_before_the_known_spellings():
    site_map = SiteMap(codes={("urn:x", "K/uL"): (UCUM, "/uL"), ("urn:y", "C"): ("urn:z", "other")})
    assert site_unit("K/uL", "", site_map) == "/uL"
    assert site_unit("C", "urn:y", site_map) == "Cel"
