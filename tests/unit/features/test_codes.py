"""Which rows a study's codes address."""

import duckdb
import pytest

from fedhealth.features.codes import CodeSet
from fedhealth.features.matching import has_code, sql_text

LOINC, ICD = "http://loinc.org", "http://hl7.org/fhir/sid/icd-10-cm"


@pytest.mark.parametrize(
    ("codes", "field", "source", "concept", "answer"),
    [
        ((f"{LOINC}|2160-0",), "measurement", f"{LOINC}|2160-0", 0, True),
        ((f"{LOINC}|2160-0",), "measurement", f"{LOINC}|2160-01", 0, False),
        ((f"{LOINC}|2160-0",), "measurement", "2160-0", 0, False),
        ((f"{LOINC}|2160-0",), "measurement", "urn:house|crea", 3016723, True),
        ((f"{LOINC}|1558-6",), "measurement", "urn:house|crea", 0, False),
        ((f"{ICD}|E11*",), "condition", f"{ICD}|E11.65", 0, True),
        ((f"{ICD}|E11*",), "condition", f"{ICD}|E1165", 0, True),
        ((f"{ICD}|E11*",), "condition", f"{ICD}|E10.9", 0, False),
        ((f"{ICD}|E11*",), "condition", "urn:house|sugar", 201826, True),
        ((f"{ICD}|E11.6*",), "condition", "urn:house|sugar", 201826, False),
        ((f"{ICD}|E1*",), "condition", "urn:house|sugar", 201826, True),
        ((f"{ICD}|E1*",), "condition", "urn:house|pressure", 320128, False),
        (("omop|3016723",), "measurement", None, 3016723, True),
        (("omop|3016723",), "measurement", "omop|3016723x", None, False),
        (("omop|3016723",), "measurement", None, None, False),
        (("urn:a|x", "urn:b|y*"), "procedure", "urn:b|y1", 0, True),
        (("urn:a|x", "urn:b|y*"), "procedure", "urn:a|x1", 0, False),
    ],
)
def test_a_code_addresses_itself_its_prefix_or_its_concept(codes, field, source, concept, answer):
    assert CodeSet.of(codes, field=field).holds(source, concept) is answer


@pytest.mark.parametrize(
    ("source", "answer"),
    [("aspirin", True), ("ASPIRIN", True), ("urn:x|Aspirin", True), ("aspirin 100 mg", False), (None, False)],
)
def test_a_text_is_the_source_value_or_its_code_whatever_the_case(source, answer):
    assert CodeSet.of((), field="drug", texts=("Aspirin",)).holds(source, 0) is answer


@pytest.mark.parametrize(
    "codes", [(f"{ICD}|E11*",), (f"{ICD}|E1*", "omop|5"), (f"{ICD}|E11.6*",), ("urn:a|x",)]
)
@pytest.mark.parametrize("concept", [5, 201826, 320128, 0])
def test_a_feature_and_an_outcome_read_the_same_codes_alike(codes, concept):
    for source in (f"{ICD}|E11.65", f"{ICD}|E10", "urn:a|x", "urn:a|x1", "it's"):
        condition = has_code(codes, text=sql_text(source), concept=str(concept), field="condition")
        ((answer,),) = duckdb.sql(f"SELECT {condition}").fetchall()
        assert CodeSet.of(codes, field="condition").holds(source, concept) is answer
