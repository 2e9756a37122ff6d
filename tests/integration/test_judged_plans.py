"""What a site refuses of its coordinator, and what both find again after a restart; over a real exchange."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from simulator.network import SITES, TIMEOUTS, Network, make_study

from fedhealth.errors import ProtocolError
from fedhealth.rounds.objects import Quality, address_of, site_key, sum_key
from fedhealth.secagg.plan import threshold_for

FOUR = (*SITES, "hospital-04")
ONE_ROUND = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}
HASTY = replace(TIMEOUTS, coordinator_timeout_s=3, ready_timeout_s=3)


def opened(folder, *, ready=FOUR, timeouts=HASTY, closes=False, **sections):
    """A consortium of four in round 0; some have said that they are ready, and wait for the plan (and see the round closed)."""
    network = Network(folder, make_study(training=ONE_ROUND, **sections), sites=FOUR, timeouts=timeouts)
    network.coordinator.start_run(network.study, run="run-1", seed=1)
    errors = {}

    def answer(site):
        try:
            node = network.node(site)
            node.answer("run-1", 0)
            if closes:
                node.close("run-1", 0)
        except Exception as error:  # noqa: BLE001 - handed to the test
            errors[site] = error

    threads = [threading.Thread(target=answer, args=(site,), daemon=True) for site in ready]
    for thread in threads:
        thread.start()
    return network, threads, errors


def plan_of(network, cohort, **changes):
    node = network.coordinator
    node.open_round("run-1", 0)
    plan = node._sums("run-1", 0).plan("moments", cohort)
    return plan.model_copy(update=changes)


def post(network, plan):
    board = network.coordinator.board
    board.post(sum_key(plan, "plan", "coordinator"), kind="plan", payload=plan.to_bytes(), **address_of(plan))


@pytest.mark.parametrize("changed", ["counter", "min_survivors"])
def test_a_site_refuses_a_plan_with_another(tmp_path, changed):
    network, threads, errors = opened(tmp_path)
    plan = plan_of(network, FOUR)
    post(network, plan.model_copy(update={changed: getattr(plan, changed) + 1}))
    for thread in threads:
        thread.join(timeout=30)
    assert set(errors) == set(FOUR)
    assert all(isinstance(each, ProtocolError) and changed in each.problem for each in errors.values())


def test_a_site_refuses_a_second_sum_of_a_round_over_fewer_sites(tmp_path):
    network, threads, errors = opened(tmp_path)
    assert network.coordinator.secure_sum("run-1", 0, "moments", cohort=FOUR) == FOUR
    for thread in threads:
        thread.join(timeout=30)
    three = {"cohort": SITES, "threshold": threshold_for(3), "min_survivors": 3}
    second = plan_of(network, FOUR).model_copy(update=three)
    key = sum_key(second, "plan", "coordinator")
    (network.folder / "exchange" / key).unlink()
    post(network, second)
    with pytest.raises(ProtocolError, match="second sum under one counter"):
        network.node("hospital-01").answer("run-1", 0)
    assert errors == {}


def test_a_site_refuses_a_cohort_below_the_studys_quorum(tmp_path):
    network, threads, errors = opened(tmp_path, aggregation={"quorum": 1.0})
    three = {"cohort": SITES, "threshold": threshold_for(3), "min_survivors": 3}
    post(network, plan_of(network, FOUR).model_copy(update=three))
    for thread in threads:
        thread.join(timeout=30)
    assert {error.problem for error in errors.values()} == {"a plan has fewer sites than its study asks for"}


def test_a_coordinator_started_again_keeps_its_plan_though_more_sites_are_ready(tmp_path):
    network, _, errors = opened(tmp_path, ready=SITES, timeouts=replace(HASTY, coordinator_timeout_s=20))
    post(network, plan_of(network, SITES))
    late = threading.Thread(target=network.node("hospital-04").answer, args=("run-1", 0), daemon=True)
    late.start()
    node = network.coordinator
    assert tuple(node.wait_for_sites("run-1", 0).ready) == FOUR
    assert node.secure_sum("run-1", 0, "moments", cohort=FOUR) == SITES
    assert errors == {}


def test_a_site_whose_declared_size_changed_sits_out(tmp_path):
    study = {"privacy": {"mode": "local", "epsilon": 4.0}}
    patient = replace(HASTY, coordinator_timeout_s=20)
    network, threads, _ = opened(tmp_path, timeouts=patient, closes=True, **study)
    node = network.coordinator
    node.secure_sum("run-1", 0, "moments", cohort=tuple(node.wait_for_sites("run-1", 0).ready))
    node.close_round("run-1", 0)
    for thread in threads:
        thread.join(timeout=30)
    rows = network.rows["hospital-02"]
    few = rows.where(np.arange(len(rows)) < 20)
    network.give_rows("hospital-02", replace(few, is_test=np.zeros(20, dtype=bool)))
    node.open_round("run-1", 1)
    assert network.node("hospital-02").answer("run-1", 1) == "abstained"
    assert node.account("run-1").answer(1, "hospital-02").reason == "declaration_changed"


def test_what_sites_tell_of_their_data_is_read_and_a_spoilt_word_is_left_out(tmp_path):
    network, _, _ = opened(tmp_path, ready=())
    told = Quality(passed={"fatal": 3}, failed={"fatal": 0}, failed_checks=("person/cdmTable",))
    for site in SITES:
        node = network.node(site)
        node._post_site(node._manifest("run-1", 0), "quality", told.to_bytes())
    assert network.coordinator.account("run-1").quality() == dict.fromkeys(SITES, told)
    key = network.folder / "exchange" / site_key("run-1", 0, SITES[0], "quality")
    posted = key.read_bytes()
    key.unlink()
    key.write_bytes(posted[:-1] + bytes([posted[-1] ^ 1]))
    assert network.coordinator.account("run-1").quality() == dict.fromkeys(SITES[1:], told)
