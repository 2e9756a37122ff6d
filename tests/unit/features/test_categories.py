"""Categories and series: the last level of a window, and the grid that ends at the prediction."""

import json
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pytest

from fedhealth.features.categories import category_levels
from fedhealth.features.series import series_features
from fedhealth.features.summaries import load_values
from fedhealth.features.tables import open_cdm
from fedhealth.study import Study
from fedhealth.study.columns import SERIES
from fedhealth.study.spec import Study as Spec

Make = Callable[..., Study]
PAIN = {"name": "pain", "codes": ["urn:x|cp"], "window_h": [-48, 0]}
SMOKER = {"name": "smoker", "codes": ["urn:x|smoker"], "window_h": [-480, -24]}


@pytest.fixture
def opened(cdm: Any, tmp_path: Any) -> Any:
    """The CDM in DuckDB, with one row per person: from day 0 to a prediction on day 5."""

    def run() -> duckdb.DuckDBPyConnection:
        database = duckdb.connect(":memory:", config={"threads": 1})
        open_cdm(database, cdm.write(tmp_path / "cdm"))
        load_values(database)
        database.execute(
            "CREATE TEMP TABLE index_stay AS SELECT row_number() OVER (ORDER BY person_id) - 1 AS row_id, person_id, "
            f"TIMESTAMP '{cdm.at(0)}' AS began, TIMESTAMP '{cdm.at(5)}' AS predicted FROM person"
        )
        return database

    return run


@pytest.fixture
def levels(cdm: Any, opened: Any, study: Make) -> Callable[..., list[list[str | None]]]:
    """By category the level of every person."""

    def run(*categories: dict[str, Any], people: int = 1) -> list[list[str | None]]:
        for person in range(1, people + 1):
            cdm.person(person)
        asked = unchecked(categories=list(categories))
        with opened() as database:
            found, names = category_levels(database, asked, rows=people)
        assert found.dtype == np.int32
        assert all(list(each) == sorted(set(each)) for each in names)
        return [
            [names[place][level] if level >= 0 else None for level in found[:, place]]
            for place in range(len(categories))
        ]

    return run


def unchecked(model: dict[str, Any] | None = None, **features: Any) -> Spec:
    """A study of the language, also where it is not built yet."""
    document = {
        "schema_version": 1,
        "name": "tiny",
        "outcomes": {"readmission": {"kind": "readmission"}},
        "features": features,
        **({"model": model} if model else {}),
    }
    return Spec.model_validate_json(json.dumps(document))


def test_the_last_level_of_the_window_counts(cdm: Any, levels: Any) -> None:
    for hours, code in ((-49, "urn:x|1"), (-30, "urn:x|2"), (-1, "urn:x|3"), (1, "urn:x|4")):
        cdm.observe("urn:x|cp", code, cdm.at(5, hours))
    cdm.observe("urn:x|other", "urn:x|5", cdm.at(5, -0.5))
    cdm.observe("urn:x|smoker", "true", cdm.at(5, -25))
    cdm.observe("urn:x|smoker", "false", cdm.at(5, -23))
    assert levels(PAIN, SMOKER) == [["urn:x|3"], ["true"]]


@pytest.mark.parametrize(
    ("text", "more", "level"),
    [
        ("urn:x|Typical", {}, "urn:x|Typical"),
        ("TRUE", {}, "true"),
        (" False ", {}, "false"),
        ("Never Smoked", {}, "never smoked"),
        ("urn:x|1", {"coded": 4329847}, "omop|4329847"),
        ("urn:x|1", {"coded": 0}, "urn:x|1"),
        ("urn:x|1", {"coded": 2_000_000_007}, "urn:x|1"),
        (None, {"coded": 4329847}, "omop|4329847"),
        (None, {}, None),
        ("", {}, None),
        ("3.5", {}, None),
        ("urn:x|" + "y" * 200, {}, "other"),
    ],
)
@pytest.mark.parametrize("table", ["observation", "measurement"])
def test_a_level_is_a_concept_a_code_a_boolean_or_a_word(
    cdm: Any, levels: Any, table: str, text: str | None, more: dict[str, Any], level: str | None
) -> None:
    if table == "observation":
        cdm.observe("urn:x|cp", text, cdm.at(4), **more)
    else:
        cdm.number("urn:x|cp", None, cdm.at(4), text=text, **more)
    assert levels(PAIN) == [[level]]


