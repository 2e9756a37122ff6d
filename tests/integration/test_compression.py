"""Updates in small rings over a real folder exchange: three sites in threads, rows made here, everything else real."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load
from simulator.network import SITES, Network, make_study

from fedhealth.errors import ProtocolError
from fedhealth.exchange.envelope import unseal
from fedhealth.models.weights import digest, flatten, parameter_count
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.rounds.layout import UPDATE_SD, sum_layout
from fedhealth.rounds.site_memory import SiteMemory
from fedhealth.rounds.site_plan import judge_plan
from fedhealth.secagg.plan import SumPlan

TRAINING = {"rounds": 5, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}
MODEL = {"kind": "mlp", "hidden": [32], "dropout": [0.0]}


def start(folder, **sections):
    study = make_study(**{"training": TRAINING, "model": MODEL, **sections})
    network = Network(folder, study)
    network.coordinator.start_run(study, run="run-1", seed=7)
    return network


def finish(network, run="run-1"):
    """Bring a run to its end with all its sites; returns the closed rounds."""
    threads, _, errors = network.follow(run)
    closed = network.run_rounds(run)
    for thread in threads:
        thread.join(timeout=60)
    assert errors == {}
    return closed


def plans(network):
    """The plans of the run's updates, by round."""
    found = [SumPlan.from_bytes(each) for each in payloads(network, "/update/0/0/plan/").values()]
    return {plan.round: plan for plan in sorted(found, key=lambda plan: plan.round)}


def uploads(network, number):
    """What each site sent of a round's update, by site."""
    found = payloads(network, f"/sums/{number}/update/0/0/masked/hospital")
    return {key.rsplit("/", 1)[1]: payload for key, payload in found.items()}


def payloads(network, part):
    board = network.coordinator.board
    keys = [key for key in board.list("runs/run-1/sums/") if part in key]
    return {
        key: unseal(board.exchange.get(key), roster=network.roster, limits=board.limits).payload
        for key in keys
    }


def mean_of(network, number):
    return flatten(dict(read_aggregate(network.coordinator.board, "coordinator", "run-1", number).tensors))


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    network = start(tmp_path_factory.mktemp("exact"))
    return network, finish(network)


@pytest.fixture(scope="module")
def six_bits(tmp_path_factory):
    network = start(tmp_path_factory.mktemp("six"), aggregation={"ring_bits": 6})
    return network, finish(network)


def test_the_first_update_is_exact_and_the_others_are_in_the_small_ring_with_a_lane(six_bits):
    network, _ = six_bits
    length = parameter_count(network.coordinator.progress("run-1").weights(1))
    found = {n: (plan.ring_bits, plan.length, plan.lanes) for n, plan in plans(network).items()}
    assert found == {1: (32, length + 1, 0)} | dict.fromkeys(range(2, 6), (6, length, 1))


def test_uploads_fall_to_six_bits_a_parameter(six_bits, exact):
    network, _ = six_bits
    length = parameter_count(network.coordinator.progress("run-1").weights(1))
    assert {len(each) for each in uploads(network, 1).values()} == {4 * (length + 1) + 8}  # and its tag
    assert {len(each) for each in uploads(network, 2).values()} == {math.ceil(6 * length / 8) + 8}
    told = zip(*(each[1][2].upload_bytes.values() for each in (exact, six_bits)), strict=True)
    assert all(
        large - small > 2 * length for large, small in told
    )  # what reports show, with all else that a site sends


def test_the_model_trains_as_that_of_exact_sums(six_bits, exact):
    auc, exact_auc = ([each.metrics["auroc"] for each in closed[1:]] for _, closed in (six_bits, exact))
    assert auc[-1] > auc[0] + 0.05
    assert auc[-1] == pytest.approx(exact_auc[-1], abs=0.03)


def test_a_compressed_mean_is_the_exact_mean_to_the_rounding(six_bits, exact):
    network, _ = six_bits
    assert (mean_of(network, 1) == mean_of(exact[0], 1)).all()  # so round 2 opens with one model in both
    compressed, plain = mean_of(network, 2), mean_of(exact[0], 2)
    codec = network.coordinator.progress("run-1").codec(2)
    people = sum(rows.is_training.sum() for rows in network.rows.values())
    error = (compressed - plain) * people
    assert np.sqrt(np.mean(error**2)) == pytest.approx(codec.step * math.sqrt(3 / 6), rel=0.25)
    assert 0.97 < np.corrcoef(compressed, plain)[0, 1] < 1.0


def test_every_party_computes_the_same_codec(six_bits):
    network, _ = six_bits
    node = network.node("hospital-02")
    own = node._progress_of(node._manifest("run-1", 3))
    theirs = network.coordinator.progress("run-1")
    assert own.codec(3) == theirs.codec(3)
    assert own.codec(1) is None
    assert len({theirs.codec(number).seed for number in (2, 3, 4)}) == 3


def test_the_size_that_is_published_tells_the_number_of_people_to_two_digits_alone(six_bits):
    network, _ = six_bits
    told = read_aggregate(network.coordinator.board, "coordinator", "run-1", 2).metrics[UPDATE_SD]
    assert told == float(f"{told:.2g}")
    assert "total_weight" not in read_aggregate(network.coordinator.board, "coordinator", "run-1", 2).metrics


