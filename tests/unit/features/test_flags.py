"""Conditions, drugs and procedures: what was on record at the prediction."""

from collections.abc import Callable
from typing import Any

import pytest

from fedhealth.features import Attrition, Rows
from fedhealth.study import Study
from fedhealth.study.columns import numeric_columns
from fedhealth.vocabulary.concepts import CONDITION_CONFIRMED, CONDITION_REFUTED

Make = Callable[..., Study]
Build = Callable[[Study], tuple[Rows, Attrition]]
ICD = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
ONLY = {"preset": None, "statics": []}
DIABETES = {"name": "diabetes", "codes": [f"{ICD}|E11*"], "look_back_days": 365}


@pytest.fixture
def flags(cdm: Any, study: Make, build: Build) -> Callable[..., list[float]]:
    """The flags of the one stay, from day 0 to its discharge on day 5."""

    def run(**sections: Any) -> list[float]:
        cdm.person()
        cdm.visit(cdm.at(0), cdm.at(5))
        found: list[float] = (
            build(study("readmission", features={**ONLY, **sections}))[0].features[0].tolist()
        )
        return found

    return run


@pytest.mark.parametrize(
    ("days", "code", "status", "expected"),
    [
        (-10, f"{ICD}|E11.9", None, 1),
        (-10, f"{ICD}|E11.9", CONDITION_CONFIRMED, 1),
        (-10, f"{ICD}|E11.9", CONDITION_REFUTED, 0),
        (-10, f"{ICD}|E10.9", None, 0),
        (5 - 366.5, f"{ICD}|E11.9", None, 0),
        (5 - 364.5, f"{ICD}|E11.9", None, 1),
        (4, f"{ICD}|E11.9", None, 1),
        (5, f"{ICD}|E11.9", None, 0),
        (6, f"{ICD}|E11.9", None, 0),
    ],
)
def test_a_condition_of_no_visit_counts_from_the_end_of_its_day(
    cdm: Any, flags: Any, days: float, code: str, status: int | None, expected: int
) -> None:
    cdm.condition(code, cdm.at(days), visit=None, status=status)
    assert flags(conditions=[DIABETES]) == [expected]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(-20, -18, 1), (-3, 0, 1), (-3, 0.01, 0), (-20, None, 0), (20, 22, 0)],
)
def test_a_condition_of_a_visit_counts_once_that_visit_was_over_before_the_stay(
    cdm: Any, flags: Any, start: float, end: float | None, expected: int
) -> None:
    visit = cdm.visit(cdm.at(start), None if end is None else cdm.at(end), concept=9202)
    cdm.condition(f"{ICD}|E11.9", cdm.at(-30), visit=visit)
    assert flags(conditions=[DIABETES]) == [expected]


def test_a_diagnosis_of_the_stay_itself_may_be_coded_after_it_and_does_not_count(
    cdm: Any, study: Make, build: Build
) -> None:
    cdm.person()
    stay = cdm.visit(cdm.at(0), cdm.at(5))
    cdm.condition(f"{ICD}|E11.9", cdm.at(-1), visit=stay)
    cdm.condition(f"{ICD}|E11.9", cdm.at(-1), visit=9_999)
    assert build(study("readmission", features={**ONLY, "conditions": [DIABETES]}))[0].features.tolist() == [
        [0]
    ]


def test_of_two_rows_one_refuted_the_other_counts(cdm: Any, flags: Any) -> None:
    cdm.condition(f"{ICD}|E11.9", cdm.at(-9), visit=None, status=CONDITION_REFUTED)
    cdm.condition(f"{ICD}|E11.9", cdm.at(-9), visit=None, status=CONDITION_CONFIRMED)
    assert flags(conditions=[DIABETES]) == [1]


ASPIRIN = {
    "name": "aspirin",
    "codes": [f"{RXNORM}|1191", "omop|1112807"],
    "text": ["Aspirin"],
    "window_h": [-72, -1],
}


@pytest.mark.parametrize(
    ("source", "concept", "hours", "expected"),
    [
        (f"{RXNORM}|1191", 0, -2, 1),
        (f"{RXNORM}|11910", 0, -2, 0),
        ("urn:house|asa", 1112807, -2, 1),
        ("ASPIRIN", 0, -2, 1),
        ("urn:house|aspirin", 0, -2, 1),
        (None, 0, -2, 0),
        (f"{RXNORM}|1191", 0, -72, 1),
        (f"{RXNORM}|1191", 0, -72.1, 0),
        (f"{RXNORM}|1191", 0, -1, 1),
        (f"{RXNORM}|1191", 0, -0.9, 0),
        (f"{RXNORM}|1191", 0, 1, 0),
    ],
)
def test_a_drug_counts_if_it_began_in_the_window(
    cdm: Any, flags: Any, source: str | None, concept: int, hours: float, expected: int
) -> None:
    cdm.drug(source, cdm.at(5, hours), concept=concept)
    assert flags(drugs=[ASPIRIN]) == [expected]


def test_flags_stand_in_the_order_of_their_columns_and_by_person(cdm: Any, study: Make, build: Build) -> None:
    for person in (1, 2):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(5), person_id=person)
    cdm.condition(f"{ICD}|E11.9", cdm.at(-9), visit=None)
    cdm.drug("aspirin", cdm.at(4), person_id=2)
    cdm.procedure("urn:x|dialysis", cdm.at(4), person_id=1)
    cdm.procedure("urn:x|transplant", cdm.at(-40), person_id=2)
    procedures = [
        {"name": "dialysis", "codes": ["urn:x|dialysis"], "look_back_days": 30},
        {"name": "transplant", "codes": ["urn:x|trans*"], "look_back_days": 30},
    ]
    hypertension = {"name": "hypertension", "codes": [f"{ICD}|I10*"]}
    features = {**ONLY, "conditions": [hypertension, DIABETES], "drugs": [ASPIRIN], "procedures": procedures}
    asked = study("readmission", features=features)
    names = [column.name for column in numeric_columns(asked)]
    assert names == ["hypertension", "diabetes", "aspirin", "dialysis", "transplant"]
    assert build(asked)[0].features.tolist() == [[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]