def test_a_number_is_no_level(cdm: Any, levels: Any) -> None:
    cdm.number("urn:x|cp", 3.0, cdm.at(4), text="3.0")
    cdm.observe("urn:x|cp", "3", cdm.at(4), number=3.0)
    assert levels(PAIN) == [[None]]


def test_an_observation_without_a_level_hides_none_before_it(cdm: Any, levels: Any) -> None:
    cdm.observe("urn:x|cp", "urn:x|1", cdm.at(4))
    cdm.observe("urn:x|cp", None, cdm.at(4, 2))
    assert levels(PAIN) == [["urn:x|1"]]


def test_of_levels_at_one_time_the_id_decides(cdm: Any, levels: Any) -> None:
    for key, code in ((70, "urn:x|b"), (71, "urn:x|a"), (69, "urn:x|c")):
        cdm.observe("urn:x|cp", code, cdm.at(4), key=key)
    assert levels(PAIN) == [["urn:x|a"]]


def test_levels_are_by_person_and_count_in_this_sites_names(cdm: Any, levels: Any) -> None:
    for person, code in ((1, "urn:x|b"), (3, "urn:x|a"), (4, "urn:x|b")):
        cdm.observe("urn:x|cp", code, cdm.at(4), person_id=person)
    assert levels(PAIN, SMOKER, people=4) == [["urn:x|b", None, "urn:x|a", "urn:x|b"], [None] * 4]


def grid(opened: Any, *, rows: int = 1, **series: Any) -> Any:
    asked = unchecked({"kind": "lstm"}, series=series)
    with opened() as database:
        return series_features(database, asked, rows=rows)


def test_each_step_holds_its_last_value_and_the_last_step_the_prediction(cdm: Any, opened: Any) -> None:
    cdm.person()
    for hours, value in (
        (-6.01, 60.0),
        (-6, 66.0),
        (-5.99, 61.0),
        (-4.01, 62.0),
        (-4, 63.0),
        (-2, 64.0),
        (0, 65.0),
        (0.01, 99.0),
    ):
        cdm.measure("heart_rate", value, cdm.at(5, hours))
    cdm.measure("sodium", 140.0, cdm.at(5, -1))
    cdm.measure("sodium", 20.0, cdm.at(5, -0.5))
    found = grid(opened, step_h=2.0, steps=3)
    assert found.shape == (1, 3, 20)
    names = [feature.name for feature in SERIES]
    np.testing.assert_array_equal(found[0, :, names.index("heart_rate")], [63.0, 64.0, 65.0])
    np.testing.assert_array_equal(found[0, :, names.index("sodium")], [np.nan, np.nan, 140.0])
    assert np.isnan(found).sum() == 3 * 20 - 4


def test_steps_before_the_admission_are_empty(cdm: Any, opened: Any) -> None:
    cdm.person()
    for hours in (-121, -120, -119.5, -100):
        cdm.measure("glucose", 100.0 - hours, cdm.at(5, hours))
    found = grid(opened, step_h=1.0, steps=130)[0, :, 7]
    assert np.flatnonzero(~np.isnan(found)).tolist() == [130 - 121, 130 - 120, 130 - 101]
    assert found[[9, 10, 29]].tolist() == [220, 219.5, 200]


def test_only_a_model_that_reads_series_has_them(opened: Any, cdm: Any) -> None:
    cdm.person()
    cdm.measure("glucose", 100.0, cdm.at(4))
    with opened() as database:
        assert series_features(database, unchecked({"kind": "mlp"}), rows=1).shape == (1, 0, 0)
