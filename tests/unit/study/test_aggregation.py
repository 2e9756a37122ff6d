"""A way of aggregating loads where it fits, and is refused elsewhere with the key to change and its value."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedhealth.errors import ConfigError
from fedhealth.study import load_study
from fedhealth.study.built import BUILT

SMALLEST = {"schema_version": 1, "name": "small", "outcomes": {"readmission": {"kind": "readmission"}}}
NONE = {"mode": "none", "legal_basis": "public data"}


def written(folder: Path, **sections: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**SMALLEST, **sections}, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("aggregation", "fix"),
    [
        ({"min_sites": 2}, "set aggregation.min_sites to 3 or more"),
        ({"mode": "he", "min_sites": 2}, "set aggregation.min_sites to 3 or more"),
        ({"mode": "he", "ring_bits": 6}, "set aggregation.ring_bits to 32"),
        ({"mode": "plain", "ring_bits": 6}, "set aggregation.ring_bits to 32"),
        ({"robust": "plausibility", "ring_bits": 6}, "set aggregation.ring_bits to 32"),
        ({"mode": "he", "robust": "groups"}, "set aggregation.mode to masks"),
        ({"mode": "plain", "robust": "plausibility"}, "set aggregation.mode to masks"),
        ({"robust": "median"}, "set aggregation.mode to plain, or aggregation.robust to plausibility"),
        ({"attackers": 2}, "remove aggregation.attackers"),
        ({"mode": "plain", "robust": "krum", "attackers": 2}, "set aggregation.min_sites to 7 or more"),
        ({"group_size": 4}, "remove aggregation.group_size"),
        ({"robust": "groups", "colluders": 3}, "set aggregation.group_size to 5 or more"),
        ({"sent_share": 0.0}, "set aggregation.sent_share to 1.0"),
        ({"sent_share": 0.5}, "set aggregation.ring_bits to 4 to 16, or aggregation.sent_share to 1.0"),
    ],
)
def test_a_way_of_aggregating_that_does_not_fit_is_told_with_key_and_value(
    tmp_path: Path, aggregation: dict[str, Any], fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, aggregation=aggregation))
    assert caught.value.problem.startswith("the study study.yaml: aggregation: ")
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    "aggregation",
    [
        {"mode": "plain"},
        {"mode": "he"},
        {"robust": "plausibility"},
        {"ring_bits": 8},
    ],
)
def test_what_a_fix_says_of_a_model_that_grows_by_sums_is_accepted(
    tmp_path: Path, aggregation: dict[str, Any]
) -> None:
    boosted = {"model": {"kind": "gbm"}, "privacy": {"mode": "none", "legal_basis": "public data"}}
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, aggregation=aggregation, **boosted))
    assert caught.value.fix in (
        "set aggregation.mode to masks and aggregation.robust to none",
        "set aggregation.mode to masks",
        "remove aggregation.ring_bits",
    )
    assert load_study(written(tmp_path, aggregation={"mode": "masks", "robust": "none"}, **boosted))


def test_a_fix_names_no_value_that_is_not_built(tmp_path: Path) -> None:
    for key, values in ((row.key, row.values) for row in BUILT if isinstance(row.values[0], str)):
        section, _, name = key.partition(".")
        with pytest.raises(ConfigError) as caught:
            load_study(written(tmp_path, **{section: {name: "nonsense"}}))
        assert caught.value.fix == f"use {' or '.join(map(str, values))}"


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"aggregation": {"robust": "median"}}, "needs every update in the clear"),
        ({"aggregation": {"robust": "krum", "min_sites": 5}}, "needs every update in the clear"),
        ({"aggregation": {"mode": "plain", "robust": "plausibility"}}, "what masks leave room for"),
        ({"aggregation": {"attackers": 2}}, "attackers belongs to"),
        ({"aggregation": {"mode": "he", "robust": "plausibility"}}, "what masks leave room for"),
        ({"aggregation": {"mode": "plain", "ring_bits": 8}}, "ring_bits under 32 wrap"),
        ({"aggregation": {"robust": "plausibility", "ring_bits": 8}}, "ring_bits under 32 wrap"),
        ({"aggregation": {"mode": "plain", "robust": "median", "attackers": 2}}, "attackers belongs to"),
        ({"aggregation": {"mode": "plain", "robust": "krum"}}, "aggregation.min_sites to 5 or more"),
        (
            {"aggregation": {"mode": "plain", "robust": "trimmed_mean", "attackers": 3, "min_sites": 6}},
            "aggregation.min_sites to 7 or more",
        ),
        (
            {"aggregation": {"robust": "plausibility"}, "model": {"kind": "gbm"}, "privacy": NONE},
            "masked sums",
        ),
        ({"aggregation": {"mode": "plain"}, "model": {"kind": "gbm"}, "privacy": NONE}, "masked sums"),
        (
            {"aggregation": {"robust": "plausibility"}, "privacy": {"mode": "distributed"}},
            "set privacy.mode to local",
        ),
        (
            {
                "aggregation": {"mode": "plain", "robust": "median"},
                "training": {"algorithm": "scaffold", "local": {"steps": 5}},
            },
            "gives no mean",
        ),
        ({"aggregation": {"mode": "plain", "robust": "groups"}}, "what masks leave room for"),
        ({"aggregation": {"robust": "groups", "ring_bits": 8}}, "ring_bits under 32 wrap"),
        (
            {
                "aggregation": {"robust": "groups"},
                "features": {"categories": [{"name": "pain", "codes": ["urn:x|cp"]}]},
                "privacy": NONE,
            },
            "one site alone of a group may have a code",
        ),
        ({"aggregation": {"group_size": 4}}, "group_size belongs to robust groups"),
        ({"aggregation": {"robust": "groups", "colluders": 2}}, "aggregation.group_size to 4 or more"),
        ({"aggregation": {"robust": "groups"}, "model": {"kind": "cox"}, "privacy": NONE}, "masked sums"),
        (
            {"aggregation": {"robust": "groups"}, "privacy": {"mode": "distributed"}},
            "set privacy.mode to local",
        ),
        (
            {
                "aggregation": {"robust": "groups"},
                "training": {"algorithm": "scaffold", "local": {"steps": 5}},
            },
            "gives no mean",
        ),
    ],
)
def test_robust_rules_go_with_what_they_can_see(tmp_path: Path, sections: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        load_study(written(tmp_path, **sections))


@pytest.mark.parametrize(
    "aggregation",
    [
        {"mode": "plain"},
        {"mode": "plain", "robust": "centred_clipping"},
        {"mode": "plain", "robust": "multi_krum", "attackers": 3, "min_sites": 9},
        {"robust": "plausibility"},
        {"robust": "groups"},
        {"robust": "groups", "attackers": 2, "group_size": 5, "colluders": 3},
    ],
)
def test_robust_rules_load_where_they_fit(tmp_path: Path, aggregation: dict[str, Any]) -> None:
    assert load_study(written(tmp_path, aggregation=aggregation)).aggregation.robust == aggregation.get(
        "robust", "none"
    )
