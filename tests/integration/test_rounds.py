"""Rounds over a real folder exchange: three sites in threads, rows made here, everything else real."""

import json
from dataclasses import replace

import numpy as np
import pytest
from mlflow import MlflowClient
from simulator.network import SITES, Network, make_study

from fedhealth.aggregation.update import weighted_mean_plain
from fedhealth.models.weights import flatten
from fedhealth.privacy.consent import Consent, Provision
from fedhealth.registry import Registry, artifact_folder, store_uri
from fedhealth.registry.record import StudyRecord
from fedhealth.rounds.aggregate import read_aggregate, statistics_of
from fedhealth.rounds.layout import quantisation_step
from fedhealth.rounds.objects import Ready, site_key
from fedhealth.training.local import train_local
from fedhealth.training.plan import local_seed, plan_local


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = make_study()
    network = Network(tmp_path_factory.mktemp("network"), study)
    network.coordinator.start_run(study, run="run-1", seed=7)
    threads, outcomes, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    return network, closed, outcomes, errors


def test_every_site_is_in_every_sum(finished):
    _, closed, outcomes, errors = finished
    assert errors == {}
    assert all(sites == SITES for each in closed for sites in each.survivors.values())
    assert outcomes == {name: ["done"] * 4 for name in SITES}


def test_the_secure_mean_equals_the_plain_weighted_mean_to_the_quantisation_step(finished):
    network, _, _, _ = finished
    study, node = network.study, network.coordinator
    opening = read_aggregate(node.board, "coordinator", "run-1", 0)
    statistics = statistics_of(opening)
    weights = node.progress("run-1").weights(1)
    updates, sizes = [], []
    for name in SITES:
        training = network.rows[name].training()
        plan = plan_local(study, declared_patients=len(np.unique(training.person)))
        update = train_local(
            weights,
            statistics,
            training,
            study,
            plan=plan,
            noise_key=None,
            seed=local_seed(7, site=name, number=1),
        )
        updates.append(update.delta)
        sizes.append(float(update.n_examples))
    plain = weighted_mean_plain(updates, sizes)
    secure = read_aggregate(node.board, "coordinator", "run-1", 1).tensors
    step = quantisation_step(study, sites=3, total_weight=sum(sizes))
    gap = np.abs(flatten(dict(secure)) - flatten(plain)).max()
    assert np.abs(flatten(plain)).max() > 0
    assert gap <= 3 * 0.5 * step + np.finfo(np.float32).eps


def test_the_pooled_auc_rises_with_training(finished):
    _, closed, _, _ = finished
    first, last = closed[1].metrics["auroc"], closed[-1].metrics["auroc"]
    assert last > first


def test_figures_of_single_rounds_hold_no_numbers_of_people(finished):
    _, closed, _, _ = finished
    assert {"n", "n_positive", "accuracy"}.isdisjoint(closed[1].metrics)
    assert closed[1].metrics["auroc"] == round(closed[1].metrics["auroc"], 3)
    assert closed[-1].metrics["n"] > 0


def test_a_coordinator_that_is_built_anew_finds_the_run_finished(finished):
    network, closed, _, _ = finished
    again = replace(network.coordinator, blamed={})
    assert again.find_open_round("run-1") is None
    assert again.close_round("run-1", 1).log_index == closed[1].log_index


class DyingLog:
    """A log whose coordinator is killed before or after one of its calls."""

    def __init__(self, log, dies_at, when):
        self.log, self.dies_at, self.when = log, dies_at, when

    def __getattr__(self, name):
        return self._die if name == self.dies_at else getattr(self.log, name)

    def _die(self, *arguments):
        if self.when == "after":
            getattr(self.log, self.dies_at)(*arguments)
        raise Killed


