"""A site's policy is its own: strict, and nothing in a study widens it."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedhealth.errors import ConfigError, PolicyError
from fedhealth.study import Study
from fedhealth.study.policy import SitePolicy


def study(**sections: Any) -> Study:
    base = {"schema_version": 1, "name": "readmission-30d", "outcomes": {"r": {"kind": "readmission"}}}
    return Study.model_validate_json(json.dumps({**base, **sections}))


def test_the_default_policy_allows_an_ordinary_study_of_three_sites() -> None:
    SitePolicy().check(study(), n_sites=3)


@pytest.mark.parametrize(
    ("policy", "sections", "n_sites", "reason"),
    [
        ({}, {}, 2, "too few sites"),
        ({}, {"privacy": {"epsilon": 10.5}}, 3, "ceiling"),
        ({}, {"privacy": {"delta": 1e-4}}, 3, "ceiling"),
        ({}, {"aggregation": {"mode": "plain"}}, 3, "not masked"),
        ({"allowed_studies": ["death-*"]}, {}, 3, "name is not allowed"),
        ({"allowed_studies": []}, {}, 3, "name is not allowed"),
        ({"min_sites": 5}, {}, 4, "too few sites"),
        ({"max_epsilon": 0.5}, {}, 3, "ceiling"),
        (
            {"allow_without_privacy": []},
            {"privacy": {"mode": "none", "legal_basis": "public"}},
            3,
            "legal basis",
        ),
    ],
)
def test_each_rule_says_no(
    policy: dict[str, Any], sections: dict[str, Any], n_sites: int, reason: str
) -> None:
    rules = SitePolicy.model_validate_json(json.dumps(policy))
    with pytest.raises(PolicyError, match=reason):
        rules.check(study(**sections), n_sites=n_sites)


def test_encrypted_updates_count_as_masked() -> None:
    SitePolicy(require_masks=True).check(study(aggregation={"mode": "he"}), n_sites=3)


def test_the_larger_minimum_of_site_and_study_counts() -> None:
    policy = SitePolicy(min_cohort_patients=30)
    policy.check_cohort(study(), patients=30)
    with pytest.raises(PolicyError) as caught:
        policy.check_cohort(study(), patients=29)
    assert "29" not in str(caught.value)
    with pytest.raises(PolicyError):
        SitePolicy().check_cohort(study(), patients=19)


def test_a_policy_file_is_strict_and_never_silently_the_default(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    assert SitePolicy.load(path) == SitePolicy()
    path.write_text("max_epsilon: 2.0\nallowed_studies: ['readmission-*']\n")
    assert SitePolicy.load(path).max_epsilon == 2.0
    path.write_text("max_epsilonn: 2.0\n")
    with pytest.raises(ConfigError, match=r"max_epsilonn is not a key.*did you mean max_epsilon"):
        SitePolicy.load(path)
    path.write_text("max_epsilon: [\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        SitePolicy.load(path)
