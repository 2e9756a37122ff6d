"""Rounds over a real folder exchange: three sites in threads, rows made here, everything else real."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from fedhealth.aggregation.update import weighted_mean_plain
from fedhealth.audit.log import TransparencyLog
from fedhealth.config import Timeouts
from fedhealth.exchange import Board, FolderExchange
from fedhealth.features.rows import Rows, save_rows
from fedhealth.identity import PartyKeys, Roster, SiteSecrets
from fedhealth.models.weights import flatten
from fedhealth.rounds.aggregate import read_aggregate, statistics_of
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.layout import quantisation_step
from fedhealth.rounds.objects import last_round, purposes_of
from fedhealth.rounds.site_data import SiteDataState, SiteFolder, record_state
from fedhealth.rounds.site_environment import join
from fedhealth.study import Study
from fedhealth.study.columns import feature_columns
from fedhealth.training.local import train_local
from fedhealth.training.plan import local_seed, plan_local

SITES = ("hospital-01", "hospital-02", "hospital-03")
TIMEOUTS = Timeouts(phase_timeout_s=20, ready_timeout_s=20, coordinator_timeout_s=60, poll_s=0.005)


def make_study(**sections):
    document = {
        "schema_version": 1,
        "name": "tiny",
        "outcomes": {"readmission": {"kind": "readmission"}},
        "model": {"kind": "mlp", "hidden": [8], "dropout": [0.1]},
        "training": {"rounds": 2, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}},
        "privacy": {"mode": "none", "legal_basis": "public synthetic data"},
    }
    return Study.model_validate_json(json.dumps({**document, **sections}))


def make_rows(study, seed, patients=80):
    generator = np.random.default_rng(seed)
    columns = feature_columns(study)
    low, high = np.array([(c.low, c.high) for c in columns]).T
    unit = generator.random((patients, len(columns)))
    labels = (unit[:, 0] + 0.3 * generator.standard_normal(patients) > 0.5).astype(np.float32)
    features = (low + unit * (high - low)).astype(np.float32)
    flags = np.array([c.kind == "flag" for c in columns])
    features[:, flags] = np.round(unit[:, flags])
    return Rows(features, labels, np.arange(patients, dtype=np.int64), generator.random(patients) < 0.4)


class Network:
    """A consortium in one folder: keys and journals apart, one exchange between."""

    def __init__(self, folder, study, sites=SITES):
        self.folder, self.study = folder, study
        self.keys = {
            name: PartyKeys.load_or_create(folder / name / "keys", name=name, role="site") for name in sites
        }
        coordinator = PartyKeys.load_or_create(
            folder / "coordinator" / "keys", name="coordinator", role="coordinator"
        )
        self.roster = Roster.of((coordinator.public, *(keys.public for keys in self.keys.values())))
        self.url = str(folder / "exchange")
        exchange = FolderExchange(folder / "exchange")
        board = Board(exchange, coordinator, self.roster, clock=time.time)
        self.coordinator = CoordinatorNode(
            name="coordinator",
            folder=folder / "coordinator",
            board=board,
            log=TransparencyLog(exchange, board),
            timeouts=TIMEOUTS,
        )
        self.rows = {name: make_rows(study, seed) for seed, name in enumerate(sites)}
        for name, rows in self.rows.items():
            self.give_rows(name, rows)

    def site_folder(self, name):
        return SiteFolder(self.folder / name)

    def give_rows(self, name, rows):
        folder = self.site_folder(name)
        path = folder.rows(self.study)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_rows(path, rows)
        record_state(folder, SiteDataState(passed=True, reason=None))

    def node(self, name, timeouts=TIMEOUTS):
        folder = self.site_folder(name)
        return join(
            folder,
            keys=self.keys[name],
            roster=self.roster,
            secrets=SiteSecrets.load_or_create(folder.keys),
            exchange_url=self.url,
            timeouts=timeouts,
        )

    def follow(self, run):
        """Start every site in a thread; returns (threads, outcomes, errors)."""
        outcomes, errors = {}, {}

        def work(name):
            try:
                outcomes[name] = [outcome for _, outcome in self.node(name).follow(run)]
            except Exception as error:  # noqa: BLE001 - handed to the test
                errors[name] = error

        threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in self.keys]
        for thread in threads:
            thread.start()
        return threads, outcomes, errors

    def run_rounds(self, run, coordinator=None):
        node = coordinator or self.coordinator
        closed = []
        for number in range(last_round(self.study) + 1):
            node.open_round(run, number)
            cohort = tuple(node.wait_for_sites(run, number).ready)
            for purpose in purposes_of(self.study, number):
                node.secure_sum(run, number, purpose, cohort=cohort)
            closed.append(node.close_round(run, number))
        return closed


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
    weights = node.weights("run-1", 1, study)
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


def test_a_coordinator_that_is_built_anew_finds_the_run_finished(finished):
    network, closed, _, _ = finished
    again = replace(network.coordinator, blamed={})
    assert again.find_open_round("run-1") is None
    assert again.close_round("run-1", 1).log_index == closed[1].log_index
