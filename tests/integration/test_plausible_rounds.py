"""Rounds in which masked updates are judged by their sketches before the sum is opened."""

from dataclasses import replace

import numpy as np
import pytest
from simulator.network import TIMEOUTS, FailingExchange, Killed, Network, make_study

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.rounds import coordinator_sum, site_sum
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.rounds.objects import SketchCommitment, address_of, sum_key
from fedhealth.secagg.sketch import sketch

FIVE = tuple(f"hospital-{number:02d}" for number in range(1, 6))
LIAR = FIVE[1]
HONEST = tuple(site for site in FIVE if site != LIAR)
WIDE = {"kind": "mlp", "hidden": [16], "dropout": []}
ONE_ROUND = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}
PLAUSIBLE = {"robust": "plausibility"}


def consortium(folder, *, lies=None, timeouts=TIMEOUTS, **sections):
    study = make_study(**{"model": WIDE, "training": ONE_ROUND, "aggregation": PLAUSIBLE} | sections)
    network = Network(folder, study, sites=FIVE, lies=lies, timeouts=timeouts)
    network.coordinator.start_run(study, run="run-1", seed=7)
    return network


def finished(folder, **settings):
    network = consortium(folder, **settings)
    threads, outcomes, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    return network, closed, outcomes, errors


def update_of(network):
    found = read_aggregate(network.coordinator.board, "coordinator", "run-1", 1)
    names = sorted(network.coordinator.progress("run-1").weights(1))
    return np.concatenate([found.tensors[name].ravel() for name in names])


def reversed_far(vector):
    """The update the other way and eight times as far; the weight at its end stays."""
    return np.append(np.clip(-8 * vector[:-1], -(2**27), 2**27), vector[-1])


def test_where_all_are_plausible_the_sum_is_the_masked_one_bit_for_bit(tmp_path):
    masked, *_ = finished(tmp_path / "masked", aggregation={})
    judged, closed, outcomes, errors = finished(tmp_path / "judged")
    assert errors == {}
    assert outcomes == {name: ["done"] * 3 for name in FIVE}
    assert closed[1].survivors["update"] == FIVE
    assert judged.coordinator.blamed == {}
    assert update_of(judged).tobytes() == update_of(masked).tobytes()
    told = judged.coordinator.account("run-1").privacy().not_covered
    assert any("projections" in line for line in told)


def test_a_reversed_update_is_left_out_before_it_is_opened_and_its_site_named(tmp_path):
    network, closed, outcomes, errors = finished(tmp_path, lies={LIAR: reversed_far})
    assert errors == {}
    assert LIAR in network.coordinator.blamed
    assert closed[1].survivors["update"] == HONEST
    assert outcomes == {name: ["done"] * 3 for name in HONEST} | {LIAR: ["done", "left_out", "done"]}
    without, *_ = finished(tmp_path / "without", lies={LIAR: lambda vector: 0 * vector})
    together, alone = update_of(without), update_of(network)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-9)


def test_under_local_privacy_updates_are_judged_too(tmp_path):
    _, closed, _, errors = finished(tmp_path, privacy={"mode": "local", "epsilon": 8.0})
    assert errors == {}
    assert len(closed[1].survivors["update"]) >= 4


def test_a_sum_that_would_lose_too_many_sites_is_not_opened(tmp_path):
    network = consortium(tmp_path, lies=dict.fromkeys(FIVE[:2], reversed_far))
    network.follow("run-1")
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match=r"only 3 of 5 updates are plausible; 4 are needed"):
        network.run_round("run-1", 1)
    assert set(network.coordinator.blamed) == set(FIVE[:2])
    assert not [key for key in network.coordinator.board.list("runs/run-1/sums/1/update/") if "/open/" in key]


def show_the_sketch_of_the_honest_vector(monkeypatch):
    """A lie about the update whose sketch hides it."""
    shown = {}

    def lie(vector):
        far = reversed_far(vector)
        shown[far.tobytes()] = vector
        return far

    def pretend(vector, plan, *, seed):
        return sketch(shown.get(vector.tobytes(), vector), plan, seed=seed)

    monkeypatch.setattr(site_sum, "sketch", pretend)
    return lie


