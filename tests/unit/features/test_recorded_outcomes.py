"""Outcomes that somebody writes down: conditions and observations, on CDMs written by hand."""

from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from fedhealth.features import Attrition, Rows
from fedhealth.features.matching import has_code, has_value
from fedhealth.study import Study
from fedhealth.vocabulary.concepts import CONDITION_CONFIRMED, CONDITION_PRELIMINARY, CONDITION_REFUTED

Make = Callable[..., Study]
Build = Callable[[Study], tuple[Rows, Attrition]]
ICD = "http://hl7.org/fhir/sid/icd-10-cm|"
HEART = {"kind": "condition", "codes": [f"{ICD}I25*"], "within_days": 30}
SCORE = {
    "kind": "observation",
    "codes": ["urn:site:x|outcome-6m"],
    "within_days": 200,
    "positive": ["1", "2", "Dead"],
    "negative": ["3", "4"],
}


def stays_after(attrition: Attrition, name: str) -> int:
    return next(step.stays for step in attrition.steps if step.name == name)


def by_person(rows: Rows) -> dict[int, float]:
    return dict(zip(rows.person.tolist(), rows.labels[:, 0].tolist(), strict=True))


def after_a_visit(study: Make, **outcome: Any) -> Study:
    return study("readmission", outcomes={"it": outcome}, cohort={"index": {"visit": "outpatient"}})


def visits(cdm: Any, persons: int, *, until: float = 1000) -> None:
    for person in range(1, persons + 1):
        cdm.person(person, until=until)
        cdm.visit(cdm.at(0), cdm.at(0, 1), person_id=person, concept=9202)


def test_confirmed_is_yes_refuted_no_and_neither_no_label(cdm: Any, study: Make, build: Build) -> None:
    visits(cdm, 7)
    for person, (code, status) in enumerate(
        [
            ("I25.10", CONDITION_CONFIRMED),
            ("I25.10", None),
            ("I25.10", CONDITION_REFUTED),
            ("I25.10", CONDITION_PRELIMINARY),
            ("I21.0", CONDITION_CONFIRMED),
            ("I25.10", CONDITION_REFUTED),
        ],
        start=1,
    ):
        cdm.condition(ICD + code, cdm.at(3), visit=None, person_id=person, status=status)
    cdm.condition(ICD + "I25.9", cdm.at(9), visit=None, person_id=6, status=CONDITION_CONFIRMED)
    rows, attrition = build(after_a_visit(study, **HEART))
    assert by_person(rows) == {1: 1, 2: 1, 3: 0, 6: 1}
    assert stays_after(attrition, "confirmed or refuted within 30 days") == 4


def test_silence_is_a_no_only_where_the_study_says_so_and_the_patient_was_followed(
    cdm: Any, study: Make, build: Build
) -> None:
    visits(cdm, 2, until=30)
    visits_short = 3
    cdm.person(visits_short, until=29)
    cdm.visit(cdm.at(0), cdm.at(0, 1), person_id=visits_short, concept=9202)
    cdm.condition(ICD + "I25.10", cdm.at(3), visit=None, person_id=1)
    assert by_person(build(after_a_visit(study, **HEART))[0]) == {1: 1}
    rows, attrition = build(after_a_visit(study, **HEART, unrecorded="negative"))
    assert by_person(rows) == {1: 1, 2: 0}
    assert stays_after(attrition, "confirmed or refuted, or followed for 30 days") == 2


@pytest.mark.parametrize(
    ("days", "hours", "timed", "label"),
    [
        (-5, 0, False, None),  # before the visit: history, not the event
        (0, 0.5, True, "early"),
        (0, 1, True, "early"),
        (0, 1.1, True, 1),
        (0, 0, False, 1),  # a date is the end of its day, after the visit
        (30, 15, True, 1),  # the last day counts whole
        (30, 0, False, 1),
        (31, -7, True, None),
        (31, 0, False, None),
    ],
)
def test_the_window_opens_at_the_prediction_and_ends_with_its_last_day(
    cdm: Any, study: Make, build: Build, days: float, hours: float, timed: bool, label: float | str | None
) -> None:
    visits(cdm, 1)
    cdm.condition(ICD + "I25.10", cdm.at(days, hours), visit=None, timed=timed)
    rows, attrition = build(after_a_visit(study, **HEART))
    assert rows.labels.tolist() == ([[label]] if label == 1 else [])
    assert stays_after(attrition, "no event by the prediction") == (0 if label == "early" else 1)


