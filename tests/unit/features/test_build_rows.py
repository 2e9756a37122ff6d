"""Cohort, labels and features on CDMs that were written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedhealth.errors import DataError
from fedhealth.features import Attrition, Rows, build_rows
from fedhealth.features.folds import fold
from fedhealth.study import Study
from fedhealth.study.columns import feature_columns
from fedhealth.vocabulary.concepts import CONDITION_REFUTED

Make = Callable[..., Study]
Build = Callable[[Study], tuple[Rows, Attrition]]


def named(rows: Rows, study: Study, row: int = 0) -> dict[str, float]:
    names = [column.name for column in feature_columns(study)]
    return dict(zip(names, (float(value) for value in rows.features[row]), strict=True))


def stays_after(attrition: Attrition, name: str) -> int:
    return next(step.stays for step in attrition.steps if step.name == name)


def test_summaries_are_those_of_the_window_before_discharge(cdm: Any, study: Make, build: Build) -> None:
    readmission = study("readmission")
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(5))
    cdm.measure("creatinine", 9.0, cdm.at(2, 23))
    cdm.measure("creatinine", 1.0, cdm.at(3, 1))
    cdm.measure("creatinine", 3.0, cdm.at(4, 1))
    cdm.measure("creatinine", 2.0, cdm.at(5))
    cdm.measure("creatinine", 8.0, cdm.at(5, 1))
    rows, _ = build(readmission)
    found = named(rows, readmission)
    assert [found[f"creatinine_{name}"] for name in ("last", "min", "max", "mean", "missing")] == [
        2,
        1,
        3,
        2,
        0,
    ]
    hours = np.array([-47.0, -23.0, 0.0])
    assert found["creatinine_slope"] == pytest.approx(np.polyfit(hours / 24, [1.0, 3.0, 2.0], 1)[0], abs=1e-6)
    assert found["lactate_missing"] == 1
    assert np.isnan(found["lactate_last"])
    assert rows.features.dtype == np.float32
    assert rows.features.shape == (1, 128)


def test_after_admission_nothing_before_it_is_used(cdm: Any, study: Make, build: Build) -> None:
    death = study("death")
    cdm.person()
    cdm.visit(cdm.at(1), cdm.at(5))
    cdm.measure("sodium", 120.0, cdm.at(1, -1))
    cdm.measure("sodium", 140.0, cdm.at(1, 3))
    cdm.measure("sodium", 150.0, cdm.at(2, 1))
    found = named(build(death)[0], death)
    assert (found["sodium_min"], found["sodium_max"]) == (140, 140)
    assert np.isnan(found["sodium_slope"])


def test_every_concept_of_a_feature_counts_and_impossible_values_do_not(
    cdm: Any, study: Make, build: Build
) -> None:
    readmission = study("readmission")
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(1))
    cdm.measure("systolic_bp", 110.0, cdm.at(0, 1))
    cdm.measure("systolic_bp", 130.0, cdm.at(0, 2), which=1)
    cdm.measure("systolic_bp", -5.0, cdm.at(0, 3))
    cdm.measure("systolic_bp", 301.0, cdm.at(0, 4))
    found = named(build(readmission)[0], readmission)
    assert (found["systolic_bp_min"], found["systolic_bp_max"]) == (110, 130)


def test_a_date_without_a_time_is_the_end_of_that_day(cdm: Any, study: Make, build: Build) -> None:
    death = study("death")
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(5))
    cdm.measure("potassium", 4.0, cdm.at(0), timed=False)
    cdm.measure("potassium", 5.0, cdm.at(1), timed=False)
    found = named(build(death)[0], death)
    assert (found["potassium_last"], found["potassium_max"]) == (4, 4)


def test_transfers_within_a_day_are_one_stay(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(2), discharged_to=8717)
    cdm.visit(cdm.at(3), cdm.at(6))
    cdm.visit(cdm.at(7, 1), cdm.at(8))
    rows, attrition = build(study("readmission"))
    assert attrition.steps[0].stays == 2
    assert sorted(rows.labels[:, 0]) == [0, 1]


def test_a_stay_inside_a_longer_one_does_not_end_it(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(10))
    cdm.visit(cdm.at(2), cdm.at(3))
    cdm.visit(cdm.at(10, 12), cdm.at(12))
    assert build(study("readmission"))[1].steps[0].stays == 1


@pytest.mark.parametrize(
    ("days", "planned", "label"), [(30, False, 1), (30.01, False, 0), (29, True, 0), (1.5, False, 1)]
)
def test_a_readmission_is_unplanned_and_within_the_window(
    cdm: Any, study: Make, build: Build, days: float, planned: bool, label: int
) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(2))
    cdm.visit(cdm.at(2 + days), cdm.at(4 + days), planned=planned)
    rows, _ = build(study("readmission", cohort={"index": {"take": "first"}}))
    assert rows.labels.tolist() == [[label]]


def test_after_a_planned_stay_a_later_one_does_not_count(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(2))
    cdm.visit(cdm.at(8), cdm.at(9), planned=True)
    cdm.visit(cdm.at(20), cdm.at(21))
    rows, _ = build(study("readmission", cohort={"index": {"take": "first"}}))
    assert rows.labels.tolist() == [[0]]


def test_unknown_labels_leave_the_cohort_with_their_reason(cdm: Any, study: Make, build: Build) -> None:
    for person, to in enumerate((8536, 32216, 8717, 32218), start=1):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(2), person_id=person, discharged_to=to)
    cdm.person(5, until=20)
    cdm.visit(cdm.at(0), cdm.at(2), person_id=5)
    cdm.person(6, until=20)
    cdm.visit(cdm.at(0), cdm.at(2), person_id=6)
    cdm.die(cdm.at(15), person_id=6)
    rows, attrition = build(study("readmission"))
    assert rows.person.tolist() == [1, 6]
    left = [
        stays_after(attrition, name)
        for name in (
            "discharged alive",
            "not against advice",
            "not transferred to acute care",
            "followed for 30 days",
        )
    ]
    assert left == [5, 4, 3, 2]


@pytest.mark.parametrize(
    ("to", "died", "timed", "label"),
    [
        (8536, None, True, 0),
        (32218, None, True, 1),
        (8536, 3, True, 1),
        (8536, 5, False, 1),
        (8536, 6, True, 0),
    ],
)
def test_death_in_hospital_by_disposition_or_date(
    cdm: Any, study: Make, build: Build, to: int, died: float | None, timed: bool, label: int
) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(5), discharged_to=to)
    if died is not None:
        cdm.die(cdm.at(died), timed=timed)
    assert build(study("death"))[0].labels.tolist() == [[label]]


def test_early_ends_sparse_and_gappy_stays_are_excluded_in_order(cdm: Any, study: Make, build: Build) -> None:
    exclude = {"stay_under_h": 30, "event_before_h": 30, "measured_hours_under": 4, "gap_over_h": 12}
    for person, (end, hours, died) in enumerate(
        [
            (4.0, (1, 8, 16, 23), None),
            (1.2, (1, 8, 16, 23), None),
            (4.0, (1, 8, 16, 23), 1.2),
            (4.0, (1, 8, 16), None),
            (4.0, (1, 2, 3, 16), None),
            (4.0, (1, 2, 3, 4), None),
        ],
        start=1,
    ):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(end), person_id=person)
        for hour in hours:
            cdm.measure("heart_rate", 80.0, cdm.at(0, hour), person_id=person)
        if died is not None:
            cdm.die(cdm.at(died), person_id=person)
    rows, attrition = build(study("death", cohort={"exclude": exclude}))
    assert rows.person.tolist() == [1]
    assert [stays_after(attrition, name) for name in ("stays at least 30 h", "no event before 30 h")] == [
        5,
        4,
    ]
    assert [stays_after(attrition, name) for name in ("measured in at least 4 h", "no gap over 12 h")] == [
        3,
        1,
    ]


def test_who_died_or_left_by_the_prediction_is_no_row(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(0, 24))
    cdm.person(2)
    cdm.visit(cdm.at(0), cdm.at(4), person_id=2)
    cdm.die(cdm.at(0, 20), person_id=2)
    rows, attrition = build(study("death"))
    assert len(rows) == 0
    assert stays_after(attrition, "still in hospital at the prediction") == 1
    assert rows.features.shape == (0, 128)


def test_a_child_an_open_stay_and_a_visit_that_ends_before_it_starts_are_no_rows(
    cdm: Any, study: Make, build: Build
) -> None:
    cdm.person(1, born=2010)
    cdm.visit(cdm.at(0), cdm.at(2))
    cdm.person(2)
    cdm.visit(cdm.at(0), None, person_id=2)
    cdm.person(3)
    cdm.visit(cdm.at(3), cdm.at(2), person_id=3)
    rows, attrition = build(study("readmission"))
    assert len(rows) == 0
    assert attrition.steps[0].stays == 2
    assert stays_after(attrition, "the stay has ended") == 1
    assert attrition.notes == (("visits that end before they start", 1),)


def test_an_open_stay_is_a_readmission_of_the_one_before(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(2))
    cdm.visit(cdm.at(10), None)
    assert build(study("readmission"))[0].labels.tolist() == [[1]]


def test_statics_are_what_was_known_at_the_prediction(cdm: Any, study: Make, build: Build) -> None:
    cdm.person(born=1900, gender=8507)
    old = cdm.visit(cdm.at(-400), cdm.at(-398))
    prior = cdm.visit(cdm.at(-100), cdm.at(-90))
    cdm.visit(cdm.at(-30), cdm.at(-30, 4), concept=9203)
    cdm.visit(cdm.at(-300), cdm.at(-300, 4), concept=9203)
    index = cdm.visit(cdm.at(0), cdm.at(4), concept=262, emergency=True)
    cdm.condition("http://hl7.org/fhir/sid/icd-10-cm|I50.9", cdm.at(-95), visit=prior)
    cdm.condition("E11.9", cdm.at(-399), visit=old)
    cdm.condition("E11.9", cdm.at(-95), visit=prior)
    cdm.condition("http://hl7.org/fhir/sid/icd-10|J44", cdm.at(-95), visit=prior, status=CONDITION_REFUTED)
    cdm.condition("http://hl7.org/fhir/sid/icd-10|N18", cdm.at(-95), visit=index)
    cdm.condition("http://example.org|F20", cdm.at(-95), visit=prior)
    cdm.procedure("http://www.cms.gov/Medicare/Coding/ICD10|0DTJ4ZZ", cdm.at(1))
    death = study("death", cohort={"index": {"take": "last"}})
    found = list(named(build(death)[0], death).values())[:8]
    assert found == [90, 0, 1, 1, 1, 90, 2, 1]


def test_surgery_after_the_prediction_is_not_known(cdm: Any, study: Make, build: Build) -> None:
    death = study("death")
    cdm.person(gender=8521)
    cdm.visit(cdm.at(0), cdm.at(4))
    cdm.procedure("0DTJ4ZZ", cdm.at(1, 1))
    found = named(build(death)[0], death)
    assert (found["surgical"], found["days_since_discharge"], found["prior_admissions_12m"]) == (0, 365, 0)
    assert np.isnan(found["sex"])


def test_folds_are_a_keyed_function_of_the_patient_alone() -> None:
    everyone = np.arange(-500, 3500, dtype=np.int64)
    chosen = fold(everyone, site_secret=b"a" * 32, test=0.3)
    assert 0.27 < chosen.mean() < 0.33
    assert (fold(everyone[::-1], site_secret=b"a" * 32, test=0.3)[::-1] == chosen).all()
    assert (fold(everyone, site_secret=b"b" * 32, test=0.3) != chosen).any()
    more = fold(everyone, site_secret=b"a" * 32, test=0.5)
    assert (more >= chosen).all()


def test_no_error_quotes_a_value(cdm: Any, study: Make, tmp_path: Path) -> None:
    cdm.person()
    folder = cdm.write(tmp_path / "cdm")
    (folder / "measurement.parquet").write_bytes(b"MARKED-PATIENT-VALUE")
    with pytest.raises(DataError, match="the CDM cannot be read") as caught:
        build_rows(folder, study("readmission"), site_secret=bytes(32))
    assert "MARKED" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_missing_table_or_folder_is_named(cdm: Any, study: Make, tmp_path: Path) -> None:
    folder = cdm.write(tmp_path / "cdm")
    (folder / "person.parquet").unlink()
    with pytest.raises(DataError, match="table_missing"):
        build_rows(folder, study("readmission"), site_secret=bytes(32))
    with pytest.raises(DataError, match="cdm_missing"):
        build_rows(tmp_path / "nowhere", study("readmission"), site_secret=bytes(32))


def test_tables_that_a_database_may_lack_are_empty(cdm: Any, study: Make, tmp_path: Path) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(2))
    folder = cdm.write(tmp_path / "cdm")
    for name in ("death", "condition_occurrence", "procedure_occurrence", "visit_extra"):
        (folder / f"{name}.parquet").unlink()
    assert len(build_rows(folder, study("readmission"), site_secret=bytes(32))[0]) == 1