def test_a_site_that_answers_a_compressed_sum_again_repeats_its_bytes(six_bits):
    network, _ = six_bits
    said = uploads(network, 3)["hospital-02"]
    aggregate = network.folder / "exchange/runs/run-1/rounds/3/aggregate"
    aside = aggregate.rename(network.folder / "aside")  # as it was before the round was closed
    assert network.node("hospital-02").answer("run-1", 3) == "done"  # the journal knows the upload's digest
    aside.rename(aggregate)
    assert uploads(network, 3)["hospital-02"] == said


@pytest.mark.parametrize("phase", ["masked", "agree"])
def test_a_site_killed_within_a_compressed_sum_comes_back_and_the_run_goes_on(tmp_path, phase):
    network = start(tmp_path, aggregation={"ring_bits": 6})
    _, _, errors = network.follow("run-1", dying={"hospital-02": f"2/update/0/0/{phase}"})
    closed = []
    coordinator = threading.Thread(target=lambda: closed.extend(network.run_rounds("run-1")), daemon=True)
    coordinator.start()
    while "hospital-02" not in errors:
        coordinator.join(timeout=0.05)
    assert errors == {"hospital-02": "killed"}
    assert [outcome for _, outcome in network.node("hospital-02").follow("run-1")] == ["closed"] * 2 + [
        "done"
    ] * 5
    coordinator.join(timeout=60)
    assert [each.survivors.get("update") for each in closed[1:-1]] == [SITES] * 5


def test_a_second_run_of_one_seed_ends_with_the_same_model(six_bits):
    network, _ = six_bits
    node = network.coordinator
    node.start_run(network.study, run="run-2", seed=7)
    finish(network, "run-2")
    assert plans(network)[2].run == "run-1"
    assert digest(node.progress("run-2").whole(6)) == digest(node.progress("run-1").whole(6))


def test_under_differential_privacy_weights_are_declared_and_no_lane_is_sent(tmp_path):
    network = start(tmp_path, privacy={"mode": "local", "epsilon": 8.0}, aggregation={"ring_bits": 8})
    closed = finish(network)
    assert {plan.lanes for plan in plans(network).values()} == {0}
    assert [plan.ring_bits for plan in plans(network).values()] == [32, 8, 8, 8, 8]
    assert all(each.metrics["total_weight"] > 0 for each in closed[1:-1])


def test_a_random_half_is_sent_and_what_is_owed_comes_later(tmp_path):
    network = start(tmp_path, aggregation={"ring_bits": 8, "sent_share": 0.5})
    finish(network)
    progress = network.coordinator.progress("run-1")
    length = parameter_count(progress.weights(1))
    assert [plan.length for plan in plans(network).values()] == [length + 1, *[math.ceil(length / 2)] * 4]
    told, weights = [], []
    for name in SITES:
        memory = SiteMemory(network.site_folder(name).memory("run-1"), name, progress)
        owed, sent = flatten(memory.owed(3)), progress.codec(2).coordinates()
        assert not flatten(memory.owed(2)).any()  # round 1 sent all
        assert set(np.flatnonzero(owed)) == set(np.flatnonzero(kept(network, name, 2))) - set(sent)
        told.append(kept(network, name, 3))
        weights.append(network.rows[name].is_training.sum())
    codec, mean = progress.codec(3), mean_of(network, 3)
    sent = codec.coordinates()
    expected = np.average(told, axis=0, weights=weights)
    assert set(np.flatnonzero(mean)) <= set(sent)
    assert np.abs(mean - expected)[sent].max() < 6 * codec.step / sum(weights)
    assert np.corrcoef(mean[sent], expected[sent])[0, 1] > 0.99


def kept(network, name, number):
    """What a site kept of a round: its update and all that it owed."""
    tensors = load((network.site_folder(name).memory("run-1") / f"{number:04d}.safetensors").read_bytes())
    return flatten({key: array for key, array in tensors.items() if key.startswith("told.")})


@pytest.mark.parametrize(
    "changed", [{"ring_bits": 4}, {"ring_bits": 32, "lanes": 0}, {"lanes": 0}, {"length": 10}]
)
def test_a_site_refuses_a_plan_that_is_not_its_codecs(six_bits, changed):
    network, _ = six_bits
    node = network.node("hospital-01")
    manifest = node._manifest("run-1", 3)
    shape = node._progress_of(manifest).shape(3)
    plan = plans(network)[3]
    judge_plan(node.board, manifest, shape, "update", plan)
    with pytest.raises(ProtocolError, match="departs from its manifest"):
        judge_plan(node.board, manifest, shape, "update", plan.model_copy(update=changed))


@pytest.mark.parametrize("told", [None, -1.0, float("nan"), float("inf"), "large"])
def test_an_aggregate_without_a_usable_size_is_an_attack(six_bits, told):
    progress = replace(six_bits[0].coordinator.progress("run-1"))
    honest = progress.aggregate_of
    progress.aggregate_of = lambda n: replace(honest(n), metrics={**honest(n).metrics, UPDATE_SD: told})
    with pytest.raises(ProtocolError, match="how large"):
        progress.codec(2)


def test_after_an_update_of_nothing_the_next_one_is_exact(six_bits):
    progress = replace(six_bits[0].coordinator.progress("run-1"))
    honest = progress.aggregate_of
    progress.aggregate_of = lambda n: replace(honest(n), metrics={**honest(n).metrics, UPDATE_SD: 0.0})
    shape = progress.shape(2)
    assert shape.codec is None
    assert sum_layout(shape, "update").ring_bits == 32
