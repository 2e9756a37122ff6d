"""Algorithms over a real folder exchange: what the coordinator publishes is what every site computes for itself."""

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load
from simulator.network import SITES, Network, make_study

from fedhealth.errors import ConfigError, DivergedError, PolicyError
from fedhealth.models import weights as weight_codec
from fedhealth.models.networks import initial_weights
from fedhealth.models.weights import flatten
from fedhealth.rounds.objects import purposes_of
from fedhealth.rounds.site_memory import SiteMemory

TRAINING = {"rounds": 4, "local": {"steps": 5}, "batch_size": 16, "optimizer": {"lr": 0.05}}


def run(folder, study, change=None, **start):
    """A whole run, of rows as ``change`` makes them; returns (network, closed rounds, outcomes, errors)."""
    network = Network(folder, study)
    for name, rows in network.rows.items() if change else ():
        network.give_rows(name, change(rows))
    network.coordinator.start_run(study, run="run-1", seed=7, **start)
    threads, outcomes, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    return network, closed, outcomes, errors


@pytest.mark.parametrize(
    "training",
    [
        {"algorithm": "fedadam", "server": {"kind": "adam", "lr": 0.05}},
        {"algorithm": "fedyogi", "server": {"kind": "yogi", "lr": 0.05}},
        {"algorithm": "fedadagrad", "server": {"kind": "adagrad", "lr": 0.05}},
        {"algorithm": "fedprox", "proximal_mu": 0.1},
        {"algorithm": "scaffold"},
        {"algorithm": "fedbn"},
    ],
    ids=lambda training: training["algorithm"],
)
def test_sites_agree_with_every_model_of_an_algorithm_and_it_learns(tmp_path, training):
    study = make_study(training={**TRAINING, **training})
    network, closed, outcomes, errors = run(tmp_path, study)
    assert errors == {}
    assert outcomes == {name: ["done"] * 6 for name in SITES}
    assert closed[-1].metrics["auroc"] > closed[1].metrics["auroc"]
    first, last = (flatten(network.coordinator.progress("run-1").weights(n)) for n in (1, 5))
    assert np.abs(last - first).max() > 0.01


STILL = {**TRAINING, "rounds": 9, "optimizer": {"lr": 1e-12}, "early_stopping": {"patience": 2}}


def test_a_run_without_gain_stops_and_keeps_the_best_model(tmp_path):
    network, closed, outcomes, errors = run(tmp_path, make_study(training=STILL))
    assert errors == {}
    assert [each.round for each in closed] == [0, 1, 2, 3, 4]
    assert outcomes == {name: ["done"] * 5 for name in SITES}
    assert list(closed[-1].survivors) == ["evaluation"]
    node = network.coordinator
    assert node.final_round("run-1") == 4
    assert node.next_round("run-1") is None
    assert weight_codec.digest(node.progress("run-1").weights(4)) == node.manifest("run-1", 1).model_digest


def test_what_is_chosen_is_chosen_by_rows_that_the_final_figures_do_not_see(tmp_path):
    training = {"rounds": 5, "local": {"steps": 30}, "batch_size": 16, "optimizer": {"lr": 0.2}}
    study = make_study(training=training | {"early_stopping": {"patience": 5}})

    def turned(rows):
        return replace(rows, labels=np.where(rows.is_test[:, None], 1 - rows.labels, rows.labels))

    _, closed, _, errors = run(tmp_path, study, turned)
    assert errors == {}
    assert closed[-2].metrics["auroc"] > 0.6
    assert closed[-1].metrics["auroc"] < 0.4


SEARCH = {**TRAINING, "rounds": 6, "search": {"lr": [1e-9, 0.1], "rounds": 2}}


