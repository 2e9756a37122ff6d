"""A study file is read strictly, and every refusal is one line with the key and one fix."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedhealth.errors import ConfigError
from fedhealth.study import Study, load_study
from fedhealth.study.built import BUILT, DEFAULTS_ONLY, refuse_unbuilt
from fedhealth.study.columns import SERIES, feature_columns
from fedhealth.study.targets import targets_of
from fedhealth.vocabulary.concepts import SERIES_CONCEPTS

STUDIES = sorted((Path(__file__).parents[3] / "infra" / "studies").glob("*.yaml"))
SMALLEST: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "outcomes": {"readmission": {"kind": "readmission"}},
}


def written(folder: Path, **sections: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**SMALLEST, **sections}, sort_keys=False))
    return path


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_we_ship_load(path: Path) -> None:
    study = load_study(path)
    assert Study.from_canonical(study.canonical()) == study


def test_all_studies_are_there() -> None:
    assert [path.stem for path in STUDIES] == [
        "aki",
        "demo-mortality",
        "demo-readmission",
        "heart",
        "length-of-stay",
        "lstm-trajectory",
        "mortality",
        "multi-task",
        "readmission",
        "synthea-readmission",
    ]
    assert {load_study(path).name for path in STUDIES} >= {"demo-readmission-30d", "synthea-readmission"}


def test_defaults_are_those_of_the_language(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    assert study.training.rounds == 30
    assert (study.training.local.epochs, study.training.local.steps) == (1, None)
    assert (study.training.batch_size, study.training.optimizer.lr, study.training.server.lr) == (
        32,
        0.02,
        1.0,
    )
    assert (study.model.hidden, study.model.dropout) == ((256, 128, 64), (0.3, 0.2))
    assert (study.privacy.epsilon, study.privacy.delta, study.privacy.l2_clip_norm) == (1.0, 1e-5, 1.0)
    assert (study.privacy.shares.preprocessing, study.privacy.shares.training) == (0.1, 0.8)
    assert (study.split.test, study.cohort.age.min, study.cohort.min_patients) == (0.3, 18, 20)
    assert (study.aggregation.quorum, study.aggregation.min_sites, study.aggregation.ring_bits) == (
        0.7,
        3,
        32,
    )
    assert study.schedule.cron == "0 2 * * *"
    assert study.outcome_name == "readmission"


def test_the_digest_is_that_of_the_meaning(tmp_path: Path) -> None:
    plain = load_study(written(tmp_path))
    spelt_out = load_study(written(tmp_path, training={"rounds": 30, "local": {"epochs": 1}}))
    other = load_study(written(tmp_path, training={"rounds": 31}))
    assert plain.digest == spelt_out.digest != other.digest
    assert list(json.loads(plain.canonical())) == sorted(json.loads(plain.canonical()))


def test_a_readmission_is_followed_as_long_as_its_label_reaches(tmp_path: Path) -> None:
    yearly = {"kind": "readmission", "within_days": 365}
    plain = load_study(written(tmp_path, outcomes={"r": yearly}))
    spelt_out = load_study(written(tmp_path, outcomes={"r": {**yearly, "follow_up_days": 365}}))
    assert plain.digest == spelt_out.digest


@pytest.mark.parametrize(
    ("sections", "key", "fix"),
    [
        ({"trainig": {}}, "trainig", "training"),
        ({"training": {"round": 3}}, "training.round", "rounds"),
        ({"privacy": {"eps": 1.0}}, "privacy.eps", "epsilon"),
        ({"privacy": {"epsilon": "1e-5"}}, "privacy.epsilon", "1.0e-5"),
        ({"privacy": {"mode": "locl"}}, "privacy.mode", "use local or none"),
        ({"privacy": {"mode": "none"}}, "privacy", "change privacy"),
        ({"training": {"rounds": 0}}, "training.rounds", "change training.rounds"),
        ({"training": {"rounds": 2.5}}, "training.rounds", "change training.rounds"),
        ({"training": {"local": {"steps": 2, "epochs": 1}}}, "training.local", "change training.local"),
        ({"aggregation": {"ring_bits": 3}}, "aggregation.ring_bits", "4, 5"),
        ({"aggregation": {"ring_bits": 17}}, "aggregation.ring_bits", "16 or 32"),
        ({"aggregation": {"ring_bits": 64}}, "aggregation.ring_bits", "16 or 32"),
        (
            {"outcomes": {"r": {"kind": "readmission", "within_day": 3}}},
            "outcomes.r.within_day",
            "within_days",
        ),
        ({"outcomes": {"r": {"within_days": 3}}}, "outcomes.r", "outcomes.r.kind"),
        ({"outcomes": {"r": {"kind": "death", "within": "stay"}}}, "death", "change one"),
        (
            {"outcomes": {"r": {"kind": "readmission", "within_days": 365, "follow_up_days": 30}}},
            "follow_up_days must reach within_days",
            "change outcomes.r",
        ),
        ({"outcomes": {"r": {"kind": "readmission", "within_days": 0}}}, "within_days", "change outcomes.r"),
        ({"privacy": {"shares": {"training": 0.0}}}, "privacy.shares", "change privacy.shares"),
        ({"name": "Has Spaces"}, "name", "a-z, 0-9 and single -"),
        ({"features": {"window_h": [-48, 1]}}, "features", "change features"),
    ],
)
def test_what_breaks_the_language_is_one_line(
    tmp_path: Path, sections: dict[str, Any], key: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, **sections))
    assert key in caught.value.problem
    assert fix in caught.value.fix
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


DISCHARGE: dict[str, Any] = {"at": "discharge"}
DAY: dict[str, Any] = {"at": "admission", "plus_h": 24}
STEPS: dict[str, Any] = {"at": "every", "step_h": 24}
CODES: dict[str, Any] = {"codes": ["urn:x|a"], "within_days": 1}
VALUES: dict[str, Any] = {"positive": ["yes"], "negative": ["no"]}


@pytest.mark.parametrize(
    ("prediction", "outcome", "problem"),
    [
        (DISCHARGE, {"kind": "death", "within": "stay"}, "known at discharge"),
        (DISCHARGE, {"kind": "kidney_injury"}, "known at discharge"),
        (DISCHARGE, {"kind": "icu_transfer"}, "known at discharge"),
        (DISCHARGE, {"kind": "length_of_stay"}, "known at discharge"),
        (DISCHARGE, {"kind": "length_of_stay", "over_days": 7}, "known at discharge"),
        (DISCHARGE, {"kind": "disposition"}, "known at discharge"),
        (DAY, {"kind": "death", "within_days": 1}, "outcomes.it.within_days: the window is over"),
        (STEPS, {"kind": "death", "within_days": 1}, "outcomes.it.within_days: the window is over"),
        (DAY, {"kind": "condition", **CODES}, "outcomes.it.within_days: the window is over"),
        (DAY, {"kind": "observation", **CODES, **VALUES}, "outcomes.it.within_days: the window is over"),
        (DAY, {"kind": "length_of_stay", "over_days": 1}, "outcomes.it.over_days: the window is over"),
        (DAY, {"kind": "death"}, "exactly one of within"),
        (DAY, {"kind": "disposition", "classes": ["home", "away"]}, "outcomes.it.classes[1]"),
        (DAY, {"kind": "disposition", "classes": ["home", "home"]}, "twice"),
        (DAY, {"kind": "disposition", "classes": ["home"]}, "outcomes.it.classes"),
        (
            DISCHARGE,
            {"kind": "observation", **CODES, "positive": ["Yes"], "negative": ["yes"]},
            "both positive and negative",
        ),
        (DISCHARGE, {"kind": "condition", "codes": ["I25*"], "within_days": 9}, "outcomes.it.codes[0]"),
        (DISCHARGE, {"kind": "condition", "codes": ["omop|1*"], "within_days": 9}, "omop|NUMBER"),
        (DISCHARGE, {"kind": "condition", "codes": [], "within_days": 9}, "outcomes.it.codes"),
        ({"at": "every"}, {"kind": "readmission"}, "step_h belongs"),
        ({"at": "every", "step_h": 0.1}, {"kind": "readmission"}, "prediction.step_h"),
        ({"at": "admission"}, {"kind": "readmission"}, "plus_h belongs"),
    ],
)
def test_what_is_known_by_the_prediction_is_not_predicted(
    tmp_path: Path, prediction: dict[str, Any], outcome: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, prediction=prediction, outcomes={"it": outcome}))
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"cohort": {"age": {"min": 90, "max": 18}}}, "nobody is that old"),
        (
            {"cohort": {"exclude": {"event_before_h": 30}}, "outcomes": {"l": {"kind": "length_of_stay"}}},
            "event_before_h",
        ),
        (
            {"cohort": {"index": {"visit": "outpatient"}}, "outcomes": {"d": {"kind": "disposition"}}},
            "is none",
        ),
        ({"outcomes": {"l": {"kind": "length_of_stay"}}, "split": {"stratify": True}}, "has no classes"),
        ({"split": {"stratify": True, "assigned": "urn:x|split"}}, "keep one"),
        ({"split": {"stratify": True}, "privacy": {}}, "needs privacy.mode none"),
        ({"split": {"assigned": "split"}}, "split.assigned"),
        ({"split": {"validation": 1.0}}, "less than 1"),
        ({"training": {"server": {"tau": 0.1}}}, "tau belongs to kind"),
        ({"training": {"search": {"rounds": 3}}}, "rounds belongs to lr"),
        ({"privacy": {"mode": "none", "legal_basis": "public", "epsilon": 3.0}}, "epsilon promises"),
        (
            {"privacy": {"mode": "none", "legal_basis": "public", "l2_clip_norm": 0.5}},
            "l2_clip_norm promises",
        ),
        ({"features": {"preset": None, "window_h": [-24, 0]}}, "window_h belongs to the preset"),
        ({"aggregation": {"sent_share": 0.5}}, "goes with compressed updates"),
        ({"aggregation": {"ring_bits": 6, "sent_share": 0.0}}, "above 0"),
        (
            {"aggregation": {"ring_bits": 6, "sent_share": 0.5}, "privacy": {}},
            "sent_share needs privacy.mode none",
        ),
        (
            {
                "aggregation": {"ring_bits": 6, "sent_share": 0.5},
                "training": {"search": {"lr": [0.1, 0.2]}},
            },
            "neither training.search nor scaffold",
        ),
        (
            {
                "aggregation": {"ring_bits": 6, "sent_share": 0.5},
                "training": {"algorithm": "scaffold", "local": {"steps": 5}},
            },
            "neither training.search nor scaffold",
        ),
        (
            {
                "aggregation": {"ring_bits": 8},
                "training": {"initial": {"model": "a/1", "digest": "ab" * 32, "freeze": ["layers.0.*"]}},
            },
            "rounding moves every parameter",
        ),
        (
            {
                "aggregation": {"ring_bits": 8},
                "model": {"kind": "gbm"},
                "outcomes": {"d": {"kind": "death", "within_days": 30}},
            },
            "grows by exact sums",
        ),
    ],
)
def test_sections_that_do_not_fit_one_another_are_one_line(
    tmp_path: Path, sections: dict[str, Any], problem: str
) -> None:
    open_data = {"mode": "none", "legal_basis": "public data"}
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, **{"prediction": DAY, "privacy": open_data, **sections}))
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "outcome",
    [
        {"kind": "readmission"},
        {"kind": "death", "within_days": 2},
        {"kind": "survival"},
        {"kind": "condition", **CODES},
        {"kind": "observation", **CODES, **VALUES},
    ],
)
def test_what_comes_after_discharge_is_predicted_then(tmp_path: Path, outcome: dict[str, Any]) -> None:
    assert load_study(written(tmp_path, outcomes={"it": outcome})).outcome.kind == outcome["kind"]


def test_the_order_of_outcomes_in_the_file_means_nothing(tmp_path: Path) -> None:
    one, other = {"kind": "readmission"}, {"kind": "survival"}
    forth = load_study(written(tmp_path, outcomes={"b": one, "a": other}))
    path = tmp_path / "back.yaml"
    path.write_text(yaml.safe_dump({**SMALLEST, "outcomes": {"a": other, "b": one}}, sort_keys=False))
    assert forth.digest == load_study(path).digest
    for study in (forth, load_study(path), Study.from_canonical(forth.canonical())):
        assert [target.name for target in targets_of(study)] == ["a", "b"]
        assert study.outcome_name == "a"


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"training": {"algorithm": "fedbuff"}}, "training.algorithm"),
        ({"privacy": {"mode": "distributed"}}, "privacy.mode"),
        ({"privacy": {"linkage_factor": 2}}, "privacy.linkage_factor"),
        ({"evaluation": {"min_cell": 20}}, "evaluation.min_cell"),
        ({"erasure": "keep"}, "erasure"),
        ({"release": {"reviewers": 7}}, "release"),
        ({"schedule": {"cron": "0 3 * * *"}}, "schedule"),
    ],
)
def test_what_is_not_built_is_refused_by_its_key(tmp_path: Path, sections: dict[str, Any], key: str) -> None:
    path = written(tmp_path, **sections)
    with pytest.raises(ConfigError, match="not built") as caught:
        load_study(path)
    assert caught.value.problem.startswith(key)
    study = Study.model_validate_json(json.dumps({**SMALLEST, **sections}))
    with pytest.raises(ConfigError, match="not built"):
        Study.from_canonical(study.canonical())


@pytest.mark.parametrize(
    "aggregation", [{"ring_bits": 4}, {"ring_bits": 16}, {"ring_bits": 6, "sent_share": 0.25}]
)
def test_a_study_may_compress_its_updates(tmp_path: Path, aggregation: dict[str, Any]) -> None:
    open_data = {"mode": "none", "legal_basis": "public data"}
    study = load_study(written(tmp_path, aggregation=aggregation, privacy=open_data))
    assert study.aggregation.compresses
    assert study.aggregation.model_dump().items() >= aggregation.items()


def test_every_key_in_the_table_of_what_is_built_exists() -> None:
    study = Study.model_validate_json(json.dumps(SMALLEST))
    refuse_unbuilt(study)
    assert len({row.key for row in BUILT} | set(DEFAULTS_ONLY)) == len(BUILT) + len(DEFAULTS_ONLY)


@pytest.mark.parametrize(
    "text",
    ["", "- a\n", "a: [", "schema_version: 1\nschema_version: 1\n", "name: 2020-01-01\n", "name: .nan\n"],
    ids=["empty", "list", "syntax", "twice", "date", "nan"],
)
def test_what_is_no_mapping_of_plain_values_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "fix"),
    [
        ({"split": {"assigned": "split"}}, "write system|code"),
        ({"model": {"kind": "mlp", "hidden": 64}}, "write it in brackets: [64]"),
        ({"training": {"initial": {"model": "readmission", "digest": "0" * 64}}}, "write name/version"),
        ({"model": {"kind": "mlp"}, "features": {"series": {"steps": 10}}}, "use an lstm"),
    ],
    ids=str,
)
def test_a_fix_says_what_to_write(tmp_path: Path, sections: dict[str, Any], fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, **sections))
    assert fix in caught.value.fix


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_study(tmp_path / "none.yaml")


def test_bytes_that_are_not_canonical_are_refused(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    with pytest.raises(ConfigError, match="canonical"):
        Study.from_canonical(json.dumps(json.loads(study.canonical()), indent=1).encode())


def test_the_preset_has_128_columns_in_a_fixed_order(tmp_path: Path) -> None:
    columns = feature_columns(load_study(written(tmp_path)))
    names = [column.name for column in columns]
    assert len(names) == len(set(names)) == 128
    assert names[:3] == ["age", "sex", "emergency_admission"]
    assert names[8:14] == [f"heart_rate_{one}" for one in ("last", "min", "max", "mean", "slope", "missing")]
    assert all(column.low < column.high for column in columns)
    assert all((column.low, column.high) == (0, 1) for column in columns if column.kind == "flag")
    assert sum(column.kind == "flag" for column in columns) == 22


def test_series_features_are_those_of_the_vocabulary_in_its_units() -> None:
    assert [feature.name for feature in SERIES] == list(SERIES_CONCEPTS)
    for feature in SERIES:
        assert {concept.unit for concept in SERIES_CONCEPTS[feature.name]} == {feature.unit}
        assert feature.low <= feature.clip_low < feature.clip_high <= feature.high


@pytest.mark.parametrize(
    "training",
    [
        {"algorithm": "fedbn"},
        {"personal": ["x"]},
        {"fine_tune": {"epochs": 1}},
        {"search": {"lr": [0.1, 0.3]}},
        {"local": {"steps": 20}},
        {"optimizer": {"lr": 0.1}},
        {"batch_size": 64},
        {"weighting": "uniform"},
    ],
    ids=str,
)
def test_models_that_grow_by_sums_have_no_keys_of_networks(tmp_path: Path, training: dict[str, Any]) -> None:
    sections = {
        "model": {"kind": "gbm"},
        "privacy": {"mode": "none", "legal_basis": "public"},
        "training": training,
    }
    with pytest.raises(ConfigError, match="grows by sums"):
        load_study(written(tmp_path, **sections))


@pytest.mark.parametrize("model", [{"kind": "gbm"}, {"kind": "cox"}], ids=str)
def test_models_that_grow_by_sums_are_not_encrypted(tmp_path: Path, model: dict[str, Any]) -> None:
    sections = {
        "model": model,
        "privacy": {"mode": "none", "legal_basis": "public"},
        "aggregation": {"mode": "he"},
    }
    if model["kind"] == "cox":
        sections["outcomes"] = {"s": {"kind": "survival"}}
    with pytest.raises(ConfigError, match="grows by masked sums"):
        load_study(written(tmp_path, **sections))


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        ({"search": {"lr": [0.1]}}, "two or more different rates"),
        ({"search": {"lr": [0.1, 0.1]}}, "two or more different rates"),
        ({"search": {"lr": [0.1, 0.0]}}, "greater than 0"),
        ({"search": {"lr": [0.1, 0.3], "rounds": 1}}, "greater than or equal to 2"),
        ({"search": {"lr": [0.1, 0.3], "rounds": 3}, "rounds": 6}, "search takes 6 rounds"),
        ({"search": {"lr": [0.1, 0.3]}, "algorithm": "fedbn"}, "remember nothing"),
        ({"search": {"lr": [0.1, 0.3]}, "algorithm": "scaffold", "local": {"steps": 5}}, "remember nothing"),
        ({"search": {"lr": [0.1, 0.3]}, "personal": ["heads.*"]}, "remember nothing"),
    ],
    ids=str,
)
def test_a_search_that_cannot_be_is_refused(tmp_path: Path, training: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_study(written(tmp_path, training=training))


def test_scaffold_has_no_personal_parameters(tmp_path: Path) -> None:
    training = {"algorithm": "scaffold", "local": {"steps": 5}, "personal": ["heads.*"]}
    with pytest.raises(ConfigError, match="no control of personal parameters"):
        load_study(written(tmp_path, training=training))
