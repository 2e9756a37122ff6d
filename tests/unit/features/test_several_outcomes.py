"""Several outcomes in one study: a row stays while one label is known, and the table says of how many each is."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fedhealth.features import Attrition, Rows
from fedhealth.features.attrition import Known, Step
from fedhealth.study import Study
from fedhealth.study.targets import targets_of

Make = Callable[..., Study]
Build = Callable[[Study], tuple[Rows, Attrition]]
TASKS = {
    "readmission": {"kind": "readmission"},
    "death": {"kind": "death", "within": "stay"},
    "aki": {"kind": "kidney_injury"},
    "los": {"kind": "length_of_stay"},
}


def test_labels_stand_in_the_order_of_their_names_and_are_missing_one_by_one(
    cdm: Any, study: Make, build: Build
) -> None:
    cdm.person(1)
    cdm.visit(cdm.at(0), cdm.at(5), person_id=1, discharged_to=32218)
    cdm.person(2)
    cdm.visit(cdm.at(0), cdm.at(5), person_id=2)
    cdm.visit(cdm.at(20), cdm.at(20, 20), person_id=2)
    for hours, value in ((10, 1.0), (40, 2.0)):
        cdm.measure("creatinine", value, cdm.at(0, hours), person_id=2)
    cdm.person(3, until=6)
    cdm.visit(cdm.at(0), cdm.at(4), person_id=3)
    several = study("death", outcomes=TASKS)
    rows, attrition = build(several)
    assert [target.name for target in targets_of(several)] == ["aki", "death", "los", "readmission"]
    assert rows.person.tolist() == [1, 2, 3]
    unknown = np.nan
    np.testing.assert_array_equal(
        rows.labels, [[unknown, 1, 5, unknown], [1, 0, 5, 1], [unknown, 0, 4, unknown]]
    )
    assert attrition.known == (
        Known("aki", 1, 1),
        Known("death", 3, 3),
        Known("los", 3, 3),
        Known("readmission", 1, 1),
    )


def test_a_row_of_which_nothing_is_known_leaves(cdm: Any, study: Make, build: Build) -> None:
    cdm.person(1, until=6)
    cdm.visit(cdm.at(0), cdm.at(4))
    unknown = {name: TASKS[name] for name in ("readmission", "aki")}
    rows, attrition = build(study("death", outcomes=unknown))
    assert rows.labels.shape == (0, 2)
    assert attrition.steps[-1] == Step("a label is known", 0, 0)


def test_an_event_too_early_costs_its_own_label_alone(cdm: Any, study: Make, build: Build) -> None:
    cdm.person(1)
    visit = cdm.visit(cdm.at(0), cdm.at(4))
    cdm.intensive_care(visit, cdm.at(0, 26))
    tasks = {"icu": {"kind": "icu_transfer"}, "los": TASKS["los"]}
    early = {"exclude": {"event_before_h": 30}}
    np.testing.assert_array_equal(build(study("death", outcomes=tasks))[0].labels, [[1, 4]])
    np.testing.assert_array_equal(
        build(study("death", outcomes=tasks, cohort=early))[0].labels, [[np.nan, 4]]
    )


def test_the_table_tells_of_whom_each_label_is_known_and_hides_small_differences() -> None:
    steps = (Step("stays", 300, 200), Step("adult", 150, 100))
    known = (Known("a", 150, 100), Known("b", 90, 60), Known("c", 95, 65), Known("d", 9, 9), Known("e", 0, 0))
    table = Attrition(steps, known).public()
    assert [row["patients"] for row in table] == [200, 100, 100, 60, None, None, 0]
    assert [row["step"] for row in table][2:] == [f"{name} is known" for name in "abcde"]
    assert [row["patients"] for row in Attrition(steps, known[:1]).public()] == [200, 100]
    hidden = Attrition((*steps, Step("seen", 140, 95)), (Known("a", 1, 92), Known("b", 1, 50))).public()
    assert [row["patients"] for row in hidden] == [200, 100, None, None, 50]
