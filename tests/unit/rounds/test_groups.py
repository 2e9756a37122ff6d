"""Who is in which group, what a group's sum needs, and what one group that may be anything does to the result."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.network import make_study

from fedhealth.errors import PolicyError
from fedhealth.rounds.aggregate import Aggregate
from fedhealth.rounds.groups import (
    check_groups,
    circle_of,
    groups_of,
    left_out,
    round_result,
    smallest_circle,
)
from fedhealth.rounds.layout import RoundShape
from fedhealth.rounds.objects import MOST_GROUPS, purposes_of, sum_counter, trains
from fedhealth.rounds.plain import GRID

MODEL = {"a": np.zeros((2, 2), np.float32), "b": np.zeros(3, np.float32)}
NAMES = ("evaluation", "update/0", "update/1", "update/2")
WIDE = st.floats(-1.0, 1.0, width=32)


def grouped(**aggregation):
    return make_study(aggregation={"robust": "groups"} | aggregation)


def hospitals(count):
    return tuple(f"hospital-{number:02d}" for number in range(count))


def part_of_group(number, values, **metrics):
    tensors = {"a": np.full((2, 2), values, np.float32), "b": np.full(3, values, np.float32)}
    sites = tuple(f"hospital-{3 * number + place:02d}" for place in range(3))
    return Aggregate(tensors=tensors, metrics=metrics).with_survivors(f"update/{number}", sites)


def result_of(*parts, **aggregation):
    study = grouped(**aggregation)
    named = {"evaluation": Aggregate(metrics={"auroc": 0.7}).with_survivors("evaluation", hospitals(9))}
    named |= {next(iter(part.survivors)): part for part in parts}
    shape = RoundShape(study=study, purposes=tuple(named), model=MODEL, statistics=None)
    return round_result(shape, named)


@settings(deadline=None)
@given(st.integers(3, 60), st.integers(3, 7), st.randoms())
def test_every_site_is_in_one_group_and_no_group_is_below_its_size(count, size, random):
    study, sites = grouped(group_size=size), list(hospitals(count))
    groups = groups_of(study, sites)
    assert len(groups) == count // size
    if groups:
        assert sorted(site for group in groups for site in group) == sites
        assert min(map(len, groups)) >= size
        assert max(map(len, groups)) - min(map(len, groups)) <= 1
    random.shuffle(sites)
    assert groups_of(study, sites) == groups


def test_another_study_has_other_groups():
    assert groups_of(grouped(), hospitals(15)) != groups_of(grouped(quorum=0.8), hospitals(15))


def test_groups_of_a_known_study_do_not_change_from_version_to_version():
    class Known:
        digest = "0" * 64
        aggregation = grouped().aggregation

    assert groups_of(Known, hospitals(9)) == (
        ("hospital-02", "hospital-03", "hospital-07"),
        ("hospital-04", "hospital-05", "hospital-06"),
        ("hospital-00", "hospital-01", "hospital-08"),
    )


def test_a_round_has_one_sum_for_each_group_each_under_a_counter_of_its_own():
    names = purposes_of(grouped(), 1, is_final=False, sites=9)
    assert names == NAMES
    assert trains(names)
    many = purposes_of(grouped(), 1, is_final=False, sites=1000)
    assert len(many) == MOST_GROUPS + 1
    assert max(sum_counter(1, many, name) for name in many) < sum_counter(2, many, many[0])
    assert purposes_of(grouped(), 4, is_final=True, sites=9) == ("evaluation",)


def test_an_update_is_of_one_group_and_all_else_of_everybody():
    study, sites = grouped(), hospitals(11)
    groups = groups_of(study, sites)
    assert circle_of(study, "evaluation", sites).sites == sites
    assert [circle_of(study, f"update/{number}", sites).sites for number in range(3)] == list(groups)
    assert circle_of(make_study(), "update", sites).sites == sites
    assert smallest_circle(study, sites) == 3
    assert smallest_circle(make_study(), sites) == 11


def test_quorum_and_threshold_are_those_of_the_group():
    circle = circle_of(grouped(group_size=6, quorum=0.8), "update/0", hospitals(18))
    assert circle.least_cohort == 5
    assert [circle.can_sum(circle.sites[:count]) for count in (4, 5, 6)] == [False, True, True]
    assert [circle.survivors_needed(cohort) for cohort in (5, 6)] == [4, 5]


def test_a_group_that_does_not_withstand_the_colluders_is_not_summed():
    circle = circle_of(grouped(group_size=5, colluders=3), "update/0", hospitals(18))
    assert [circle.can_sum(circle.sites[:count]) for count in (4, 5, 6)] == [False, False, True]
    assert circle.survivors_needed(6) == 5


def test_two_sites_beside_the_colluders_must_last():
    circle = circle_of(grouped(group_size=4, colluders=2, quorum=0.5), "update/0", hospitals(12))
    assert not circle.can_sum(circle.sites[:3])


@pytest.mark.parametrize(("attackers", "sites"), [(1, 9), (2, 15)])
def test_a_study_needs_sites_for_one_group_more_than_twice_its_attackers(attackers, sites):
    study = grouped(attackers=attackers)
    check_groups(study, hospitals(sites))
    check_groups(make_study(), hospitals(3))
    with pytest.raises(PolicyError, match=f"{sites - 1} sites make no {2 * attackers + 1} groups of 3"):
        check_groups(study, hospitals(sites - 1))


@given(st.lists(WIDE, min_size=4, max_size=7), WIDE, st.integers(0, 6))
def test_whatever_one_group_says_every_parameter_stays_between_the_others(honest, wrong, place):
    values = [*honest[: place % len(honest)], wrong, *honest[place % len(honest) :]]
    found = result_of(*(part_of_group(number, value) for number, value in enumerate(values)))
    for tensor in found.tensors.values():
        assert tensor.min() >= min(honest) - GRID
        assert tensor.max() <= max(honest) + GRID


def test_of_three_groups_it_is_the_median_and_of_five_the_mean_of_the_middle():
    three = result_of(*(part_of_group(number, value) for number, value in enumerate((0.1, -1.0, 0.25))))
    np.testing.assert_allclose(three.tensors["b"], 0.1, atol=GRID)
    five = enumerate((0.125, -1.0, 0.25, 1.0, 0.5))
    found = result_of(*(part_of_group(number, value) for number, value in five))
    np.testing.assert_allclose(found.tensors["a"], (0.125 + 0.25 + 0.5) / 3, atol=GRID)


def test_the_result_names_everybody_whose_group_counts_and_keeps_the_other_sums():
    parts = [part_of_group(number, 0.5, total_weight=10.0 * (number + 1)) for number in range(3)]
    found = result_of(*parts, left_out("update/3"))
    assert found.survivors == {"evaluation": hospitals(9), "update": hospitals(9)}
    assert found.metrics == {"auroc": 0.7, "total_weight": 60.0}
    assert json.dumps(sorted(found.tensors)) == '["a", "b"]'


def test_a_round_with_too_few_groups_is_refused():
    two = [part_of_group(0, 0.5), part_of_group(1, 0.5)]
    with pytest.raises(PolicyError, match="2 groups with 6 sites are left, 3 with 3 are needed"):
        result_of(*two, left_out("update/2"))
    with pytest.raises(PolicyError, match="0 groups"):
        result_of(*(left_out(f"update/{number}") for number in range(3)))


def test_a_round_with_too_few_sites_in_its_groups_is_refused():
    with pytest.raises(PolicyError, match="3 groups with 9 sites are left, 3 with 10 are needed"):
        result_of(*(part_of_group(number, 0.5) for number in range(3)), min_sites=10)