class Killed(BaseException):
    """As if the process was gone."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("dies_at", ["append", "checkpoint"])
def test_a_coordinator_that_dies_while_it_closes_a_round_closes_it_once_it_is_back(tmp_path, dies_at, when):
    network = Network(tmp_path, make_study())
    node = network.coordinator
    node.start_run(network.study, run="run-1", seed=7)
    threads, _, errors = network.follow("run-1")
    network.run_round("run-1", 0)
    dying = replace(node, log=DyingLog(node.log, dies_at, when))
    with pytest.raises(Killed):
        network.run_round("run-1", 1, dying)
    again = replace(node, blamed={})
    assert again.next_round("run-1") == 1
    assert again.closed_round("run-1", 1) is None
    closed = network.run_rounds("run-1", again)
    for thread in threads:
        thread.join(timeout=30)
    assert errors == {}
    assert [each.round for each in closed] == [1, 2, 3]
    assert again.closed_round("run-1", 1) == closed[0]
    logged = [again.log.read(index).statement.predicate for index in range(again.log.size)]
    assert [each["round"] for each in logged if "round" in each] == [0, 1, 2, 3]


def test_rounds_that_a_kill_kept_out_of_mlflow_are_recorded_by_the_next_that_looks(finished, tmp_path):
    network, closed, _, _ = finished
    registry = Registry(store_uri(tmp_path), artifact_root=artifact_folder(tmp_path))
    record = StudyRecord(node=network.coordinator, registry=registry, run="run-1")
    for _ in range(2):
        record.record_rounds()
    told = sorted((network.coordinator.folder / "runs" / "run-1").glob("round-*.json"))
    assert [json.loads(path.read_bytes())["round"] for path in told] == [0, 1, 2, 3]
    client = MlflowClient(store_uri(tmp_path))
    history = client.get_metric_history(record.open().mlflow_run, "auroc")
    assert [(each.step, each.value) for each in history] == [
        (each.round, each.metrics["auroc"]) for each in closed[1:]
    ]


def test_a_patient_who_withdraws_is_in_no_sum_of_the_rounds_after(tmp_path):
    network = Network(tmp_path, make_study(cohort={"min_patients": 11}))
    leaving = np.unique(network.rows["hospital-02"].person)[:30]
    network.coordinator.start_run(network.study, run="run-1", seed=7)
    threads, outcomes, errors = network.follow("run-1")
    closed = [network.run_round("run-1", number) for number in (0, 1)]
    network.give_consents(
        "hospital-02",
        [Consent(int(person), None, None, False, Provision(type="deny")) for person in leaving],
    )
    closed += [network.run_round("run-1", number) for number in (2, 3)]
    for thread in threads:
        thread.join(timeout=30)
    assert errors == {}
    assert [each.round for each in closed] == [0, 1, 2, 3]
    assert outcomes == {name: ["done"] * 4 for name in SITES}
    readies = [ready_of(network, number) for number in range(4)]
    assert [ready.consent.left_out for ready in readies] == [0, 0, 22, 22]
    assert [ready.consent.patients for ready in readies] == [64, 64, 45, 45]
    assert len({ready.consent.commitment for ready in readies}) == 4


def ready_of(network, number):
    key = site_key("run-1", number, "hospital-02", "ready")
    opened = network.coordinator.board.read(
        key, kind="ready", sender="hospital-02", role="site", run="run-1", round=number
    )
    return Ready.from_bytes(opened.payload)


def test_a_single_withdrawal_changes_neither_what_is_told_nor_the_budget(tmp_path):
    network = Network(tmp_path, make_study(privacy={"mode": "local", "epsilon": 4.0}))
    person = network.rows["hospital-02"].training().person[0]
    network.coordinator.start_run(network.study, run="run-1", seed=7)
    threads, outcomes, errors = network.follow("run-1")
    for number in (0, 1):
        network.run_round("run-1", number)
    network.give_consents("hospital-02", [Consent(int(person), None, None, False, Provision(type="deny"))])
    for number in (2, 3):
        network.run_round("run-1", number)
    for thread in threads:
        thread.join(timeout=60)
    assert errors == {}
    assert outcomes == {name: ["done"] * 4 for name in SITES}
    readies = [ready_of(network, number) for number in range(4)]
    assert len({ready.consent.commitment for ready in readies}) == 4
    assert len({(ready.patients, ready.consent.patients, ready.consent.left_out) for ready in readies}) == 1
    spent = network.coordinator.account("run-1").privacy()
    assert 0 < spent.epsilon <= 4.0 + 1e-9
