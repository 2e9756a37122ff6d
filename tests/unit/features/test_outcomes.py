"""What the label of every kind of outcome is, and when it is not known, on CDMs written by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedhealth.features import Attrition, Rows
from fedhealth.study import Study

Make = Callable[..., Study]
Build = Callable[[Study], tuple[Rows, Attrition]]


def stays_after(attrition: Attrition, name: str) -> int:
    return next(step.stays for step in attrition.steps if step.name == name)


def by_person(rows: Rows) -> dict[int, float]:
    return dict(zip(rows.person.tolist(), rows.labels[:, 0].tolist(), strict=True))


def after_a_day(study: Make, **outcome: Any) -> Study:
    return study("death", outcomes={"it": outcome})


def test_death_after_discharge_counts_from_the_start_of_the_stay(cdm: Any, study: Make, build: Build) -> None:
    for person, (end, died, until) in enumerate(
        [(5, 9, 1000), (5, 11, 1000), (5, 5, 1000), (12, None, 1000), (5, None, 9), (5, None, 10)], start=1
    ):
        cdm.person(person, until=until)
        cdm.visit(cdm.at(0), cdm.at(end), person_id=person)
        if died is not None:
            cdm.die(cdm.at(died), person_id=person)
    late = study("readmission", outcomes={"it": {"kind": "death", "within_days": 10}})
    rows, attrition = build(late)
    assert by_person(rows) == {1: 1, 2: 0, 6: 0}
    names = ("alive at the prediction", "the window is open at the prediction", "followed for 10 days")
    assert [stays_after(attrition, name) for name in names] == [5, 4, 3]


def test_survival_is_cut_into_twelve_intervals_from_the_prediction(
    cdm: Any, study: Make, build: Build
) -> None:
    day = 1
    cases = {  # 120 days in intervals of ten, from 24 h after the start
        1: (day + 5, 1000, 1),  # died in the first
        2: (day + 10, 1000, 3),  # an interval begins with its first moment
        3: (day + 119.9, 1000, 23),
        4: (day + 120, 1000, 23),  # the horizon is in the last
        5: (day + 121, 1000, 24),  # died after it: lived through all
        6: (None, 1000, 24),
        7: (None, 41, 8),  # seen to the end of day 41, which is 40.67 days after the prediction
        8: (None, 120, 22),
        9: (None, 121, 24),
        10: (None, 0, None),
    }
    for person, (died, until, _) in cases.items():
        cdm.person(person, until=until)
        cdm.visit(cdm.at(0), cdm.at(5), person_id=person)
        if died is not None:
            cdm.die(cdm.at(died), person_id=person)
    rows, attrition = build(after_a_day(study, kind="survival", horizon_days=120))
    assert by_person(rows) == {person: label for person, (*_, label) in cases.items() if label is not None}
    assert stays_after(attrition, "seen after the prediction") == 9


def test_survival_starts_anew_at_every_step(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(25))
    cdm.die(cdm.at(30))
    survival = {"it": {"kind": "survival", "horizon_days": 120}}
    rows, _ = build(study("death", outcomes=survival, prediction={"at": "every", "step_h": 240}))
    assert rows.labels.tolist() == [[5], [3]]


def test_a_transfer_to_intensive_care_begins_after_the_prediction(
    cdm: Any, study: Make, build: Build
) -> None:
    starts = {1: cdm.at(1, 1), 2: cdm.at(0, 20), 3: None, 4: cdm.at(4), 5: cdm.at(0, 30), 6: cdm.at(2)}
    for person, start in starts.items():
        cdm.person(person)
        visit = cdm.visit(cdm.at(0), cdm.at(3), person_id=person, discharged_to=8717)
        other = cdm.visit(cdm.at(3, 20), cdm.at(5), person_id=person)
        if start is not None:
            which = other if person == 4 else visit
            concept = 9201 if person == 6 else 32037
            cdm.intensive_care(which, start, person_id=person, timed=person != 5, concept=concept)
    rows, attrition = build(after_a_day(study, kind="icu_transfer"))
    assert by_person(rows) == {1: 1, 3: 0, 4: 1, 5: 1, 6: 0}
    assert stays_after(attrition, "not in intensive care by the prediction") == 5


def test_a_site_without_intensive_care_on_record_knows_no_transfer(
    cdm: Any, study: Make, build: Build
) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(3))
    rows, attrition = build(after_a_day(study, kind="icu_transfer"))
    assert len(rows) == 0
    assert stays_after(attrition, "intensive care is on record at the site") == 0


def test_the_length_of_stay_is_in_days_and_ends_at_its_bound(cdm: Any, study: Make, build: Build) -> None:
    for person, days in enumerate((1.5, 30, 45, 1), start=1):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(days), person_id=person)
    rows, _ = build(after_a_day(study, kind="length_of_stay"))
    assert by_person(rows) == {1: 1.5, 2: 30, 3: 30}


def test_a_long_stay_is_longer_than_so_many_days(cdm: Any, study: Make, build: Build) -> None:
    for person, days in enumerate((7, 7.01, 2), start=1):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(days), person_id=person, discharged_to=32218 if person == 3 else 8536)
    rows, _ = build(after_a_day(study, kind="length_of_stay", over_days=7))
    assert by_person(rows) == {1: 0, 2: 1, 3: 0}
    without = after_a_day(study, kind="length_of_stay", over_days=7, missing_if=["died_in_stay"])
    assert by_person(build(without)[0]) == {1: 0, 2: 1}


def test_steps_end_when_the_length_is_settled(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(5))
    long = {"it": {"kind": "length_of_stay", "over_days": 2}}
    rows, _ = build(study("death", outcomes=long, prediction={"at": "every", "step_h": 24}))
    assert rows.labels.tolist() == [[1]]


def test_dispositions_are_classes_and_unknown_ones_no_label(cdm: Any, study: Make, build: Build) -> None:
    places = (8536, 38004519, 8863, 8717, 32218, 32216, 0, None, 8536)
    for person, place in enumerate(places, start=1):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(5), person_id=person, discharged_to=place)
    cdm.die(cdm.at(4), person_id=9)
    rows, attrition = build(after_a_day(study, kind="disposition"))
    assert by_person(rows) == {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 9: 4}
    assert stays_after(attrition, "went to one of the classes") == 6
    fewer = build(after_a_day(study, kind="disposition", classes=["facility", "home"]))[0]
    assert by_person(fewer) == {1: 1, 3: 0}


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({10: 1.0, 30: 1.1}, 0),
        ({20: 1.0, 40: 1.3}, 1),
        ({20: 1.1, 40: 1.4}, 1),  # 1.4 - 1.1 is less than 0.3 in binary
        ({20: 1.0, 40: 1.29}, 0),
        ({20: 1.0, 68: 1.3}, 1),
        ({20: 1.0, 69: 1.3}, 0),  # 49 h: neither 0.3 in 48 h nor half as much again
        ({20: 1.0, 69: 1.5}, 1),
        ({20: 1.1, 69: 1.65}, 1),
        ({-20: 1.0, 30: 1.4, 40: 1.3}, 0),
        ({-20: 1.0, 25: 1.4, 40: 1.3}, 1),  # what was measured before the stay is a level to rise from
        ({-150: 1.0, 17: 1.5, 18: 1.5}, None),  # by the prediction
        ({10: 1.0, 24: 1.3, 40: 2.0}, None),
        ({40: 1.3}, None),  # one value shows no rise
        ({-1: 1.0, 40: 1.3}, None),
        ({10: 4.1, 40: 4.5}, None),
        ({-30: 3.9, 10: 4.1, 40: 4.5}, 1),
        ({10: 4.1, 30: 4.0, 40: 4.5}, None),  # the baseline is what was known by the prediction
        ({10: 4.1, 24: 4.0, 40: 4.5}, 1),
        ({30: 5.0, 40: 5.0}, 0),
    ],
)
def test_kidney_injury_is_a_rise_of_creatinine_after_the_prediction(
    cdm: Any, study: Make, build: Build, values: dict[float, float], label: float | None
) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(5))
    for hours, value in values.items():
        cdm.measure("creatinine", value, cdm.at(0, hours))
    rows, _ = build(after_a_day(study, kind="kidney_injury"))
    assert rows.labels.tolist() == ([] if label is None else [[label]])


def test_values_of_one_moment_show_no_rise(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(5))
    cdm.measure("creatinine", 1.4, cdm.at(0, 40))
    cdm.measure("creatinine", 1.0, cdm.at(0, 40))
    assert build(after_a_day(study, kind="kidney_injury"))[0].labels.tolist() == [[0]]


def test_who_has_no_kidney_function_has_no_kidney_injury(cdm: Any, study: Make, build: Build) -> None:
    for person in range(1, 5):
        cdm.person(person)
        visit = cdm.visit(cdm.at(0), cdm.at(5), person_id=person)
        for hours, value in ((10, 1.0), (40, 2.0)):
            cdm.measure("creatinine", value, cdm.at(0, hours), person_id=person)
        if person == 1:
            cdm.condition("N18.6", cdm.at(-900), visit=None, person_id=1)
        if person == 2:
            cdm.procedure("5A1D70Z", cdm.at(0, 5), person_id=2, visit=visit)
        if person == 3:
            cdm.condition("N18.6", cdm.at(3), visit=visit, person_id=3)
    rows, attrition = build(after_a_day(study, kind="kidney_injury"))
    assert by_person(rows) == {3: 1, 4: 1}
    assert stays_after(attrition, "no end-stage kidney disease") == 2


def kdigo(values: list[tuple[float, float]], *, days: float, onset_after_h: float) -> float | None:
    """The label of a stay from time 0 with a prediction at 24 h, by the words of the definition."""
    rises = [
        hour
        for hour, value in values
        if 0 <= hour <= 24 * days
        and any(
            (hour - 48 <= before < hour and round(value - low, 6) >= 0.3)
            or (hour - 168 <= before < hour and round(value - 1.5 * low, 6) >= 0)
            for before, low in values
        )
    ]
    baseline = [value for hour, value in values if -168 <= hour <= 24]
    if baseline and min(baseline) > 4.0:
        return None
    if any(hour < onset_after_h or hour <= 24 for hour in rises):
        return None
    if sum(0 <= hour <= 24 * days for hour, _ in values) < 2:
        return None
    return float(bool(rises))


@pytest.mark.parametrize("onset_after_h", [0, 24, 48])
def test_kidney_injury_is_that_of_the_definition_word_by_word(
    cdm: Any, study: Make, build: Build, onset_after_h: float
) -> None:
    generator = np.random.default_rng(7)
    expected = {}
    for person in range(1, 201):
        days = float(generator.integers(2, 9))
        hours = np.sort(generator.integers(-200, int(24 * days) + 20, size=generator.integers(0, 8)))
        level = generator.choice([0.8, 1.5, 4.2])
        values = [
            (float(hour), round(float(level + generator.integers(0, 4) * 0.15), 2))
            for hour in hours  # several may be of one hour
        ]
        expected[person] = kdigo(values, days=days, onset_after_h=onset_after_h)
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(days), person_id=person)
        for hour, value in values:
            cdm.measure("creatinine", value, cdm.at(0, hour), person_id=person)
    rows, _ = build(after_a_day(study, kind="kidney_injury", onset_after_h=onset_after_h))
    known = {person: label for person, label in expected.items() if label is not None}
    assert by_person(rows) == known
    assert {0.0, 1.0} == set(known.values())
    assert len(known) < len(expected)


def test_warnings_of_kidney_injury_end_with_its_onset(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(5))
    for hours, value in ((10, 1.0), (40, 1.4), (60, 1.0)):
        cdm.measure("creatinine", value, cdm.at(0, hours))
    outcomes = {"it": {"kind": "kidney_injury", "onset_after_h": 0}}
    rows, _ = build(study("death", outcomes=outcomes, prediction={"at": "every", "step_h": 12}))
    assert rows.labels.tolist() == [[1], [1], [1]]


def test_an_event_too_early_is_that_of_the_outcome(cdm: Any, study: Make, build: Build) -> None:
    for person, hour in ((1, 29), (2, 31)):
        cdm.person(person)
        visit = cdm.visit(cdm.at(0), cdm.at(5), person_id=person)
        cdm.intensive_care(visit, cdm.at(0, hour), person_id=person)
    icu = {"it": {"kind": "icu_transfer"}}
    rows, attrition = build(study("death", outcomes=icu, cohort={"exclude": {"event_before_h": 30}}))
    assert by_person(rows) == {2: 1}
    assert stays_after(attrition, "no event before 30 h") == 1
