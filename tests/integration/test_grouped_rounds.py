"""Rounds in which updates are summed by groups, and one group's wrong mean does not move the model far."""

from dataclasses import replace

import numpy as np
import pytest
from simulator.network import TIMEOUTS, FailingExchange, Killed, Network, make_rows, make_study

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.rounds import coordinator
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.groups import groups_of, round_result
from fedhealth.rounds.replay import replay_round
from fedhealth.rounds.round_sums import RoundSums

NINE = tuple(f"hospital-{number:02d}" for number in range(1, 10))
TWELVE = tuple(f"hospital-{number:02d}" for number in range(1, 13))
ONE_ROUND = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}
GROUPS = {"robust": "groups"}
QUICK = replace(TIMEOUTS, phase_timeout_s=5, ready_timeout_s=5)


def consortium(folder, *, sites=NINE, lies=None, timeouts=TIMEOUTS, **sections):
    study = make_study(
        **{"model": {"kind": "linear"}, "training": ONE_ROUND, "aggregation": GROUPS} | sections
    )
    network = Network(folder, study, sites=sites, lies=lies, timeouts=timeouts)
    for seed, name in enumerate(sites):
        network.give_rows(name, make_rows(study, seed, patients=400))
    network.coordinator.start_run(study, run="run-1", seed=7)
    return network


def finished(folder, *, dying=None, **settings):
    network = consortium(folder, **settings)
    threads, outcomes, errors = network.follow("run-1", dying=dying)
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=60)
    return network, closed, outcomes, errors


def aggregate_of(network):
    return read_aggregate(network.coordinator.board, "coordinator", "run-1", 1)


def update_of(network):
    found, names = aggregate_of(network), sorted(network.coordinator.progress("run-1").weights(1))
    return np.concatenate([found.tensors[name].ravel() for name in names])


def replayed(network):
    node = network.coordinator
    shape = node.progress("run-1").shape(1)
    account = node.account("run-1")
    return replay_round(node.board, node.manifest("run-1", 1), shape, account=account, tag_key=None)


def reversed_far(vector):
    """The update the other way and eight times as far; the weight at its end stays."""
    return np.append(np.clip(-8 * vector[:-1], -(2**27), 2**27), vector[-1])


@pytest.mark.slow
def test_one_site_that_turns_its_update_round_moves_the_mean_and_not_the_groups(tmp_path):
    liar = {NINE[1]: reversed_far}
    honest, closed, outcomes, errors = finished(tmp_path / "honest", aggregation={})
    bent, *_ = finished(tmp_path / "bent", aggregation={}, lies=liar)
    assert errors == {}
    grouped, closed, outcomes, errors = finished(tmp_path / "grouped", lies=liar)
    assert errors == {}
    assert outcomes == {name: ["done"] * 3 for name in NINE}
    assert closed[1].survivors["update"] == NINE
    expected, moved, kept = update_of(honest), update_of(bent), update_of(grouped)
    signal = np.abs(expected).argmax()
    assert moved[signal] < 0.25 * expected[signal]
    assert kept[signal] > 0.9 * expected[signal]
    assert np.linalg.norm(kept - expected) < 0.5 * np.linalg.norm(moved - expected)
    assert replayed(grouped).to_bytes() == aggregate_of(grouped).to_bytes()
    told = grouped.coordinator.account("run-1").privacy().not_covered
    assert any("every group of 3 sites or more" in line for line in told)


@pytest.mark.slow
def test_a_group_that_loses_a_site_within_its_sum_is_left_out_and_the_others_go_on(tmp_path):
    study = make_study(model={"kind": "linear"}, training=ONE_ROUND, aggregation=GROUPS)
    lost, *others = groups_of(study, TWELVE)
    kept = tuple(sorted(site for group in others for site in group))
    liar = {others[0][0]: reversed_far}
    dying = {lost[0]: "sums/1/update/0/0/masked"}
    network, closed, outcomes, errors = finished(
        tmp_path, sites=TWELVE, lies=liar, timeouts=QUICK, dying=dying
    )
    assert errors == {lost[0]: "killed"}
    assert closed[1].survivors["update"] == kept
    assert outcomes == {name: ["done"] * 3 for name in kept} | {
        name: ["done", "left_out", "done"] for name in lost[1:]
    }
    assert replayed(network).to_bytes() == aggregate_of(network).to_bytes()


