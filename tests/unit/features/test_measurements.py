"""A study's own measurements against sums by hand and by brute force."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedhealth.features import Attrition, Rows
from fedhealth.study import Study
from fedhealth.study.columns import numeric_columns

Make = Callable[..., Study]
Build = Callable[[Study], tuple[Rows, Attrition]]
CREATININE = {
    "name": "crea",
    "codes": ["urn:house|crea", "http://loinc.org|2160-0"],
    "unit": "mg/dL",
    "clip": [0.1, 10],
    "window_h": [-48, -1],
    "aggregate": ["last", "min", "max", "mean", "slope", "missing", "any", "count", "time_since"],
}


def features_of(**sections: Any) -> dict[str, Any]:
    return {"preset": None, "statics": [], **sections}


def named(rows: Rows, study: Study, row: int = 0) -> dict[str, float]:
    names = [column.name for column in numeric_columns(study)]
    return dict(zip(names, (float(value) for value in rows.features[row]), strict=True))


@pytest.fixture
def build_one(cdm: Any, study: Make, build: Build) -> Callable[..., dict[str, float]]:
    """The features of the one stay, from day 0 to its discharge on day 5, by measurements."""

    def run(*measurements: dict[str, Any]) -> dict[str, float]:
        cdm.person()
        cdm.visit(cdm.at(0), cdm.at(5))
        asked = study("readmission", features=features_of(measurements=list(measurements)))
        return named(build(asked)[0], asked)

    return run


def test_every_aggregate_is_that_of_the_window(cdm: Any, build_one: Any) -> None:
    for hours, value in ((-49, 9.0), (-48, 1.0), (-25, 4.0), (-1, 2.0), (-0.5, 8.0)):
        cdm.number("urn:house|crea", value, cdm.at(5, hours), unit="mg/dL")
    found = build_one(CREATININE)
    expected = {
        "last": 2,
        "min": 1,
        "max": 4,
        "mean": 7 / 3,
        "missing": 0,
        "any": 1,
        "count": 3,
        "time_since": 1,
    }
    for name, value in expected.items():
        assert found[f"crea_{name}"] == pytest.approx(value, rel=1e-6)
    slope = np.polyfit(np.array([-48, -25, -1]) / 24, [1.0, 4.0, 2.0], 1)[0]
    assert found["crea_slope"] == pytest.approx(slope, rel=1e-5)


def test_of_no_value_everything_is_empty(build_one: Any) -> None:
    found = build_one(CREATININE)
    assert [found[f"crea_{name}"] for name in ("missing", "any", "count", "time_since")] == [1, 0, 0, 48]
    assert all(np.isnan(found[f"crea_{name}"]) for name in ("last", "min", "max", "mean", "slope"))


def test_one_value_has_no_slope_and_many_are_capped(cdm: Any, study: Make, build: Build) -> None:
    for person, values in ((1, 1), (2, 70)):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(5), person_id=person)
        for place in range(values):
            cdm.number("urn:house|crea", 1.0, cdm.at(5, -2 - place / 2), unit="mg/dL", person_id=person)
    asked = study("readmission", features=features_of(measurements=[CREATININE]))
    rows = build(asked)[0]
    assert np.isnan(named(rows, asked, 0)["crea_slope"])
    assert [named(rows, asked, row)["crea_count"] for row in (0, 1)] == [1, 50]


def test_a_random_history_equals_brute_force(cdm: Any, study: Make, build: Build) -> None:
    generator = np.random.default_rng(7)
    history: dict[int, list[tuple[float, float]]] = {}
    for person in range(1, 9):
        cdm.person(person)
        cdm.visit(cdm.at(0), cdm.at(5), person_id=person)
        hours = np.sort(generator.uniform(-60, 6, generator.integers(0, 12))).round(2)
        history[person] = [
            (float(hour), float(value))
            for hour, value in zip(hours, generator.lognormal(0, 1.5, len(hours)), strict=True)
        ]
        for hour, value in history[person]:
            cdm.number("urn:house|crea", value, cdm.at(5, hour), unit="mg/dL", person_id=person)
    asked = study("readmission", features=features_of(measurements=[CREATININE]))
    rows = build(asked)[0]
    for place, person in enumerate(rows.person):
        window = [(h, min(max(v, 0.1), 10.0)) for h, v in history[int(person)] if -48 <= h <= -1]
        found = named(rows, asked, place)
        assert found["crea_count"] == len(window)
        if not window:
            continue
        times, values = np.array(window).T
        expected = [values[-1], values.min(), values.max(), values.mean(), -times[-1]]
        names = ("last", "min", "max", "mean", "time_since")
        np.testing.assert_allclose([found[f"crea_{name}"] for name in names], expected, rtol=1e-5)
        if len(window) > 1:
            assert found["crea_slope"] == pytest.approx(np.polyfit(times / 24, values, 1)[0], rel=1e-4)
    assert {len(each) for each in history.values()} >= {0}


@pytest.mark.parametrize(
    ("code", "more", "value", "expected"),
    [
        ("urn:house|crea", {"unit": "mg/dL"}, 2.0, 2.0),
        ("urn:other|crea", {"unit": "mg/dL"}, 2.0, np.nan),
        ("urn:lab|17", {"concept": 3016723, "unit_concept": 8840, "unit": "umol/L"}, 2.0, 2.0),
        ("urn:lab|17", {"concept": 3016723, "unit": "umol/L"}, 176.8, 2.0),
        ("urn:house|crea", {"unit": "umol/L"}, 176.8, 2.0),
        ("urn:house|crea", {"unit": "MG/DL"}, 2.0, 2.0),
        ("urn:house|crea", {"unit": "g/L"}, 0.02, 2.0),
        ("urn:house|crea", {"unit": "mmol/L"}, 2.0, 10.0),
        ("urn:house|crea", {"unit": "kg"}, 2.0, np.nan),
        ("urn:house|crea", {"unit": "other"}, 2.0, np.nan),
        ("urn:house|crea", {}, 2.0, np.nan),
        ("urn:house|crea", {"unit": "mg/dL"}, 99.0, 10.0),
        ("urn:house|crea", {"unit": "mg/dL"}, None, np.nan),
        ("urn:house|crea", {"unit": "mg/dL"}, float("inf"), np.nan),
        ("urn:house|crea", {"unit": "mg/dL"}, float("nan"), np.nan),
        (None, {"concept": 3016723, "unit": "mg/dL"}, 2.0, 2.0),
    ],
)
def test_a_value_is_addressed_converted_and_clipped_or_not_used(
    cdm: Any, build_one: Any, code: str | None, more: dict[str, Any], value: float | None, expected: float
) -> None:
    cdm.number(code, value, cdm.at(4), **more)
    found = build_one({**CREATININE, "aggregate": ["last", "missing"]})
    np.testing.assert_allclose(found["crea_last"], expected, rtol=1e-3)
    assert found["crea_missing"] == np.isnan(expected)


def test_a_row_that_two_codes_address_counts_once(cdm: Any, build_one: Any) -> None:
    cdm.number("http://loinc.org|2160-0", 2.0, cdm.at(4), unit="mg/dL", concept=3016723)
    codes = ["http://loinc.org|2160-0", "http://loinc.org|2160*", "omop|3016723"]
    assert build_one({**CREATININE, "codes": codes})["crea_count"] == 1


def test_of_values_at_one_time_the_id_decides(cdm: Any, build_one: Any) -> None:
    for key, value in ((900, 3.0), (901, 5.0), (899, 4.0)):
        cdm.number("urn:house|crea", value, cdm.at(4), unit="mg/dL", key=key)
    assert build_one(CREATININE)["crea_last"] == 5


GLUCOSE = {
    "name": "glucose_over_120",
    "codes": ["http://loinc.org|1558-6"],
    "unit": "mg/dL",
    "comparator": {">": 1, "<=": 0},
    "window_h": [-48, 0],
    "aggregate": ["last"],
}


@pytest.mark.parametrize(
    ("more", "value", "expected"),
    [
        ({"operator": ">", "unit": "mg/dL"}, 120.0, 1.0),
        ({"operator": "<=", "unit": "mg/dL"}, 120.0, 0.0),
        ({"operator": ">", "unit": "kg"}, 120.0, np.nan),
        ({"operator": "<", "unit": "mg/dL"}, 120.0, np.nan),
        ({"unit": "mg/dL"}, 95.0, np.nan),
        ({"operator": "=", "unit": "mg/dL"}, 1.0, 1.0),
    ],
)
def test_a_comparator_gives_the_studys_number_and_without_one_a_value_keeps_its_own(
    cdm: Any, build_one: Any, more: dict[str, Any], value: float, expected: float
) -> None:
    cdm.number("http://loinc.org|1558-6", value, cdm.at(4), **more)
    np.testing.assert_array_equal(build_one(GLUCOSE)["glucose_over_120_last"], expected)


def test_with_clip_a_value_without_comparator_is_a_number_of_that_scale(cdm: Any, build_one: Any) -> None:
    cdm.number("http://loinc.org|1558-6", 95.0, cdm.at(4), unit="mg/dL")
    cdm.number("http://loinc.org|1558-6", 400.0, cdm.at(4, 1), unit="mg/dL", operator=">")
    found = build_one({**GLUCOSE, "clip": [0, 500], "comparator": {">": 500}, "aggregate": ["min", "max"]})
    assert list(found.values()) == [95, 500]


def test_a_series_features_name_brings_its_bounds_and_its_hard_range(cdm: Any, build_one: Any) -> None:
    for hour, value in ((0, -5.0), (1, 130.0), (2, 250.0), (3, 1000.0)):
        cdm.number("urn:house|na", value, cdm.at(4, hour), unit="mmol/L")
    sodium = {
        "name": "sodium",
        "codes": ["urn:house|na"],
        "unit": "mmol/L",
        "aggregate": ["min", "max", "count"],
    }
    assert build_one(sodium) == {"sodium_min": 130, "sodium_max": 130, "sodium_count": 1}


def test_an_explicit_window_may_reach_behind_the_admission(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(1), cdm.at(5))
    cdm.number("urn:house|crea", 2.0, cdm.at(0), unit="mg/dL")
    wide = {**CREATININE, "window_h": [-72, 0], "aggregate": ["last"]}
    asked = study("death", features=features_of(measurements=[wide]))
    assert named(build(asked)[0], asked) == {"crea_last": 2}


def test_each_feature_has_its_own_window_and_unit(cdm: Any, build_one: Any) -> None:
    cdm.number("urn:house|temp", 98.6, cdm.at(4), unit="[degF]")
    cdm.number("urn:house|score", 7.0, cdm.at(4))
    found = build_one(
        {"name": "t", "codes": ["urn:house|temp"], "unit": "Cel", "clip": [30, 43], "aggregate": ["last"]},
        {
            "name": "f",
            "codes": ["urn:house|temp"],
            "unit": "[degF]",
            "clip": [80, 110],
            "aggregate": ["last"],
        },
        {
            "name": "late",
            "codes": ["urn:house|temp"],
            "unit": "Cel",
            "clip": [30, 43],
            "window_h": [-6, 0],
            "aggregate": ["any"],
        },
        {
            "name": "s",
            "codes": ["urn:house|score"],
            "unit": "{score}",
            "clip": [0, 10],
            "aggregate": ["last"],
        },
    )
    assert found == pytest.approx({"t_last": 37.0, "f_last": 98.6, "late_any": 0, "s_last": 7})


def test_shuffled_tables_give_the_same_bytes(cdm: Any, study: Make, build: Build) -> None:
    cdm.person()
    cdm.visit(cdm.at(0), cdm.at(5))
    for place in range(20):
        cdm.number("urn:house|crea", 1.0 + place % 7 / 3, cdm.at(4, place // 2), unit="mg/dL")
    asked = study("readmission", features=features_of(measurements=[CREATININE]))
    first = build(asked)[0].features.tobytes()
    cdm.rows["measurement"].reverse()
    assert build(asked)[0].features.tobytes() == first
