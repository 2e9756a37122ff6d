"""Sites that vanish: the round goes on with the others, exactly; a site that comes back repeats itself."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from simulator.network import TIMEOUTS, Network, make_study

from fedhealth.errors import PolicyError
from fedhealth.rounds.aggregate import read_aggregate

FIFTEEN = tuple(f"hospital-{number:02d}" for number in range(1, 16))
HASTY = replace(TIMEOUTS, phase_timeout_s=6, ready_timeout_s=6)
ONE_ROUND = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["share", "masked", "agree", "open"])
def test_four_of_fifteen_sites_may_vanish_at_any_step(tmp_path, phase):
    network = Network(tmp_path, make_study(training=ONE_ROUND), sites=FIFTEEN, timeouts=HASTY)
    network.coordinator.start_run(network.study, run="run-1", seed=1)
    gone = FIFTEEN[1::4]
    network.follow("run-1", dying=dict.fromkeys(gone, phase))
    node = network.coordinator
    node.open_round("run-1", 0)
    cohort = tuple(node.wait_for_sites("run-1", 0).ready)
    survivors = node.secure_sum("run-1", 0, "moments", cohort=cohort)
    node.close_round("run-1", 0)
    assert len(gone) == 4
    assert cohort == FIFTEEN
    in_sum = FIFTEEN if phase in ("agree", "open") else tuple(s for s in FIFTEEN if s not in gone)
    assert survivors == in_sum
    expected = sum((~network.rows[site].is_test).sum() for site in in_sum)
    count = read_aggregate(node.board, "coordinator", "run-1", 0).tensors["count"]
    assert count.max() == expected


@pytest.mark.slow
def test_five_of_fifteen_are_too_many(tmp_path):
    hasty = replace(HASTY, phase_timeout_s=3)
    network = Network(tmp_path, make_study(training=ONE_ROUND), sites=FIFTEEN, timeouts=hasty)
    network.coordinator.start_run(network.study, run="run-1", seed=1)
    network.follow("run-1", dying=dict.fromkeys(FIFTEEN[:5], "masked"))
    network.coordinator.open_round("run-1", 0)
    cohort = tuple(network.coordinator.wait_for_sites("run-1", 0).ready)
    with pytest.raises(PolicyError, match="11 are needed"):
        network.coordinator.secure_sum("run-1", 0, "moments", cohort=cohort)


def test_a_site_killed_before_its_vector_left_comes_back_with_the_same_bytes(tmp_path):
    network = Network(tmp_path, make_study(training=ONE_ROUND))
    network.coordinator.start_run(network.study, run="run-1", seed=1)
    _, _, errors = network.follow("run-1", dying={"hospital-02": "masked"})
    results = {}

    def coordinate():
        results["closed"] = network.run_rounds("run-1")

    coordinator = threading.Thread(target=coordinate, daemon=True)
    coordinator.start()
    while "hospital-02" not in errors:
        coordinator.join(timeout=0.05)
    assert errors["hospital-02"] == "killed"
    assert [outcome for _, outcome in network.node("hospital-02").follow("run-1")] == ["done"] * 3
    coordinator.join(timeout=60)
    assert [set(each.survivors) for each in results["closed"]] == [
        {"moments"},
        {"evaluation", "update"},
        {"evaluation"},
    ]
    assert all(len(sites) == 3 for each in results["closed"] for sites in each.survivors.values())


def test_a_coordinator_killed_within_a_sum_ends_it_with_the_same_result(tmp_path):
    network = Network(tmp_path, make_study(training=ONE_ROUND))
    network.coordinator.start_run(network.study, run="run-1", seed=1)
    network.follow("run-1")
    node = network.coordinator
    node.open_round("run-1", 0)
    cohort = tuple(node.wait_for_sites("run-1", 0).ready)
    first = node.secure_sum("run-1", 0, "moments", cohort=cohort)
    stored = network.folder / "coordinator" / "runs" / "run-1" / "0000-moments.bin"
    before = stored.read_bytes()
    stored.unlink()
    again = replace(node, blamed={})
    assert again.secure_sum("run-1", 0, "moments", cohort=cohort) == first
    assert stored.read_bytes() == before


def test_under_differential_privacy_the_run_accounts_for_every_site(tmp_path):
    study = make_study(privacy={"mode": "local", "epsilon": 4.0}, training=ONE_ROUND)
    network = Network(tmp_path, study)
    network.coordinator.start_run(study, run="run-1", seed=1)
    _, _, errors = network.follow("run-1")
    network.run_rounds("run-1")
    spent = network.coordinator.account("run-1").privacy()
    assert errors == {}
    assert set(spent.per_site) == set(network.rows)
    assert 0.5 * 4.0 * 0.8 < spent.epsilon <= 4.0 * 0.8 + 1e-9
    assert any("moments" in release for release in spent.not_covered)
    assert any("evaluation" in release for release in spent.not_covered)


def test_a_site_that_never_passed_validation_abstains_and_the_quorum_decides(tmp_path):
    study = make_study(training=ONE_ROUND, aggregation={"quorum": 0.7})
    network = Network(tmp_path, study, sites=FIFTEEN[:4])
    network.site_folder("hospital-03").state.unlink()
    network.coordinator.start_run(study, run="run-1", seed=1)
    network.follow("run-1")
    closed = network.run_rounds("run-1")
    assert network.coordinator.account("run-1").attendance()["hospital-03"] == "abstained: not_prepared"
    assert all("hospital-03" not in sites for each in closed for sites in each.survivors.values())


def test_one_class_in_the_whole_consortium_ends_in_a_clear_no(tmp_path):
    study = make_study(training=ONE_ROUND)
    network = Network(tmp_path, study)
    for name, rows in network.rows.items():
        network.give_rows(name, replace(rows, labels=np.zeros_like(rows.labels)))
    network.coordinator.start_run(study, run="run-1", seed=1)
    network.follow("run-1")
    with pytest.raises(PolicyError, match="one class only"):
        network.run_rounds("run-1")


def test_one_class_at_one_site_alone_trains(tmp_path):
    study = make_study(training=ONE_ROUND)
    network = Network(tmp_path, study)
    rows = network.rows["hospital-01"]
    network.give_rows("hospital-01", replace(rows, labels=np.zeros_like(rows.labels)))
    network.coordinator.start_run(study, run="run-1", seed=1)
    network.follow("run-1")
    closed = network.run_rounds("run-1")
    assert "hospital-01" in closed[1].survivors["update"]
