"""Which visits are index visits, why stays leave, and when predictions are made, on CDMs written by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedhealth.features import Attrition, Rows
from fedhealth.study import Study
from fedhealth.study.columns import feature_columns
from fedhealth.vocabulary.concepts import CONDITION_PRELIMINARY, CONDITION_REFUTED

Make = Callable[..., Study]
Build = Callable[[Study], tuple[Rows, Attrition]]
SOON = {"death": {"kind": "death", "within_days": 90}}
ICD = "http://hl7.org/fhir/sid/icd-10-cm|"
PCS = "http://www.cms.gov/Medicare/Coding/ICD10|"


def stays_after(attrition: Attrition, name: str) -> int:
    return next(step.stays for step in attrition.steps if step.name == name)


def column(rows: Rows, study: Study, name: str) -> list[float]:
    names = [each.name for each in feature_columns(study)]
    return [float(value) for value in rows.features[:, names.index(name)]]


@pytest.mark.parametrize(
    ("visit", "first", "stays", "patients"),
    [
        ("inpatient", "inpatient stays", 1, [1]),
        ("emergency", "emergency visits", 1, [2]),
        ("outpatient", "outpatient visits", 2, [3, 3]),
        ("any", "stays and visits", 5, [1, 2, 3, 3, 4]),
    ],
)
def test_each_kind_of_visit_is_an_index_of_its_own(
    cdm: Any, study: Make, build: Build, visit: str, first: str, stays: int, patients: list[int]
) -> None:
    for person in (1, 2, 3, 4):
        cdm.person(person)
    cdm.visit(cdm.at(0), cdm.at(2), discharged_to=8717)
    cdm.visit(cdm.at(2, 5), cdm.at(4), concept=262)
    cdm.visit(cdm.at(0), cdm.at(0, 3), person_id=2, concept=9203)
    cdm.visit(cdm.at(0), cdm.at(0, 1), person_id=3, concept=9202)
    cdm.visit(cdm.at(0, 2), cdm.at(0, 3), person_id=3, concept=581477)
    cdm.visit(cdm.at(0), cdm.at(0, 3), person_id=4, concept=0)
    cdm.visit(cdm.at(1), cdm.at(0), person_id=4, concept={"any": 0}.get(visit, 9201))
    at_discharge = study("readmission", outcomes=SOON, cohort={"index": {"visit": visit}})
    rows, attrition = build(at_discharge)
    assert (attrition.steps[0].name, attrition.steps[0].stays) == (first, stays)
    assert rows.person.tolist() == patients
    assert attrition.notes[0][1] == (1 if visit in ("any", "inpatient") else 0)


def test_an_emergency_visit_is_followed_by_the_admission_to_which_it_led(
    cdm: Any, study: Make, build: Build
) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(0, 5), concept=9203)
    cdm.visit(cdm.at(9), cdm.at(9, 5), concept=9203)
    cdm.visit(cdm.at(20), cdm.at(22))
    first = {"index": {"visit": "emergency", "take": "first"}}
    assert build(study("readmission", cohort=first))[0].labels.tolist() == [[1]]


@pytest.mark.parametrize("reason", ["psychiatric", "rehabilitation", "cancer"])
def test_stays_for_a_reason_leave(cdm: Any, study: Make, build: Build, reason: str) -> None:
    codes = {
        "psychiatric": (f"{ICD}F20.0", f"{PCS}GZB0ZZZ"),
        "rehabilitation": (f"{ICD}Z51.89", f"{PCS}F07L0ZZ"),
        "cancer": (f"{ICD}Z51.11", f"{PCS}D7020ZZ"),
    }
    for person in range(1, 8):
        cdm.person(person)
    visits = [cdm.visit(cdm.at(0), cdm.at(3), person_id=person) for person in range(1, 8)]
    diagnosis, procedure = codes[reason]
    known = {"timed": True}
    cdm.condition(diagnosis, cdm.at(1), visit=visits[0], person_id=1, **known)
    cdm.condition(diagnosis, cdm.at(1), visit=None, person_id=2, **known)
    cdm.procedure(procedure, cdm.at(1), person_id=3, visit=visits[2])
    cdm.condition(diagnosis, cdm.at(4), visit=visits[3], person_id=4, **known)
    cdm.condition(diagnosis, cdm.at(1), visit=visits[4], person_id=5, status=CONDITION_REFUTED, **known)
    cdm.condition(diagnosis, cdm.at(1), visit=visits[5], person_id=6, status=CONDITION_PRELIMINARY, **known)
    cdm.condition("http://snomed.info/sct|F20", cdm.at(1), visit=visits[6], person_id=7, **known)
    rows, attrition = build(study("readmission", cohort={"exclude": {"reasons": [reason]}}))
    assert rows.person.tolist() == [4, 5, 6, 7]
    assert stays_after(attrition, f"no {reason} reason") == 4
    everybody = build(study("readmission"))[0]
    assert len(everybody) == 7


def test_another_reason_does_not_exclude(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    visit = cdm.visit(cdm.at(0), cdm.at(3))
    cdm.condition(f"{ICD}F20", cdm.at(0), visit=visit)
    reasons = {"exclude": {"reasons": ["rehabilitation", "cancer"]}}
    assert len(build(study("readmission", cohort=reasons))[0]) == 1


def test_a_row_a_step_while_the_stay_goes_on(cdm: Any, study: Make, build: Build) -> None:
    cdm.person(2)
    cdm.person(1)
    cdm.visit(cdm.at(0), cdm.at(0, 24), person_id=2)
    cdm.visit(cdm.at(5), cdm.at(5, 6), person_id=2)
    cdm.visit(cdm.at(3), cdm.at(3, 7), person_id=1)
    cdm.visit(cdm.at(9), None, person_id=1)
    for hour in (1, 7, 13, 19, 23):
        cdm.measure("sodium", 100 + hour, cdm.at(0, hour), person_id=2)
    warning = study("death", prediction={"at": "every", "step_h": 6})
    rows, attrition = build(warning)
    # Stays of 24, 6 and 7 h: 6, 12, 18 h of the first, none of the second, 6 h of the third.
    assert rows.person.tolist() == [1, 2, 2, 2]
    assert column(rows, warning, "sodium_last")[1:] == [101, 107, 113]
    assert np.isnan(column(rows, warning, "sodium_last")[0])
    assert [step.stays for step in attrition.steps] == [4, 3, 3, 3, 2, 2]


def test_steps_end_with_the_event(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(0, 40), discharged_to=32218)
    cdm.die(cdm.at(0, 20))
    rows, _ = build(study("death", prediction={"at": "every", "step_h": 8}))
    assert rows.labels.tolist() == [[1], [1]]


def test_within_a_stay_nothing_before_it_is_used(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(1), cdm.at(3))
    cdm.measure("sodium", 120.0, cdm.at(1, -1))
    cdm.measure("sodium", 140.0, cdm.at(1, 3))
    warning = study("death", prediction={"at": "every", "step_h": 24})
    assert column(build(warning)[0], warning, "sodium_min") == [140]


@pytest.mark.parametrize(("take", "hours"), [("first", [30, 60]), ("last", [30]), ("every", [30, 60, 30])])
def test_the_first_stay_of_a_patient_with_all_its_steps(
    cdm: Any, study: Make, build: Build, take: str, hours: list[int]
) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(0, 70))
    cdm.visit(cdm.at(10), cdm.at(10, 50))
    rows, _ = build(
        study("death", prediction={"at": "every", "step_h": 30}, cohort={"index": {"take": take}})
    )
    assert len(rows) == len(hours)


def test_measured_hours_are_those_up_to_each_prediction(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(0, 25))
    for hour in (1, 7, 9, 15):
        cdm.measure("heart_rate", 80.0, cdm.at(0, hour))
    every = {"at": "every", "step_h": 6}

    def rows(**exclude: float) -> int:
        return len(build(study("death", prediction=every, cohort={"exclude": exclude}))[0])

    # Up to 6, 12, 18, 24 h there are 1, 3, 4, 4 hours, and gaps of 5, 6, 6, 9 h at most.
    assert [rows(measured_hours_under=n) for n in (1, 2, 4, 5)] == [4, 3, 2, 0]
    assert [rows(gap_over_h=n) for n in (9, 8, 5.5, 4)] == [4, 3, 1, 0]


def test_a_gap_is_one_of_every_prediction_after_it(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(0, 50))
    for hour in (1, *range(7, 50, 2)):
        cdm.measure("heart_rate", 80.0, cdm.at(0, hour))
    exclude = {"gap_over_h": 5.5}
    rows, _ = build(study("death", prediction={"at": "every", "step_h": 6}, cohort={"exclude": exclude}))
    assert len(rows) == 1
