"""A site's policy is its own: strict, and nothing in a study widens it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedhealth.errors import ConfigError, PolicyError
from fedhealth.study import Study
from fedhealth.study.policy import SitePolicy, allowances, demands_of


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
        ({"min_colluders": 2}, {}, 4, "withstands too few colluding sites"),
        ({"min_ring_bits": 8}, {"aggregation": {"ring_bits": 6}}, 3, "too small a ring"),
        ({"min_ring_bits": 32}, {"aggregation": {"ring_bits": 16}}, 3, "too small a ring"),
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


@pytest.mark.parametrize(
    ("policy", "sections", "fix"),
    [
        ({"allowed_studies": ["death-*"]}, {}, "write allowed_studies: [readmission-30d] into"),
        ({"min_sites": 5}, {}, "enrol more sites, or write min_sites: 4 or fewer into"),
        ({"min_colluders": 2}, {}, "raise aggregation.colluders, or write min_colluders: 1 or fewer into"),
        ({}, {"privacy": {"epsilon": 12}}, "lower privacy.epsilon, or write max_epsilon: 12.0 or more into"),
        ({}, {"privacy": {"delta": 1e-4}}, "lower privacy.delta, or write max_delta: 0.0001 or more into"),
        ({"max_delta": 1e-9}, {}, "write max_delta: 1.0e-05 or more into"),
        (
            {},
            {"aggregation": {"mode": "plain"}},
            "set aggregation.mode to masks, or write require_masks: false",
        ),
        (
            {"allow_without_privacy": ["consented"]},
            {"privacy": {"mode": "none", "legal_basis": "public"}},
            'set privacy.mode to local, or write allow_without_privacy: ["public"] into',
        ),
    ],
)
def test_a_refusal_names_the_key_and_what_it_must_say(
    policy: dict[str, Any], sections: dict[str, Any], fix: str
) -> None:
    rules = SitePolicy.model_validate_json(json.dumps(policy))
    with pytest.raises(PolicyError) as caught:
        rules.check(study(**sections), n_sites=4)
    assert fix in caught.value.fix
    key = fix.partition("write ")[2].partition(":")[0]
    assert f"({key})" in caught.value.problem


def test_all_rules_that_say_no_are_told_at_once() -> None:
    wild = study(aggregation={"mode": "plain"}, privacy={"epsilon": 11.0})
    with pytest.raises(PolicyError) as caught:
        SitePolicy(min_sites=9).check(wild, n_sites=3)
    for key in ("max_epsilon", "require_masks", "min_sites"):
        assert f"({key})" in caught.value.problem
        assert f"{key}: " in caught.value.fix


@pytest.mark.parametrize(
    ("sections", "first"),
    [
        ({"aggregation": {"mode": "plain"}}, "require_masks: false, "),
        ({"privacy": {"epsilon": 20.0}}, "max_epsilon: 20.0 or more, "),
        ({"privacy": {"mode": "none", "legal_basis": "public"}}, "allowed_studies: [readmission-30d], "),
    ],
)
def test_a_policy_of_what_a_study_asks_for_allows_it(sections: dict[str, Any], first: str) -> None:
    """And first stands what the policy of a site without a file does not say."""
    asked = study(**sections)
    assert allowances(asked, n_sites=3).startswith(first)
    said = {
        each.key: yaml.safe_load(each.allowance.split(" or ")[0]) for each in demands_of(asked, n_sites=3)
    }
    SitePolicy.model_validate_json(json.dumps(said)).check(asked, n_sites=3)


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
