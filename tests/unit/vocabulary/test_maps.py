"""From a coding to a concept: the site's map, then ours, then a prefix, then 0; a wrong map is refused."""

import json
from typing import get_args

import pytest
from simulator.hospital import ACT, DISPOSITION, ICD10, LOINC, write_files

from fedhealth.errors import ConfigError
from fedhealth.vocabulary.concepts import MEASUREMENTS, NAMES
from fedhealth.vocabulary.maps import Coding, Field, best_match, match_coding, shipped_codes
from fedhealth.vocabulary.site_map import OMOP_SYSTEM, SiteMap, read_site_map

NONE = SiteMap()


def site(*rows):
    return SiteMap(codes=dict(rows))


def found(system, code, field, site_map=NONE):
    match = match_coding(Coding(system, code), field=field, site_map=site_map)
    return match.concept_id, match.served


@pytest.mark.parametrize(
    ("system", "code", "field", "expected"),
    [
        (LOINC, "8867-4", "measurement", (3027018, "shipped")),
        (LOINC, "0000-0", "measurement", (0, "none")),
        ("", "8867-4", "measurement", (0, "none")),
        (ICD10, "I50.22", "condition", (316139, "prefix")),
        (ICD10, "I5", "condition", (0, "none")),
        (ACT, "IMP", "class", (9201, "shipped")),
        (ACT, "IMP", "disposition", (0, "none")),
        (DISPOSITION, "exp", "disposition", (32218, "shipped")),
        ("http://www.nubc.org/patient-discharge", "06", "disposition", (38004519, "shipped")),
        (LOINC, "8867-4", "drug", (0, "none")),
    ],
)
def test_a_coding_has_the_concept_of_its_field_alone(system, code, field, expected):
    assert found(system, code, field) == expected


def test_the_sites_map_is_followed_first_and_one_step_only():
    there = site((("urn:x", "1"), (LOINC, "8867-4")), ((LOINC, "8867-4"), (LOINC, "2160-0")))
    assert found("urn:x", "1", "measurement", there) == (3027018, "site")
    assert found(LOINC, "8867-4", "measurement", there) == (3016723, "site")


def test_a_sites_map_may_name_the_concept_and_only_a_number_is_one():
    there = site((("urn:x", "1"), (OMOP_SYSTEM, "42")), (("urn:x", "2"), (OMOP_SYSTEM, "forty-two")))
    assert found("urn:x", "1", "procedure", there) == (42, "site")
    assert found("urn:x", "2", "procedure", there) == (0, "none")


@pytest.mark.parametrize(
    ("number", "is_refused"),
    [("2147483647", False), ("2147483648", True), ("9" * 5000, True), ("²", True), ("x", False)],
)
def test_a_number_that_is_no_concept_id_is_refused_with_a_fix(tmp_path, number, is_refused):
    element = {"code": "A", "target": [{"code": number, "equivalence": "equivalent"}]}
    group = {"source": "urn:x", "target": OMOP_SYSTEM, "element": [element]}
    document = json.dumps({"resourceType": "ConceptMap", "group": [group]}).encode()
    folder = write_files(tmp_path, {"m.json": document})
    if not is_refused:
        assert read_site_map(folder).codes
        return
    with pytest.raises(ConfigError, match=r"m\.json maps a code to a number .* Fix: name a concept"):
        read_site_map(folder)


@pytest.mark.parametrize(
    ("codings", "chosen"),
    [
        ([Coding("urn:x", "1"), Coding(LOINC, "8867-4")], "8867-4"),
        ([Coding(LOINC, "8867-4"), Coding(LOINC, "2160-0", is_user_selected=True)], "2160-0"),
        ([Coding(LOINC, "8867-4"), Coding(LOINC, "2160-0")], "8867-4"),
        ([Coding("urn:x", "1"), Coding(LOINC, "0-0")], "0-0"),
        ([Coding("urn:x", "1", is_user_selected=True), Coding(LOINC, "0-0")], "1"),
        ([Coding("urn:x", ""), Coding("urn:x", "2")], "2"),
    ],
)
def test_of_several_codings_the_mapped_then_the_selected_then_the_standard_one_is_kept(codings, chosen):
    assert best_match(codings, field="measurement", site_map=NONE).coding.code == chosen


