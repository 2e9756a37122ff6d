"""The features of a study: what is refused, and which columns it has."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedhealth.errors import ConfigError
from fedhealth.study import Study, load_study
from fedhealth.study.columns import asked_columns, feature_columns, numeric_columns

CREATININE: dict[str, Any] = {"name": "crea", "codes": ["urn:x|crea"], "unit": "mg/dL", "clip": [0.1, 30]}
CONDITION: dict[str, Any] = {"name": "diabetes", "codes": ["urn:x|E11*"]}
PAIN: dict[str, Any] = {"name": "pain", "codes": ["urn:x|cp"]}


def written(folder: Path, features: dict[str, Any], **sections: Any) -> Path:
    path = folder / "study.yaml"
    document = {
        "schema_version": 1,
        "name": "small",
        "outcomes": {"readmission": {"kind": "readmission"}},
        "features": features,
        **sections,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def unchecked(features: dict[str, Any]) -> Study:
    document = {"schema_version": 1, "name": "small", "outcomes": {"readmission": {"kind": "readmission"}}}
    return Study.model_validate_json(json.dumps({**document, "features": features}))


@pytest.mark.parametrize(
    ("features", "key", "problem"),
    [
        ({"window_h": [-48, 1]}, "features.window_h", "end <= 0"),
        ({"window_h": [0, 0]}, "features.window_h", "start < end"),
        (
            {"measurements": [{**CREATININE, "window_h": [-48, 0.5]}]},
            "features.measurements[0].window_h",
            "end <= 0",
        ),
        ({"categories": [{**PAIN, "window_h": [-1, 2]}]}, "features.categories[0].window_h", "end <= 0"),
        (
            {"drugs": [{"name": "a", "text": ["a"], "window_h": [0, 24]}]},
            "features.drugs[0].window_h",
            "end <= 0",
        ),
        ({"measurements": [{**CREATININE, "unit": "furlongs"}]}, "features.measurements[0].unit", "UCUM"),
        ({"measurements": [{**CREATININE, "unit": ""}]}, "features.measurements[0].unit", "UCUM"),
        ({"measurements": [{**CREATININE, "clip": [5, 5]}]}, "features.measurements[0].clip", "low < high"),
        ({"measurements": [{**CREATININE, "clip": [6, 5]}]}, "features.measurements[0].clip", "low < high"),
        ({"measurements": [{**CREATININE, "clip": None}]}, "features.measurements[0]", "needs clip"),
        (
            {"measurements": [{**CREATININE, "name": "creatinine", "unit": "umol/L", "clip": None}]},
            "features.measurements[0]",
            "needs clip",
        ),
        (
            {"measurements": [{**CREATININE, "clip": None, "comparator": {">": 1}}]},
            "features.measurements[0]",
            "needs clip",
        ),
        (
            {"measurements": [{**CREATININE, "comparator": {">": 31}}]},
            "features.measurements[0]",
            "outside clip",
        ),
        (
            {"measurements": [{**CREATININE, "comparator": {"=>": 1}}]},
            "features.measurements[0].comparator",
            "<=",
        ),
        (
            {"measurements": [{**CREATININE, "aggregate": []}]},
            "features.measurements[0].aggregate",
            "at least 1",
        ),
        (
            {"measurements": [{**CREATININE, "aggregate": ["median"]}]},
            "features.measurements[0].aggregate",
            "not known",
        ),
        (
            {"measurements": [{**CREATININE, "aggregate": ["last", "last"]}]},
            "features",
            "two columns are called crea_last",
        ),
        (
            {"measurements": [{**CREATININE, "name": "lactate"}]},
            "features",
            "two columns are called lactate_last",
        ),
        ({"measurements": [CREATININE, CREATININE]}, "features", "two columns are called crea_last"),
        (
            {"conditions": [CONDITION], "procedures": [CONDITION]},
            "features",
            "two columns are called diabetes",
        ),
        (
            {"conditions": [CONDITION], "categories": [{**PAIN, "name": "diabetes"}]},
            "features",
            "two columns are called diabetes",
        ),
        ({"statics": ["age", "age"]}, "features", "two columns are called age"),
        ({"statics": ["weight"]}, "features.statics[0]", "not known"),
        ({"preset": None, "statics": []}, "features", "no column"),
        ({"preset": "icu-20"}, "features.preset", "not known"),
        ({"drugs": [{"name": "aspirin"}]}, "features.drugs[0]", "codes or text"),
        ({"conditions": [{"name": "d", "codes": []}]}, "features.conditions[0].codes", "at least 1"),
        (
            {"conditions": [{"name": "d", "codes": ["E11"]}]},
            "features.conditions[0].codes[0]",
            "has not the form",
        ),
        (
            {"conditions": [{"name": "d", "codes": ["omop|E11"]}]},
            "features.conditions[0].codes[0]",
            "omop|NUMBER",
        ),
        (
            {"conditions": [{"name": "d", "codes": ["omop|0"]}]},
            "features.conditions[0].codes[0]",
            "omop|NUMBER",
        ),
        (
            {"conditions": [{"name": "d", "codes": ["omop|20*"]}]},
            "features.conditions[0].codes[0]",
            "omop|NUMBER",
        ),
        (
            {"conditions": [{**CONDITION, "look_back_days": 0}]},
            "features.conditions[0].look_back_days",
            "greater",
        ),
        ({"impute": {"kind": "mode"}}, "features.impute.kind", "not known"),
        ({"series": {"step_h": 0}}, "features.series.step_h", "greater"),
        ({"standardise": "site"}, "features.standardise", "privacy.mode none"),
    ],
)
def test_what_breaks_the_language_is_one_line_with_its_key(
    tmp_path: Path, features: dict[str, Any], key: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, features))
    assert f": {key}" in caught.value.problem
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_series_that_no_model_reads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.series is read by model\.kind lstm alone"):
        load_study(written(tmp_path, {"series": {"steps": 24}}))


def test_the_example_of_the_design_is_understood() -> None:
    study = unchecked(
        {
            "preset": "default-128",
            "measurements": [
                {
                    "name": "crea",
                    "codes": ["http://loinc.org|2160-0"],
                    "unit": "mg/dL",
                    "clip": [0.1, 30],
                    "aggregate": ["last"],
                },
                {
                    "name": "glucose_over_120",
                    "codes": ["http://loinc.org|1558-6"],
                    "unit": "mg/dL",
                    "comparator": {">": 1, "<=": 0},
                    "aggregate": ["last"],
                },
            ],
            "categories": [PAIN],
            "conditions": [CONDITION],
            "drugs": [
                {
                    "name": "aspirin",
                    "codes": ["http://www.nlm.nih.gov/research/umls/rxnorm|1191"],
                    "text": ["aspirin"],
                }
            ],
            "procedures": [],
        }
    )
    assert Study.from_canonical(unchecked({}).canonical()) == unchecked({})
    names = [column.name for column in feature_columns(study)]
    assert names[:8] == [column.name for column in feature_columns(unchecked({}))][:8]
    assert names[128:] == ["crea_last", "glucose_over_120_last", "diabetes", "aspirin"]


def test_columns_follow_the_study_and_their_bounds_are_public() -> None:
    aggregates = ["slope", "last", "missing", "any", "count", "time_since"]
    study = unchecked(
        {
            "preset": None,
            "statics": ["sex", "age"],
            "measurements": [
                {**CREATININE, "window_h": [-24, -2], "aggregate": aggregates},
                {"name": "sodium", "codes": ["urn:x|na"], "unit": "mmol/L", "aggregate": ["min"]},
                {
                    "name": "high",
                    "codes": ["urn:x|g"],
                    "unit": "mg/dL",
                    "comparator": {">": 1, "<": -1},
                    "aggregate": ["last"],
                },
            ],
            "procedures": [{**CONDITION, "name": "dialysis"}],
            "conditions": [CONDITION],
        }
    )
    columns = {column.name: column for column in numeric_columns(study)}
    assert list(columns)[:2] == ["sex", "age"]
    assert list(columns)[2:8] == [f"crea_{name}" for name in aggregates]
    assert list(columns)[8:] == ["sodium_min", "high_last", "diabetes", "dialysis"]
    bounds = {name: (column.low, column.high) for name, column in columns.items()}
    assert bounds["crea_slope"] == (-29.9, 29.9)
    assert bounds["crea_last"] == (0.1, 30)
    assert bounds["crea_count"] == (0, 50)
    assert bounds["crea_time_since"] == (2, 24)
    assert bounds["sodium_min"] == (110, 170)
    assert bounds["high_last"] == (-1, 1)
    assert [name for name, column in columns.items() if column.kind == "flag"] == [
        "crea_missing",
        "crea_any",
        "diabetes",
        "dialysis",
    ]


def test_a_vocabulary_adds_a_flag_for_each_code() -> None:
    study = unchecked({"categories": [PAIN, {**PAIN, "name": "ecg"}]})
    vocabulary = {"ecg": ("false", "true"), "pain": ("urn:x|1", "urn:x|2")}
    added = feature_columns(study, vocabulary)[128:]
    assert [column.name for column in added] == ["pain=urn:x|1", "pain=urn:x|2", "ecg=false", "ecg=true"]
    assert {(column.low, column.high, column.kind) for column in added} == {(0, 1, "flag")}
    assert feature_columns(study, {"pain": ("a",)})[128:][0].name == "pain=a"
    assert len(feature_columns(study)) == len(numeric_columns(study)) == 128


def test_the_columns_of_a_feature_that_a_study_asks_for() -> None:
    study = unchecked(
        {
            "measurements": [{**CREATININE, "aggregate": ["last", "any"]}],
            "drugs": [{"name": "aspirin", "text": ["aspirin"]}],
            "categories": [PAIN],
        }
    )
    assert asked_columns(study, {"pain": ("a",)}) == {
        "measurements.crea": ("crea_last", "crea_any"),
        "drugs.aspirin": ("aspirin",),
        "categories.pain": ("pain=a",),
    }
    assert asked_columns(unchecked({}), {}) == {}


def test_a_studys_features_survive_its_canonical_form(tmp_path: Path) -> None:
    features = {
        "statics": ["age"],
        "measurements": [CREATININE],
        "conditions": [CONDITION],
        "impute": {"kind": "mean"},
        "standardise": "none",
    }
    study = load_study(written(tmp_path, features))
    assert Study.from_canonical(study.canonical()) == study