def test_what_was_refuted_before_the_prediction_is_no_label(cdm: Any, study: Make, build: Build) -> None:
    visits(cdm, 1)
    cdm.condition(ICD + "I25.10", cdm.at(0, 0.5), visit=None, timed=True, status=CONDITION_REFUTED)
    assert len(build(after_a_visit(study, **HEART))[0]) == 0


def test_codes_match_as_they_came_or_by_the_concept_of_the_map(cdm: Any, study: Make, build: Build) -> None:
    visits(cdm, 4)
    cdm.condition("urn:house|KHK", cdm.at(3), visit=None, person_id=1, concept=321318)
    cdm.condition("urn:house|KHK", cdm.at(3), visit=None, person_id=2, concept=0)
    cdm.condition(ICD + "I25.10", cdm.at(3), visit=None, person_id=3, concept=321318)
    cdm.condition("urn:house|I25", cdm.at(3), visit=None, person_id=4, concept=316139)

    def found(*codes: str) -> list[int]:
        return build(after_a_visit(study, **{**HEART, "codes": list(codes)}))[0].person.tolist()

    assert found(f"{ICD}I25*") == [1, 3]
    assert found(f"{ICD}I25.10") == [3]
    assert found("omop|321318") == [1, 3]
    assert found("urn:house|KHK", "urn:house|I25") == [1, 2, 4]


def test_observed_values_are_texts_codes_or_numbers(cdm: Any, study: Make, build: Build) -> None:
    visits(cdm, 10)
    code = "urn:site:x|outcome-6m"
    seen: list[tuple[str, str | float, float]] = [
        (code, "2", 180),
        (code, "urn:site:x|2", 180),
        (code, 2.0, 180),
        (code, 4.0, 180),
        (code, "dead", 180),
        (code, "5", 180),
        (code, "1", 201),
        ("urn:site:x|other", "1", 180),
        (code, 4.0, 180),
    ]
    for person, (what, value, day) in enumerate(seen, start=1):
        cdm.observe(what, value, cdm.at(day), person_id=person, timed=False)
    cdm.observe(code, 1.0, cdm.at(190), person_id=9)
    rows, attrition = build(after_a_visit(study, **SCORE))
    assert by_person(rows) == {1: 1, 2: 1, 3: 1, 4: 0, 5: 1, 9: 1}
    assert stays_after(attrition, "observed within 200 days") == 6


def test_a_value_may_be_a_concept(cdm: Any, study: Make, build: Build) -> None:
    visits(cdm, 2)
    for person, value in ((1, 45877994), (2, 45878245)):
        cdm.observe("urn:x|q", "x", cdm.at(9), person_id=person, coded=value, concept=40766362)
    asked = {
        **SCORE,
        "codes": ["omop|40766362"],
        "positive": ["omop|45877994"],
        "negative": ["omop|45878245"],
    }
    assert by_person(build(after_a_visit(study, **asked))[0]) == {1: 1, 2: 0}


def test_texts_of_a_study_are_never_sql() -> None:
    hostile = "x|a' OR true OR '*"
    with duckdb.connect(":memory:") as database:
        database.execute("CREATE TABLE t AS SELECT 'y|b' AS code, 0 AS concept, 1.5::DOUBLE AS number")
        for condition in (
            has_code((hostile,), text="code", concept="concept", field="condition"),
            has_code((hostile.removesuffix("*"),), text="code", concept="concept", field="condition"),
            has_value((hostile, "inf", "nan"), text="code", number="number", concept="concept"),
        ):
            assert database.execute(f"SELECT {condition} FROM t").fetchall() == [(False,)]
            nothing = "FROM (SELECT NULL::VARCHAR AS code, NULL::INT AS concept, NULL::DOUBLE AS number)"
            assert database.execute(f"SELECT {condition} {nothing}").fetchall() == [(False,)]