def test_no_code_is_no_match():
    assert best_match([Coding(LOINC, "")], field="measurement", site_map=NONE) is None


@pytest.mark.parametrize("field", ["measurement", "class", "disposition"])
def test_every_shipped_target_is_a_concept_that_we_can_name(field):
    assert set(shipped_codes(field).values()) <= set(NAMES)


def test_every_series_feature_has_a_loinc_code_unless_it_is_by_cuff():
    mapped = set(shipped_codes("measurement").values())
    assert {concept for concept in MEASUREMENTS if concept not in mapped} == {21492239, 21492240, 21492241}


def test_every_shipped_code_has_a_system():
    for field in get_args(Field):
        assert all(system and code for system, code in shipped_codes(field))


def concept_map(*elements, **fields):
    group = {"source": "urn:x", "target": LOINC, "element": list(elements)}
    return json.dumps({"resourceType": "ConceptMap", "group": [group]} | fields).encode()


def element(code, *targets, equivalence="equivalent"):
    return {"code": code, "target": [{"code": target, "equivalence": equivalence} for target in targets]}


def test_a_site_map_is_its_concept_maps_and_its_settings(tmp_path):
    write_files(
        tmp_path,
        {
            "lab.json": concept_map(element("1", "8867-4"), element("2", "2160-0", equivalence="wider")),
            "not.json": concept_map(element("3", "8867-4", equivalence="unmatched"), element("4")),
            "site.yaml": b"time_zone: Europe/Berlin\nextract_date: 2024-12-31\nunit_inference: true\n",
            "notes.txt": b"ignored",
        },
    )
    read = read_site_map(tmp_path)
    assert read.codes == {("urn:x", "1"): (LOINC, "8867-4"), ("urn:x", "2"): (LOINC, "2160-0")}
    assert (read.settings.time_zone, str(read.settings.extract_date)) == ("Europe/Berlin", "2024-12-31")
    assert read.settings.unit_inference
    assert read.digest != SiteMap().digest


def test_no_site_map_and_an_empty_folder_are_the_same(tmp_path):
    assert read_site_map(None) == read_site_map(tmp_path) == SiteMap()


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a.json": concept_map(element("1", "a", "b"))}, "a.json maps a code in two ways"),
        (
            {"a.json": concept_map(element("1", "a")), "b.json": concept_map(element("1", "b"))},
            "b.json maps a code in two ways",
        ),
        ({"a.json": b'{"resourceType":"ValueSet"}'}, "a.json is not a FHIR R4 ConceptMap"),
        ({"a.json": b"SECRETWORD"}, "a.json is not a FHIR R4 ConceptMap"),
        ({"site.yaml": b"time_zon: UTC"}, "site.yaml is wrong \\(time_zon\\)"),
        ({"site.yaml": b"time_zone: Mars/SECRETWORD"}, "site.yaml is wrong \\(time_zone\\)"),
        ({"site.yaml": b"time_zone: /etc/passwd"}, "site.yaml is wrong \\(time_zone\\)"),
        ({"site.yaml": b"extract_date: SECRETWORD"}, "site.yaml is wrong \\(extract_date\\)"),
        ({"site.yaml": b"- a\n- b"}, "site.yaml is wrong"),
        ({"site.yaml": b"{"}, "site.yaml is wrong"),
        ({"site.yaml": b"admission_classes: IMP"}, "site.yaml is wrong \\(admission_classes\\)"),
    ],
)
def test_a_wrong_site_map_is_refused_by_file_and_key_and_never_quoted(tmp_path, files, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        read_site_map(write_files(tmp_path, files))
    assert "SECRETWORD" not in str(caught.value)


def test_a_missing_site_map_folder_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_site_map(tmp_path / "none")
