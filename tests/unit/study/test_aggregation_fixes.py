"""A way of aggregating that cannot be is refused with the key to change and its value."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedhealth.errors import ConfigError
from fedhealth.study import load_study
from fedhealth.study.built import BUILT

SMALLEST = {"schema_version": 1, "name": "small", "outcomes": {"readmission": {"kind": "readmission"}}}


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