@pytest.mark.slow
def test_a_group_whose_sum_no_clipped_updates_come_to_is_left_out(tmp_path):
    study = make_study(model={"kind": "linear"}, training=ONE_ROUND, aggregation=GROUPS)
    spoilt, *others = groups_of(study, TWELVE)
    liar = {spoilt[1]: lambda vector: np.append(np.full(len(vector) - 1, 2**29), vector[-1])}
    network, closed, _, errors = finished(tmp_path, sites=TWELVE, lies=liar)
    assert errors == {}
    assert "noise" in network.coordinator.blamed["round 1, update/0"]
    assert closed[1].survivors["update"] == tuple(sorted(site for group in others for site in group))


def test_a_round_that_is_left_with_two_groups_is_not_closed(tmp_path):
    network = consortium(tmp_path, timeouts=QUICK)
    gone = groups_of(network.study, NINE)[2][0]
    network.follow("run-1", dying={gone: "sums/1/update/2/0/share"})
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match=r"2 groups with 6 sites are left, 3 with 3 are needed"):
        network.run_round("run-1", 1)
    assert not network.coordinator.board.exists("runs/run-1/rounds/1/aggregate")


def test_too_few_sites_for_three_groups_start_no_run(tmp_path):
    with pytest.raises(PolicyError, match="8 sites make no 3 groups of 3"):
        consortium(tmp_path, sites=NINE[:8])


class OtherGroups(RoundSums):
    """Sums in which the first group is whoever the coordinator likes."""

    def _plan_of_group(self, name, cohort):
        return self.plan(name, NINE[:3]) if name == "update/0" else super()._plan_of_group(name, cohort)


class ChoosesGroups(CoordinatorNode):
    __slots__ = ()

    def _sums(self, run, number):
        return OtherGroups(**vars(super()._sums(run, number)))


def test_a_plan_over_others_than_the_sites_group_is_refused(tmp_path):
    network = consortium(tmp_path, timeouts=QUICK)
    network.coordinator.__class__ = ChoosesGroups
    _, _, errors = network.follow("run-1")
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match="2 groups"):
        network.run_round("run-1", 1)
    asked = groups_of(network.study, NINE)[0]
    assert asked != NINE[:3]
    assert {name: error.problem for name, error in errors.items()} == dict.fromkeys(
        asked, "a plan names a site that is not in this site's group"
    )


def test_a_coordinator_that_publishes_the_mean_of_the_groups_is_found_out(tmp_path, monkeypatch):
    def mean(shape, parts):
        groups = [part for name, part in parts.items() if name.startswith("update/")]
        names = groups[0].tensors if groups else {}
        tensors = {name: np.mean([part.tensors[name] for part in groups], axis=0) for name in names}
        return replace(round_result(shape, parts), **({"tensors": tensors} if groups else {}))

    monkeypatch.setattr(coordinator, "round_result", mean)
    network = consortium(tmp_path, timeouts=QUICK)
    threads, _, errors = network.follow("run-1")
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match="came to the published sums"):
        network.run_round("run-1", 1)
    for thread in threads:
        thread.join(timeout=30)
    assert any(
        isinstance(error, ProtocolError) and "not what its sums come to" in error.problem
        for error in errors.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["sums/1/update/1/0/masked", "sums/1/update/0/0/given-up"])
def test_a_coordinator_killed_within_the_groups_goes_on_with_the_same(tmp_path, phase):
    network = consortium(tmp_path, sites=TWELVE, timeouts=QUICK)
    lost, *others = groups_of(network.study, TWELVE)
    threads, _, errors = network.follow("run-1", dying={lost[0]: "sums/1/update/0/0/masked"})
    network.run_round("run-1", 0)
    node, board = network.coordinator, network.coordinator.board
    dying = replace(
        node, board=replace(board, exchange=FailingExchange(board.exchange, "coordinator", phase))
    )
    with pytest.raises(Killed):
        network.run_round("run-1", 1, dying)
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=60)
    assert errors == {lost[0]: "killed"}
    assert closed[0].survivors["update"] == tuple(sorted(site for group in others for site in group))
