"""Algorithms over a real folder exchange: what the coordinator publishes is what every site computes for itself."""

from types import SimpleNamespace

import numpy as np
import pytest
from simulator.network import SITES, Network, make_study

from fedhealth.errors import ConfigError
from fedhealth.models import weights as weight_codec
from fedhealth.models.networks import initial_weights
from fedhealth.models.weights import flatten

TRAINING = {"rounds": 4, "local": {"steps": 5}, "batch_size": 16, "optimizer": {"lr": 0.05}}


def run(folder, study, **start):
    """A whole run; returns (network, closed rounds, outcomes, errors)."""
    network = Network(folder, study)
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


def test_a_coordinator_that_trains_on_after_the_end_is_refused(tmp_path):
    study = make_study(training=STILL)
    network = Network(tmp_path, study)
    node = network.coordinator
    node.start_run(study, run="run-1", seed=7)
    threads, _, errors = network.follow("run-1")
    for number in range(4):
        network.run_round("run-1", number)
    node._progress["run-1"] = SimpleNamespace(
        weights=node.progress("run-1").weights, is_final=lambda number: False
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
