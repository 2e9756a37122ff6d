"""Rounds whose updates are encrypted: the same model as under masks, whoever vanishes or sends nothing that opens."""

import threading
from dataclasses import replace

import pytest
from simulator.network import TIMEOUTS, Network, make_study

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.rounds import coordinator_sum, site_vector
from fedhealth.rounds.aggregate import read_aggregate

FOUR = tuple(f"hospital-{number:02d}" for number in range(1, 5))
LIAR = FOUR[1]
HASTY = replace(TIMEOUTS, phase_timeout_s=4)
ONE_ROUND = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}


class LyingBoard:
    """A board whose site posts something else than its ciphertext: what ``lie`` makes of it, or nothing for None."""

    def __init__(self, board, lie):
        self._board, self._lie = board, lie

    def __getattr__(self, name):
        return getattr(self._board, name)

    def post(self, key, *, kind, payload, **place):
        if kind == "cipher":
            payload = self._lie(payload)
        return self._board.post(key, kind=kind, payload=payload, **place) if payload is not None else ""


class LyingNetwork(Network):
    lie = None

    def node(self, name, dies_at=None):
        node = super().node(name, dies_at)
        if name == LIAR:
            node.board = LyingBoard(node.board, self.lie)
        return node


def start(folder, mode, *, sites=FOUR, kind=Network, **sections):
    study = make_study(aggregation={"mode": mode}, **sections)
    network = kind(folder / mode, study, sites=sites, timeouts=HASTY)
    network.coordinator.start_run(study, run="run-1", seed=1)
    return network


def aggregate(network, number):
    return read_aggregate(network.coordinator.board, "coordinator", "run-1", number)


def test_encrypted_updates_give_the_model_that_masks_give_bit_for_bit(tmp_path):
    found = {}
    for mode in ("masks", "he"):
        network = start(tmp_path, mode, sites=FOUR[:3])
        _, _, errors = network.follow("run-1")
        network.run_rounds("run-1")
        assert errors == {}
        found[mode] = [aggregate(network, number).to_bytes() for number in range(4)]
        ciphers = network.coordinator.board.list("runs/run-1/sums/1/update/0/0/cipher/")
        assert len(ciphers) == {"masks": 0, "he": 3}[mode]
    assert found["he"] == found["masks"]


def first_update(folder, mode, phase):
    """The aggregate of the first update, of four sites of which one vanishes before it posts in a phase of that sum."""
    network = start(folder, mode, training=ONE_ROUND)
    network.follow("run-1", dying={LIAR: f"update/0/0/{phase}"})
    for number in (0, 1):
        network.run_round("run-1", number)
    return aggregate(network, 1)


@pytest.fixture(scope="module")
def under_masks(tmp_path_factory):
    """By whether the site that vanishes is in it: the first update under masks."""
    phases = {False: "masked", True: "open"}
    return {kept: first_update(tmp_path_factory.mktemp(at), "masks", at) for kept, at in phases.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "is_in"), [("cipher", False), ("masked", False), ("agree", True), ("open", True)]
)
def test_a_site_may_vanish_at_any_step_and_the_sum_is_that_under_masks(tmp_path, under_masks, phase, is_in):
    found = first_update(tmp_path, "he", phase)
    assert found.survivors["update"] == tuple(site for site in FOUR if site != LIAR or is_in)
    assert found.to_bytes() == under_masks[is_in].to_bytes()


@pytest.mark.parametrize(
    ("lie", "problem"),
    [
        (lambda payload: None, "a key and no ciphertext"),
        (lambda payload: payload[:-1], "wrong size"),
        (lambda payload: b"\xff" * len(payload), "canonical form"),
        (lambda payload: bytes(len(payload)), "another ciphertext"),
    ],
)
def test_a_key_without_its_whole_ciphertext_is_left_out_before_the_list_is_proposed(tmp_path, lie, problem):
    network = start(tmp_path, "he", kind=LyingNetwork, training=ONE_ROUND)
    network.lie = staticmethod(lie)
    _, _, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    honest = tuple(site for site in FOUR if site != LIAR)
    assert closed[1].survivors["update"] == honest
    assert problem in network.coordinator.blamed[LIAR]
    assert errors == {}


def test_a_site_killed_behind_its_ciphertext_comes_back_with_the_same_bytes(tmp_path):
    network = start(tmp_path, "he", sites=FOUR[:3], training=ONE_ROUND)
    network.timeouts = TIMEOUTS
    _, _, errors = network.follow("run-1", dying={LIAR: "update/0/0/masked"})
    closed = []
    coordinator = threading.Thread(target=lambda: closed.extend(network.run_rounds("run-1")), daemon=True)
    coordinator.start()
    while LIAR not in errors:
        coordinator.join(timeout=0.02)
    assert [outcome for _, outcome in network.node(LIAR).follow("run-1")] == ["closed", "done", "done"]
    coordinator.join(timeout=60)
    assert closed[1].survivors["update"] == FOUR[:3]


def test_a_site_refuses_to_encrypt_a_second_vector_under_one_plan(tmp_path, monkeypatch):
    network = start(tmp_path, "he", sites=FOUR[:3], training=ONE_ROUND)
    _, _, errors = network.follow("run-1", dying={LIAR: "update/0/0/cipher"})
    network.run_round("run-1", 0)
    with pytest.raises(PolicyError, match="only 2 of 3 sites answered phase masked"):
        network.run_round("run-1", 1)
    assert errors[LIAR] == "killed"
    vector_of = site_vector._VECTORS["update"]
    monkeypatch.setitem(site_vector._VECTORS, "update", lambda site, plan: vector_of(site, plan) + 1)
    with pytest.raises(ProtocolError, match="this site's cipher message changed"):
        network.node(LIAR).answer("run-1", 1)


def test_a_coordinator_killed_behind_the_list_of_keys_ends_with_the_same_sum(tmp_path, monkeypatch):
    network = start(tmp_path, "he", sites=FOUR[:3], training=ONE_ROUND)
    network.follow("run-1")
    node = network.coordinator
    network.run_round("run-1", 0)
    node.open_round("run-1", 1)
    cohort = tuple(node.wait_for_sites("run-1", 1).ready)
    node.secure_sum("run-1", 1, "evaluation", cohort=cohort)
    with monkeypatch.context() as patch:
        patch.setattr(coordinator_sum.CoordinatorSum, "unmask", lambda self, opens: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            node.secure_sum("run-1", 1, "update", cohort=cohort)
    assert replace(node, blamed={}).secure_sum("run-1", 1, "update", cohort=cohort) == FOUR[:3]