def test_a_run_finds_its_learning_rate_in_its_first_rounds(tmp_path):
    network, closed, outcomes, errors = run(tmp_path, make_study(training=SEARCH))
    assert errors == {}
    assert outcomes == {name: ["done"] * 8 for name in SITES}
    trials = network.coordinator.progress("run-1").trials()
    assert [trial.signal for trial in trials] == [closed[n].metrics["auroc"] for n in (2, 4)]
    assert [trial.learning_rate for trial in trials if trial.is_chosen] == [0.1]


def test_a_rate_at_which_training_diverges_loses_and_ends_no_run(tmp_path):
    search = {"lr": [1e30, 0.1], "rounds": 2}
    network, closed, outcomes, errors = run(tmp_path, make_study(training={**SEARCH, "search": search}))
    assert errors == {}
    assert outcomes == {name: ["done"] * 8 for name in SITES}
    trials = network.coordinator.progress("run-1").trials()
    assert [trial.learning_rate for trial in trials if trial.is_chosen] == [0.1]
    assert closed[2].metrics["auroc"] == closed[1].metrics["auroc"]


def test_a_run_whose_training_diverges_ends_with_that(tmp_path):
    network = Network(tmp_path, make_study(training={**TRAINING, "optimizer": {"lr": 1e30}}))
    network.coordinator.start_run(network.study, run="run-1", seed=7)
    threads, _, errors = network.follow("run-1")
    network.run_round("run-1", 0)
    network.coordinator.open_round("run-1", 1)
    cohort = tuple(network.coordinator.wait_for_sites("run-1", 1).ready)
    network.coordinator.secure_sum("run-1", 1, "evaluation", cohort=cohort)
    with pytest.raises(PolicyError):
        network.coordinator.secure_sum("run-1", 1, "update", cohort=cohort)
    for thread in threads:
        thread.join(timeout=30)
    assert {type(error) for error in errors.values()} == {DivergedError}


def test_a_search_pays_for_its_rounds_like_for_all_others(tmp_path):
    private = {"mode": "local", "epsilon": 6.0, "delta": 1e-5}
    network, _, _, errors = run(tmp_path, make_study(training=SEARCH, privacy=private))
    assert errors == {}
    assert network.coordinator.progress("run-1").trials()
    assert 0.0 < network.coordinator.account("run-1").privacy().epsilon <= 6.0 * 0.8


def test_a_coordinator_that_trains_on_after_the_end_is_refused(tmp_path):
    study = make_study(training=STILL)
    network = Network(tmp_path, study)
    node = network.coordinator
    node.start_run(study, run="run-1", seed=7)
    threads, _, errors = network.follow("run-1")
    for number in range(4):
        network.run_round("run-1", number)
    honest = node.progress("run-1")
    node._progress["run-1"] = SimpleNamespace(
        whole=honest.whole, purposes=lambda number: purposes_of(study, number, is_final=False, sites=3)
    )
    node.open_round("run-1", 4)
    for thread in threads:
        thread.join(timeout=30)
    assert set(errors) == set(SITES)
    assert all("sums that its study does not have" in str(error) for error in errors.values())


def transferred(shape_of, digest=None):
    weights = initial_weights(shape_of, inputs=128, seed=99)
    initial = {"model": "readmission-30d/3", "digest": digest or weight_codec.digest(weights)}
    return weights, make_study(training={**TRAINING, "rounds": 1, "initial": initial})


def test_a_run_starts_from_the_registered_model_that_its_study_names(tmp_path):
    weights, study = transferred(make_study())
    network, _, outcomes, errors = run(tmp_path, study, transferred=weights)
    assert errors == {}
    assert outcomes == {name: ["done"] * 3 for name in SITES}
    assert network.coordinator.manifest("run-1", 1).model_digest == weight_codec.digest(weights)


def test_another_model_than_the_study_names_is_refused(tmp_path):
    weights, study = transferred(make_study(), digest="0" * 64)
    network = Network(tmp_path, study)
    for given in (weights, None):
        with pytest.raises(ConfigError, match="another digest"):
            network.coordinator.start_run(study, run="run-1", seed=7, transferred=given)


