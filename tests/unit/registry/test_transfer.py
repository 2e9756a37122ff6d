"""A study that promises privacy starts from no model that was trained without it."""

from types import SimpleNamespace

import pytest
from simulator.network import SITES, Network, make_study

from fedhealth.errors import ConfigError, PolicyError
from fedhealth.registry import Registry
from fedhealth.registry.transfer import start_study

NONE = {"mode": "none", "legal_basis": "public"}
LOCAL = {"mode": "local", "epsilon": 1.0}


def started(study_privacy, known_privacy):
    """What reaches the coordinator, of a registry that knows one version."""
    initial = {"model": "base/1", "digest": "0" * 64}
    study = make_study(
        privacy=study_privacy, training={"rounds": 1, "local": {"epochs": 1}, "initial": initial}
    )
    known = make_study(privacy=known_privacy)
    registry = SimpleNamespace(study=lambda name, version: known, weights=lambda name, version: {})
    node = SimpleNamespace(
        start_run=lambda study, *, run, seed, transferred: (study.name, run, transferred),
        board=SimpleNamespace(roster=SimpleNamespace(sites=SITES)),
    )
    return start_study(node, registry, study, run="run-1", seed=0)


def test_privacy_does_not_start_from_a_model_without():
    with pytest.raises(ConfigError, match="without differential privacy"):
        started(LOCAL, NONE)


@pytest.mark.parametrize(("own", "known"), [(LOCAL, LOCAL), (NONE, LOCAL), (NONE, NONE)], ids=str)
def test_every_other_start_is_let_through(own, known):
    assert started(own, known) == ("tiny", "run-1", {})


def test_what_the_enrolled_sites_cannot_carry_out_is_not_begun(tmp_path):
    network = Network(tmp_path, make_study(aggregation={"min_sites": 4}))
    node = network.coordinator
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db", artifact_root=tmp_path)
    with pytest.raises(PolicyError, match="3 sites are enrolled"):
        start_study(node, registry, network.study, run="run-1", seed=0)
    assert not [key for key in node.board.list() if key.startswith(("log/", "runs/", "studies/"))]
