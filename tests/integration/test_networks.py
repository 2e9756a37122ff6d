"""Every kind of network and optimiser through whole rounds, masked and noised: three sites in threads."""

from dataclasses import replace

import numpy as np
import pytest
from simulator.network import SITES, Network, make_study

from fedhealth.models.personal import frozen_names
from fedhealth.models.weights import flatten
from fedhealth.study.built import refuse_unbuilt
from fedhealth.study.columns import SERIES

PRIVATE = {"mode": "local", "epsilon": 8.0}


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"kind": "linear"}, "optimizer": {"kind": "adam", "lr": 0.01}},
        {
            "model": {"kind": "multitask", "shared": [8], "heads": [4], "dropout": [0.1]},
            "optimizer": {"kind": "adamw", "lr": 0.01},
            "algorithm": "fedprox",
            "proximal_mu": 0.1,
            "initial": {"freeze": ["trunk.*"]},
        },
        {"model": {"kind": "lstm", "units": [4, 3], "dense": [4]}, "optimizer": {"kind": "sgd", "lr": 0.1}},
    ],
    ids=lambda sections: sections["model"]["kind"],
)
def test_a_kind_goes_through_whole_rounds(tmp_path, sections):
    training = {key: value for key, value in sections.items() if key != "model"}
    study = make_study(
        model=sections["model"],
        training={"rounds": 2, "local": {"epochs": 1}, "batch_size": 16, **training},
        privacy=PRIVATE,
    )
    refuse_unbuilt(study)
    network = Network(tmp_path, study)
    for number, name in enumerate(SITES):
        network.give_rows(name, with_series(network.rows[name], number))
    network.coordinator.start_run(study, run="run-1", seed=7)
    threads, outcomes, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=30)
    assert errors == {}
    assert outcomes == {name: ["done"] * 4 for name in SITES}
    models = [network.coordinator.progress("run-1").weights(number) for number in (1, 2, 3)]
    assert all(np.isfinite(flatten(each)).all() for each in models)
    frozen = frozen_names(models[0], study)
    for name, begun in models[0].items():
        assert (models[2][name] == begun).all() if name in frozen else (models[2][name] != begun).any()
    assert closed[-1].metrics["auroc"] is not None


def with_series(rows, seed):
    generator = np.random.default_rng(seed)
    low, high = np.array([(each.clip_low, each.clip_high) for each in SERIES]).T
    series = low + generator.random((len(rows), 6, len(SERIES))) * (high - low)
    series[generator.random(series.shape) < 0.5] = np.nan
    return replace(rows, series=series.astype(np.float32))