def test_a_site_that_shows_the_sketch_of_another_vector_than_it_uploads_is_found_out(tmp_path, monkeypatch):
    network = consortium(tmp_path, lies={LIAR: show_the_sketch_of_the_honest_vector(monkeypatch)})
    network.follow("run-1")
    network.run_round("run-1", 0)
    with pytest.raises(ProtocolError, match="do not add up"):
        network.run_round("run-1", 1)
    assert not network.coordinator.board.exists("runs/run-1/rounds/1/aggregate")


def test_the_sites_find_such_a_sketch_though_the_coordinator_does_not_look(tmp_path, monkeypatch):
    monkeypatch.setattr(coordinator_sum, "check_sketches", lambda total, sketches, *, seed: None)
    lies = {LIAR: show_the_sketch_of_the_honest_vector(monkeypatch)}
    network = consortium(tmp_path, lies=lies, timeouts=replace(TIMEOUTS, phase_timeout_s=4))
    threads, _, errors = network.follow("run-1")
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match="came to"):
        network.run_round("run-1", 1)
    for thread in threads:
        thread.join(timeout=30)
    assert errors
    assert all("do not add up" in error.problem for error in errors.values())


def test_a_coordinator_that_draws_its_nonce_anew_gets_no_sketch(tmp_path, monkeypatch):
    post = coordinator_sum._post_uploads

    def cheat(context, plan, rules, digests):
        return post(context, plan, replace(rules, nonce_of=lambda plan: bytes(32)), digests)

    monkeypatch.setattr(coordinator_sum, "_post_uploads", cheat)
    network = consortium(tmp_path, timeouts=replace(TIMEOUTS, phase_timeout_s=4))
    threads, _, errors = network.follow("run-1")
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match="answered phase sketch"):
        network.run_round("run-1", 1)
    for thread in threads:
        thread.join(timeout=30)
    assert set(errors) == set(FIVE)
    assert all("seed anew" in error.problem for error in errors.values())


def test_a_site_that_was_killed_goes_by_the_commitment_that_it_read_first(tmp_path):
    """Else a coordinator could choose a nonce that suits the uploads, for whoever starts again."""
    network = consortium(tmp_path, timeouts=replace(TIMEOUTS, phase_timeout_s=4))
    site, node = FIVE[0], network.coordinator
    network.follow("run-1", dying={site: "update/0/0/masked"})
    network.run_round("run-1", 0)
    node.open_round("run-1", 1)
    cohort = tuple(node.wait_for_sites("run-1", 1).ready)
    for name in ("evaluation", "update"):
        survivors = node.secure_sum("run-1", 1, name, cohort=cohort)
    assert survivors == FIVE[1:]
    plan = node._sums("run-1", 1).plan("update", cohort)
    key = sum_key(plan, "commitment", "coordinator")
    (tmp_path / "exchange" / key).unlink()
    other = SketchCommitment(commitment="ab" * 32)
    node.board.post(key, kind="commitment", payload=other.to_bytes(), **address_of(plan))
    with pytest.raises(ProtocolError, match="in phase commitment of one plan"):
        network.node(site).answer("run-1", 1)


@pytest.mark.parametrize("phase", ["uploads", "masked", "agree"])
def test_a_coordinator_killed_at_any_step_goes_on_with_the_same_judgement(tmp_path, phase):
    network = consortium(tmp_path, lies={LIAR: reversed_far})
    threads, _, errors = network.follow("run-1")
    network.run_round("run-1", 0)
    node, board = network.coordinator, network.coordinator.board
    node.open_round("run-1", 1)
    cohort = tuple(node.wait_for_sites("run-1", 1).ready)
    node.secure_sum("run-1", 1, "evaluation", cohort=cohort)
    dying = replace(
        node, board=replace(board, exchange=FailingExchange(board.exchange, "coordinator", phase))
    )
    with pytest.raises(Killed):
        dying.secure_sum("run-1", 1, "update", cohort=cohort)
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    assert errors == {}
    assert closed[0].survivors["update"] == HONEST


def test_a_model_too_small_for_sketches_is_refused(tmp_path):
    network = consortium(tmp_path, model={"kind": "linear"})
    network.follow("run-1")
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match="would tell too much"):
        network.run_round("run-1", 1)
