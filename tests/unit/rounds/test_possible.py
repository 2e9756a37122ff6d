"""What so many enrolled sites cannot carry out is refused before any has begun, with what would mend it."""

import pytest
from simulator.network import make_study

from fedhealth.errors import ConfigError, PolicyError
from fedhealth.rounds.possible import check_possible, fix_of_quorum
from fedhealth.secagg.plan import colluders_withstood

CATEGORY = {"name": "pain", "codes": ["urn:x|cp"]}
LOCAL = {"mode": "local"}


def hospitals(count):
    return tuple(f"hospital-{number:02d}" for number in range(count))


def refusal(count, **sections):
    with pytest.raises(PolicyError) as caught:
        check_possible(make_study(**sections), hospitals(count))
    return caught.value


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"aggregation": {"mode": "he"}},
        {"aggregation": {"mode": "plain", "robust": "median"}},
        {"aggregation": {"robust": "plausibility"}},
        {"aggregation": {"min_sites": 9, "colluders": 4}},
        {"aggregation": {"robust": "groups"}},
        {"aggregation": {"ring_bits": 6}},
        {"training": {"rounds": 2, "local": {"epochs": 1}, "personal": ["layers.0.*"]}},
        {"model": {"kind": "linear"}},
    ],
)
def test_what_nine_sites_can_carry_out_is_not_refused(sections):
    check_possible(make_study(**sections), hospitals(9))


def test_more_sites_than_there_are():
    error = refusal(5, aggregation={"min_sites": 7})
    assert "min_sites is 7, and 5 sites are enrolled" in error.problem
    assert error.fix == "enrol 2 more, or lower aggregation.min_sites to at most 5"
    check_possible(make_study(aggregation={"min_sites": 5}), hospitals(5))
    check_possible(make_study(aggregation={"min_sites": 7}), hospitals(7))
    assert "only 2 sites" in refusal(2).problem


@pytest.mark.parametrize("count", [3, 4, 6, 15])
def test_more_colluders_than_so_many_sites_withstand(count):
    withstood = colluders_withstood(count)
    check_possible(make_study(aggregation={"colluders": withstood}), hospitals(count))
    error = refusal(count, aggregation={"colluders": withstood + 1})
    assert f"withstand {withstood} colluders" in error.problem
    assert f"at most {withstood}" in error.fix
    enough = int(error.fix.removesuffix(" sites").rpartition(" ")[2])
    check_possible(make_study(aggregation={"colluders": withstood + 1}), hospitals(enough))


def test_fewer_sites_than_the_groups_need():
    error = refusal(8, aggregation={"robust": "groups"})
    assert "8 sites make no 3 groups of 3" in error.problem
    assert "enrol at least 9 sites" in error.fix


def test_groups_that_withstand_fewer_colluders_than_their_sites_together():
    error = refusal(12, aggregation={"robust": "groups", "group_size": 4, "colluders": 2})
    assert "0 of 3 groups withstand 2 colluders" in error.problem
    assert "lower aggregation.colluders to at most 1" in error.fix
    check_possible(make_study(aggregation={"robust": "groups", "group_size": 4}), hospitals(12))


def test_more_sites_than_an_encrypted_sum_is_exact_for():
    assert "set aggregation.mode to masks" in refusal(257, aggregation={"mode": "he"}).fix
    check_possible(make_study(aggregation={"mode": "he"}), hospitals(256))


def test_a_network_that_is_too_small_to_be_judged():
    judged = {"robust": "plausibility"}
    error = refusal(5, aggregation=judged, model={"kind": "linear"})
    assert "256" in error.problem
    assert "larger network" in error.fix
    freed = {"rounds": 2, "local": {"epochs": 1}, "personal": ["layers.0.*"]}
    assert "256" in refusal(5, aggregation=judged, training=freed).problem  # what travels is what is judged


def test_a_network_whose_size_the_study_does_not_tell_is_left_to_the_rounds():
    features = {"preset": "default-128", "categories": [CATEGORY]}
    sections = {"model": {"kind": "linear"}, "aggregation": {"robust": "plausibility"}, "privacy": LOCAL}
    check_possible(make_study(features=features, **sections), hospitals(5))


def test_a_pattern_of_no_parameter():
    training = {"rounds": 2, "local": {"epochs": 1}, "personal": ["tail.*"]}
    with pytest.raises(ConfigError, match="is that of no parameter"):
        check_possible(make_study(training=training), hospitals(3))


@pytest.mark.parametrize(
    ("aggregation", "ready", "reasons", "words"),
    [
        ({"mode": "plain"}, 0, ["policy"], ("site's log", "require_masks: false", "min_sites: 6 or fewer")),
        ({}, 3, ["policy", "validation"], ("allowed_studies: [tiny]", "allow_without_privacy")),
        ({"robust": "groups"}, 3, ["policy"], ("min_sites: 3 or fewer",)),
        ({}, 2, ["validation"], ("no sum is over fewer than 3",)),
        ({"min_sites": 5}, 4, ["no answer"], ("lower aggregation.min_sites to at most 4",)),
        ({"quorum": 0.9}, 4, ["no answer"], ("lower aggregation.quorum",)),
    ],
)
def test_too_few_ready_sites_are_mended_where_it_is_their_reason(aggregation, ready, reasons, words):
    study = make_study(aggregation=aggregation)
    fix = fix_of_quorum(study, hospitals(6), ready=ready, reasons=reasons)
    assert all(word in fix for word in words), fix
