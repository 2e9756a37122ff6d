"""A replay by an auditor refuses what a site would have refused, in a history that the coordinator wrote anew."""

import json
import shutil
import time

import pytest
import rfc8785
from simulator.network import Network, make_study

from fedhealth.exchange import Board, FolderExchange
from fedhealth.exchange.board import Reader
from fedhealth.rounds.history import replay_run
from fedhealth.rounds.objects import address_of, round_key, sum_key

ONE_ROUND = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    network = Network(tmp_path_factory.mktemp("finished"), make_study(training=ONE_ROUND))
    network.coordinator.start_run(network.study, run="run-1", seed=1)
    threads, _, errors = network.follow("run-1")
    network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=60)
    assert errors == {}
    return network


@pytest.fixture
def rewritten(finished, tmp_path):
    """Gives the coordinator's board on a copy of the exchange, from which an object is gone."""

    def without(key):
        shutil.copytree(finished.folder / "exchange", tmp_path / "exchange")
        (tmp_path / "exchange" / key).unlink()
        return Board(
            FolderExchange(tmp_path / "exchange"),
            finished.roster,
            finished.coordinator_keys,
            clock=time.time,
        )

    return without


def found_in(board):
    return [(each.key, each.problem) for each in replay_run(Reader(board.exchange, board.roster), "run-1")]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seed": 2}, "of another study than its run began with"),
        ({"purposes": ["update"]}, "asks for sums that its study does not have"),
        ({"purposes": ["update", "evaluation", "moments"]}, "asks for sums that its study does not have"),
        ({"model_digest": "ab" * 32}, "is not the last aggregate's"),
        ({"roster_digest": "ab" * 32}, "names another roster"),
        ({"round": 2}, "under another round's key"),
    ],
)
def test_a_manifest_that_its_run_does_not_give(finished, rewritten, changes, problem):
    key = round_key("run-1", 1, "manifest")
    board = rewritten(key)
    told = json.loads(finished.coordinator.manifest("run-1", 1).to_bytes()) | changes
    place = {"study": finished.study.digest, "run": "run-1", "round": 1}
    board.post(key, kind="manifest", payload=rfc8785.dumps(told), **place)
    ((where, why),) = found_in(board)
    assert where == round_key("run-1", 1, "aggregate")
    assert problem in why


@pytest.mark.parametrize(
    "changes", [{"settings_digest": "cd" * 32}, {"model_digest": "ab" * 32}, {"colluders": 0}, {"counter": 7}]
)
def test_a_plan_that_its_manifest_does_not_give(finished, rewritten, changes):
    plan = finished.coordinator._sums("run-1", 1).plan("update", finished.roster.sites)
    key = sum_key(plan, "plan", "coordinator")
    board = rewritten(key)
    other = plan.model_copy(update=changes)
    board.post(key, kind="plan", payload=other.to_bytes(), **address_of(other))
    ((_, why),) = found_in(board)
    assert (
        "another version of the software" if "settings_digest" in changes else "departs from its manifest"
    ) in why


def test_an_aggregate_without_the_tensors_of_its_study(finished, rewritten):
    key = round_key("run-1", 1, "aggregate")
    board = rewritten(key)
    other = finished.coordinator.board.exchange.get(round_key("run-1", 0, "aggregate"))
    place = {"study": finished.study.digest, "run": "run-1", "round": 1}
    payload = (
        Reader(finished.coordinator.board.exchange, finished.roster)
        .read(
            round_key("run-1", 0, "aggregate"),
            kind="aggregate",
            sender="coordinator",
            role="coordinator",
            run="run-1",
        )
        .payload
    )
    assert payload in other
    board.post(key, kind="aggregate", payload=payload, **place)
    assert found_in(board) == [(key, "is not what the round's sums come to")]


def test_the_run_as_it_was(finished, tmp_path):
    assert found_in(finished.coordinator.board) == []


def test_the_round_that_was_opened_last_is_answered_first(tmp_path):
    """Nobody goes on with the other: a site would wait in it, and in the run of today not answer in time."""
    network = Network(tmp_path, make_study(training=ONE_ROUND))
    for run in ("run-1", "run-2"):
        network.coordinator.start_run(network.study, run=run, seed=1)
        time.sleep(0.01)
    for site in network.rows:
        assert network.node(site).open_manifests() == (("run-2", 0), ("run-1", 0))
