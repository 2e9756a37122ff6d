"""Every kind of model and outcome over a real folder exchange: it trains, is judged, and all sites agree with it."""

import numpy as np
import pytest
from simulator.network import SITES, Network, make_study

from fedhealth.features.rows import Rows
from fedhealth.models.scoring import predict

ROUNDS = {"rounds": 3, "local": {"steps": 5}, "batch_size": 16, "optimizer": {"kind": "adam", "lr": 0.01}}
STAY = {"kind": "length_of_stay"}
AT_24_H = {"at": "admission", "plus_h": 24}


def run(folder, **sections):
    study = make_study(**{"training": ROUNDS, **sections})
    network = Network(folder, study)
    network.coordinator.start_run(study, run="run-1", seed=7)
    threads, outcomes, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    assert errors == {}
    assert outcomes == {name: ["done"] * len(closed) for name in SITES}
    return network, closed


def scores_of(network, number):
    progress = network.coordinator.progress("run-1")
    rows: Rows = network.rows["hospital-01"]
    return predict(progress.whole(number), progress.statistics(), network.study, rows.inputs())


def test_a_linear_model(tmp_path):
    _, closed = run(tmp_path, model={"kind": "linear"})
    assert closed[-1].metrics["auroc"] > closed[1].metrics["auroc"]


def test_a_recurrent_network_reads_the_series(tmp_path):
    model = {"kind": "lstm", "units": [8, 4], "dense": [4], "dropout": []}
    network, closed = run(tmp_path, model=model, features={"series": {"steps": 6}})
    assert 0.0 <= closed[-1].metrics["auroc"] <= 1.0
    assert scores_of(network, 4).shape == (80, 1)


def test_one_network_learns_several_outcomes_of_several_kinds(tmp_path):
    outcomes = {
        "aki": {"kind": "kidney_injury"},
        "los": STAY,
        "where": {"kind": "disposition"},
        "survival": {"kind": "survival"},
    }
    network, closed = run(
        tmp_path,
        outcomes=outcomes,
        prediction=AT_24_H,
        model={"kind": "multitask", "shared": [16], "heads": [8], "dropout": []},
    )
    metrics = closed[-1].metrics
    for name in ("aki.auroc", "los.r2", "los.mae", "where.auroc", "where.accuracy", "survival.c_index"):
        assert metrics[name] is not None, name
    assert scores_of(network, 4).shape == (80, 1 + 1 + 5 + 12)
    assert "aki.thresholds" in network.coordinator.tables("run-1")


def test_a_target_known_at_one_site_alone_is_learnt_from_it(tmp_path):
    study = make_study(
        training=ROUNDS, outcomes={"aki": {"kind": "kidney_injury"}, "los": STAY}, prediction=AT_24_H
    )
    network = Network(tmp_path, study)
    for name in SITES[1:]:
        rows = network.rows[name]
        rows.labels[:, list(study.outcomes).index("los")] = np.nan
        network.give_rows(name, rows)
    network.coordinator.start_run(study, run="run-1", seed=7)
    threads, _, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    assert errors == {}
    assert closed[-1].metrics["los.mae"] is not None


def test_codes_of_the_consortium_become_columns(tmp_path):
    features = {"categories": [{"name": "pain", "codes": ["urn:x|cp"]}]}
    network, closed = run(tmp_path, features=features)
    assert list(closed[0].survivors) == ["vocabulary", "moments"]
    progress = network.coordinator.progress("run-1")
    assert progress.statistics().vocabulary == {"pain": ("urn:x|1", "urn:x|2", "urn:x|3")}
    assert [column.name for column in progress.columns()][-3:] == [f"pain=urn:x|{n}" for n in (1, 2, 3)]
    assert progress.weights(1)["layers.0.weight"].shape == (8, 131)


@pytest.mark.parametrize("outcome", [{"kind": "kidney_injury"}, STAY], ids=["yes-or-no", "number"])
def test_boosted_trees_grow_by_sums(tmp_path, outcome):
    network, closed = run(
        tmp_path,
        outcomes={"aki": outcome},
        prediction=AT_24_H,
        training={"rounds": 3},
        model={"kind": "gbm", "depth": 2, "learning_rate": 0.5, "min_people": 11},
    )
    assert list(closed[1].survivors) == ["evaluation", "growth/0", "growth/1"]
    name = "auroc" if outcome["kind"] == "kidney_injury" else "r2"
    assert closed[-1].metrics[name] > closed[1].metrics[name]
    assert network.coordinator.account("run-1").attendance() == dict.fromkeys(SITES, "trained")


def test_cox_regression_fits_by_sums(tmp_path):
    _, closed = run(
        tmp_path,
        outcomes={"survival": {"kind": "survival"}},
        prediction=AT_24_H,
        training={"rounds": 3},
        model={"kind": "cox"},
        features={"preset": None, "statics": ["age", "prior_admissions_12m"]},
    )
    assert closed[-1].metrics["c_index"] > 0.55
