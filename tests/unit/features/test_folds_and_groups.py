"""Folds by key, by class or by the site's own record; bands of sex, age and race."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedhealth.features import Attrition, Rows
from fedhealth.features.folds import fold, stratified_fold, validation_rows
from fedhealth.study import Study
from fedhealth.study.subgroups import SUBGROUPS

Make = Callable[..., Study]
Build = Callable[[Study], tuple[Rows, Attrition]]
OPEN = {"mode": "none", "legal_basis": "public data"}
SECRET = b"a" * 32


def test_every_class_is_tested_in_the_same_share() -> None:
    person = np.arange(1, 201, dtype=np.int64)
    classes = np.where(person <= 20, 1, np.where(person <= 30, -1, 0)).astype(np.int64)
    chosen = stratified_fold(person, classes, site_secret=SECRET, test=0.25)
    assert [int(chosen[classes == each].sum()) for each in (0, 1, -1)] == [43, 5, 3]
    order = np.random.default_rng(0).permutation(200)
    assert (
        stratified_fold(person[order], classes[order], site_secret=SECRET, test=0.25) == chosen[order]
    ).all()
    assert (stratified_fold(person, classes, site_secret=b"b" * 32, test=0.25) != chosen).any()


def test_within_a_class_those_with_the_lowest_key_are_tested() -> None:
    person = np.arange(1, 201, dtype=np.int64)
    chosen = stratified_fold(person, np.zeros(200, dtype=np.int64), site_secret=SECRET, test=0.25)
    for share in (0.05, 0.15):
        assert (chosen | ~fold(person, site_secret=SECRET, test=share)).all()
    assert (fold(person, site_secret=SECRET, test=0.4) | ~chosen).all()


def test_a_patient_is_of_their_highest_class_with_all_rows() -> None:
    person = np.array([1, 1, 2, 2, 3, 4], dtype=np.int64)
    classes = np.array([0, 1, 0, 0, 0, 1], dtype=np.int64)
    chosen = stratified_fold(person, classes, site_secret=SECRET, test=0.5)
    assert chosen[0] == chosen[1] != chosen[5]
    assert chosen[2] == chosen[3] != chosen[4]


def test_the_validation_fold_is_a_share_of_those_who_are_not_tested() -> None:
    person = np.arange(-2000, 2000, dtype=np.int64)
    tested = fold(person, site_secret=SECRET, test=0.3)
    scored = validation_rows(person, tested, site_secret=SECRET, share=0.2)
    assert not (scored & tested).any()
    assert 0.18 < scored[~tested].mean() < 0.22
    other = fold(person, site_secret=SECRET, test=0.5)
    assert (
        validation_rows(person, other, site_secret=SECRET, share=0.2)[~tested & ~other]
        == scored[~tested & ~other]
    ).all()
    assert not validation_rows(person, tested, site_secret=SECRET, share=0.0).any()


def test_a_study_that_chooses_by_scores_has_a_validation_fold(cdm: Any, study: Make, build: Build) -> None:
    for person in range(1, 101):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(2), person_id=person)
    assert not build(study("readmission"))[0].is_validation.any()
    training = {"rounds": 5, "local": {"epochs": 1}}
    rows, _ = build(study("readmission", training=training | {"early_stopping": {"patience": 2}}))
    assert 3 < rows.is_validation.sum() < 25
    assert not (rows.is_validation & rows.is_test).any()
    assert len(rows.training()) + len(rows.validation()) + len(rows.test()) == len(rows) == 100
    half = study("readmission", split={"validation": 0.5})
    assert 20 < build(half)[0].is_validation.sum() < 50
    none = study(
        "readmission", training=training | {"early_stopping": {"patience": 2}}, split={"validation": 0.0}
    )
    assert not build(none)[0].is_validation.any()


def test_a_study_may_ask_for_strata_of_its_first_outcome(cdm: Any, study: Make, build: Build) -> None:
    for person in range(1, 41):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(3), person_id=person, discharged_to=32218 if person <= 8 else 8536)
    rows, _ = build(study("death", split={"test": 0.25, "stratify": True}, privacy=OPEN))
    died = rows.labels[:, 0] == 1
    assert (rows.is_test[died].sum(), rows.is_test[~died].sum()) == (2, 8)
    plain = build(study("death", split={"test": 0.25}, privacy=OPEN))[0]
    assert (plain.is_test != rows.is_test).any()


def test_survival_has_strata_by_event(cdm: Any, study: Make, build: Build) -> None:
    for person in range(1, 13):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(3), person_id=person)
        if person <= 4:
            cdm.die(cdm.at(20 * person), person_id=person)
    outcomes = {"survival": {"kind": "survival", "horizon_days": 100}}
    split = {"test": 0.5, "stratify": True}
    rows, _ = build(study("death", outcomes=outcomes, split=split, privacy=OPEN))
    died = rows.labels[:, 0] % 2 == 1
    assert (died.sum(), rows.is_test[died].sum(), rows.is_test[~died].sum()) == (4, 2, 4)


def test_the_sites_own_record_may_say_who_is_tested(cdm: Any, study: Make, build: Build) -> None:
    code = "urn:site:x|split"
    said = {1: "test", 2: "TEST", 3: "urn:site:x|test", 4: "train", 5: "testing", 6: 1.0, 7: None, 8: "train"}
    for person, value in said.items():
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(3), person_id=person)
        if value is not None:
            cdm.observe(code, value, cdm.at(500), person_id=person)
    cdm.observe("urn:site:x|other", "test", cdm.at(0), person_id=7)
    cdm.observe(code, "test", cdm.at(0), person_id=8)
    rows, _ = build(study("readmission", split={"assigned": code}))
    assert rows.person[rows.is_test].tolist() == [1, 2, 3, 8]


@pytest.mark.parametrize(
    ("person", "bands"),
    [
        ({"gender": 8532, "born": 2002, "race": 8657}, ("female", "18-44", "american_indian")),
        ({"gender": 8507, "born": 1975, "race": 8515}, ("male", "45-64", "asian")),
        ({"gender": 8521, "born": 1955, "race": 8516}, (None, "65-79", "black")),
        ({"gender": 0, "born": 1940, "race": 8557}, (None, "80+", "pacific_islander")),
        ({"race": 8527, "born": 1976}, ("female", "18-44", "white")),
        ({"race": 8522, "born": 1956}, ("female", "45-64", "other")),
        ({"race": 0, "race_code": "2131-1", "born": 1941}, ("female", "65-79", "other")),
        ({"race": 0, "race_code": "UNK", "born": 2003}, ("female", None, None)),
    ],
)
def test_every_row_is_in_its_bands(
    cdm: Any, study: Make, build: Build, person: dict[str, Any], bands: tuple[str | None, ...]
) -> None:
    cdm.person(**person)
    cdm.visit(cdm.at(0), cdm.at(3))
    rows, _ = build(study("readmission", cohort={"age": {"min": None}}))
    assert rows.groups.dtype == np.int8
    found = [
        names[number] if number >= 0 else None
        for names, number in zip(SUBGROUPS.values(), rows.groups[0].tolist(), strict=True)
    ]
    assert tuple(found) == bands