def test_personal_parameters_never_travel_and_are_kept_from_round_to_round(tmp_path):
    study = make_study(training={**TRAINING, "personal": ["layers.1.*"]})
    network, closed, outcomes, errors = run(tmp_path, study)
    assert errors == {}
    assert outcomes == {name: ["done"] * 6 for name in SITES}
    progress = network.coordinator.progress("run-1")
    assert sorted(progress.weights(5)) == ["layers.0.bias", "layers.0.weight"]
    assert sorted(progress.whole(5)) == sorted(initial_weights(make_study(), inputs=128, seed=0))
    last = [
        load(path.read_bytes()) for path in sorted(tmp_path.glob("hospital-*/memory/run-1/0004.safetensors"))
    ]
    values = [each["personal.layers.1.weight"] for each in last]
    assert len(values) == 3
    assert not any(np.array_equal(one, other) for one, other in combinations(values, 2))
    assert closed[-1].metrics["auroc"] > closed[1].metrics["auroc"]


def test_scaffold_leaves_every_site_the_control_that_its_updates_make(tmp_path):
    network, _, _, errors = run(tmp_path, make_study(training={**TRAINING, "algorithm": "scaffold"}))
    assert errors == {}
    progress = network.coordinator.progress("run-1")
    owns = [SiteMemory(tmp_path / name / "memory" / "run-1", name, progress).control(5) for name in SITES]
    sizes = [len(rows.training()) for rows in network.rows.values()]
    for name, control in progress.state(5).control.items():
        mean = np.average([own[name] for own in owns], axis=0, weights=sizes)
        assert np.abs(control).max() > 0.01
        np.testing.assert_allclose(control, mean, atol=1e-4)


def test_frozen_layers_do_not_move(tmp_path):
    weights = initial_weights(make_study(), inputs=128, seed=99)
    digest = weight_codec.digest(weights)
    initial = {"model": "readmission-30d/3", "digest": digest, "freeze": ["layers.0.*"]}
    study = make_study(training={**TRAINING, "rounds": 2, "initial": initial})
    network, _, _, errors = run(tmp_path, study, transferred=weights)
    assert errors == {}
    last = network.coordinator.progress("run-1").weights(3)
    for name in weights:
        assert np.array_equal(last[name], weights[name]) == name.startswith("layers.0.")


def test_each_site_may_tune_the_final_model_for_itself(tmp_path):
    study = make_study(training={**TRAINING, "rounds": 1, "fine_tune": {"epochs": 3}})
    _, closed, _, errors = run(tmp_path, study)
    assert errors == {}
    assert list(closed[-1].survivors) == ["evaluation", "personalised"]
    metrics = closed[-1].metrics
    assert 0.0 <= metrics["personalised.auroc"] <= 1.0
    assert metrics["personalised.auroc"] != metrics["auroc"]
    assert metrics["personalised.n"] == metrics["n"]


def test_a_site_shares_its_own_figures_only_if_its_policy_says_so(tmp_path):
    network = Network(tmp_path, make_study(training={**TRAINING, "rounds": 1}))
    (tmp_path / "hospital-02" / "policy.yaml").write_text("share_figures: true\n")
    network.coordinator.start_run(network.study, run="run-1", seed=7)
    threads, _, errors = network.follow("run-1")
    network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    assert errors == {}
    figures = network.coordinator.account("run-1").figures()
    assert list(figures) == ["hospital-02"]
    assert set(figures["hospital-02"]) == {"auroc", "accuracy"}


@pytest.mark.parametrize("training", [{"personal": ["heads.*"]}, {"initial": {"freeze": ["*"]}}])
def test_patterns_of_no_parameter_or_of_all_are_refused_before_a_round(tmp_path, training):
    network = Network(tmp_path, make_study(training={**TRAINING, **training}))
    with pytest.raises(ConfigError, match="training"):
        network.coordinator.start_run(network.study, run="run-1", seed=7)
