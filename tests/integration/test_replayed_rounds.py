"""R5: a round holds when sites have opened its sums anew and come to what was published; the log is co-signed by the sites."""

import shutil
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from simulator.network import SITES, TIMEOUTS, Network, make_study

from fedhealth.audit import verify_exchange
from fedhealth.audit.log import TransparencyLog
from fedhealth.errors import ConfigError, PolicyError, ProtocolError
from fedhealth.exchange import Board, FolderExchange
from fedhealth.exchange.board import Reader
from fedhealth.rounds.aggregate import Aggregate, read_aggregate
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.history import replay_run
from fedhealth.rounds.objects import Verdict, site_key
from fedhealth.rounds.site_closing import RoundClosing
from fedhealth.rounds.site_sum import SiteSumContext

ONE_ROUND = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}
HASTY = replace(TIMEOUTS, phase_timeout_s=6, coordinator_timeout_s=12, ready_timeout_s=6, verify_timeout_s=6)
FIVE = (*SITES, "hospital-04", "hospital-05")


def started(folder, *, sites=FIVE, timeouts=HASTY, **sections):
    network = Network(folder, make_study(training=ONE_ROUND, **sections), sites=sites, timeouts=timeouts)
    network.coordinator.start_run(network.study, run="run-1", seed=1)
    return network


def verdicts(network, number):
    exists = network.coordinator.board.exists
    return {
        site: exists(site_key("run-1", number, site, "verdict"))
        for site in network.rows
        if exists(site_key("run-1", number, site, "verdict"))
    }


def join_all(threads):
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.mark.parametrize("colluders", [0, 1, 2])
def test_one_site_more_than_may_collude_replays_each_round_and_all_co_sign_the_log(tmp_path, colluders):
    network = started(tmp_path, aggregation={"colluders": colluders})
    threads, _, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    join_all(threads)
    assert errors == {}
    assert [len(verdicts(network, each.round)) for each in closed] == [colluders + 1] * 3
    signed = network.coordinator_keys.sign_roster(network.roster)
    result = verify_exchange(network.coordinator.board.exchange, signed)
    assert result.findings == ()
    assert replay_run(Reader(network.coordinator.board.exchange, network.roster), "run-1") == ()
    assert (result.cosigned.size, result.cosigners) == (result.log_size, FIVE)
    assert len(closed[-1].cosigners) >= 4
    entry = network.coordinator.log.read(closed[0].log_index).statement
    assert sum(name.endswith("/verdict") for name in entry.subjects) == colluders + 1


def test_another_aggregate_than_the_sums_come_to_is_refused_by_every_site(tmp_path, monkeypatch):
    network = started(tmp_path)
    node = network.coordinator
    threads, _, errors = network.follow("run-1")
    node.open_round("run-1", 0)
    cohort = tuple(node.wait_for_sites("run-1", 0).ready)
    node.secure_sum("run-1", 0, "moments", cohort=cohort)
    stored = node._result_path("run-1", 0, "moments")
    honest = Aggregate.from_bytes(stored.read_bytes())
    doctored = {**honest.tensors, "mean": honest.tensors["mean"] + np.float32(0.01)}
    stored.write_bytes(replace(honest, tensors=doctored).to_bytes())
    with pytest.raises(PolicyError, match="0 sites came to the published sums, 2 must"):
        node.close_round("run-1", 0)
    join_all(threads)
    assert set(errors) == set(FIVE)
    assert all(
        isinstance(each, ProtocolError) and "not what its sums come to" in each.problem
        for each in errors.values()
    )
    assert not node.board.exchange.list("log/checkpoints/")
    found = replay_run(Reader(node.board.exchange, network.roster), "run-1")
    assert [(each.kind, each.key) for each in found] == [("replay", "runs/run-1/rounds/0/aggregate")]


def test_a_site_that_lies_about_a_round_is_blamed_and_stops_nobody(tmp_path, monkeypatch):
    network = started(tmp_path)
    lie = Verdict(aggregate="ab" * 32).to_bytes()

    def accuse(closing, manifest, digest):
        if closing._name == "hospital-03":
            key = site_key(manifest.run, manifest.round, "hospital-03", "verdict")
            place = {"study": manifest.study_digest, "run": manifest.run, "round": manifest.round}
            closing.board.post(key, kind="verdict", payload=lie, **place)
        else:
            settle(closing, manifest, digest)

    settle = RoundClosing._settle
    monkeypatch.setattr(RoundClosing, "_settle", accuse)
    threads, _, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    join_all(threads)
    assert errors == {}
    assert len(closed) == 3
    for each in closed:
        assert "hospital-03" in verdicts(network, each.round)
        assert len(verdicts(network, each.round)) > 2
    assert set(network.coordinator.blamed) <= {"hospital-03"}


def test_where_the_chosen_sites_are_gone_the_others_replay(tmp_path):
    """A site that dies before its opening is in the sum, and may be among those that were to replay it."""
    network = started(tmp_path)
    gone = "hospital-02"
    threads, _, errors = network.follow("run-1", dying={gone: "verdict"})
    closed = network.run_round("run-1", 0)
    for thread, name in zip(threads, network.rows, strict=True):
        if name == gone:
            thread.join(timeout=1)
    assert closed.round == 0
    assert len(verdicts(network, 0)) >= 2
    assert set(errors) <= {gone}


def test_too_few_sites_for_the_colluders_of_a_study_are_refused(tmp_path):
    network = started(tmp_path, sites=FIVE[:4], aggregation={"colluders": 2})
    network.follow("run-1")
    network.coordinator.open_round("run-1", 0)
    with pytest.raises(PolicyError, match="4 sites withstand 1 colluders, not 2"):
        network.coordinator.wait_for_sites("run-1", 0)


def test_a_coordinator_that_shows_two_logs_is_found_by_a_witness(tmp_path):
    """The second log is shown to one site; the two signed checkpoints contradict each other."""
    network = started(tmp_path)
    threads, _, errors = network.follow("run-1")
    network.run_rounds("run-1")
    join_all(threads)
    assert errors == {}
    board = network.coordinator.board
    shutil.copytree(tmp_path / "exchange", tmp_path / "fork")
    for exchange, epsilon in ((board.exchange, 1), (FolderExchange(tmp_path / "fork"), 2)):
        log = TransparencyLog(exchange, Board(exchange, board.roster, board.keys, clock=board.clock))
        for step in range(epsilon):
            log.append("spend", {"epsilon": epsilon, "step": step}, {})
        log.checkpoint()
    network.node("hospital-01").witness()
    network.url = str(tmp_path / "fork")
    network.node("hospital-02").witness()  # it has not seen the other one
    with pytest.raises(ProtocolError, match="two histories"):
        network.node("hospital-01").witness()
    assert len(list((tmp_path / "hospital-01/journal/evidence").glob("*.note"))) == 2


def test_a_site_does_not_co_sign_a_log_that_leaves_out_what_it_gave(tmp_path, monkeypatch):
    network = started(tmp_path)
    node = network.coordinator
    objects = type(node)._objects

    def without_one(self, run, number):
        found = objects(self, run, number)
        return {key: value for key, value in found.items() if not key.endswith("/masked/hospital-04")}

    monkeypatch.setattr(type(node), "_objects", without_one)
    threads, _, errors = network.follow("run-1")
    closed = network.run_round("run-1", 0)
    threads[3].join(timeout=30)
    assert "leaves out what this site gave" in errors["hospital-04"].problem
    assert "hospital-04" not in closed.cosigners
    assert not node.board.exists(f"log/cosignatures/{closed.log_size:08d}/hospital-04")


def test_a_site_that_was_away_co_signs_when_it_is_back(tmp_path):
    network = started(tmp_path)
    threads, _, _ = network.follow("run-1", dying={"hospital-05": "verdict"})
    network.run_rounds("run-1")
    threads[0].join(timeout=60)
    node = network.node("hospital-05")
    assert all(node.answer(run, number) == "closed" for run, number in node.open_manifests())
    node.witness()
    assert node.open_manifests() == ()
    size = network.coordinator.log.size
    assert network.coordinator.board.exists(f"log/cosignatures/{size:08d}/hospital-05")


@pytest.mark.parametrize(
    "said", [b"{}", b'{"weight":-1,"patients":3,"noise_multiplier":1,"steps":1}', b"\xff"]
)
def test_a_site_whose_word_is_no_word_is_blamed_and_left_out(tmp_path, said):
    """What it posted stays posted: else the round could never go on."""
    network = started(tmp_path)
    node, liar, study = network.coordinator, "hospital-04", network.study.digest
    replace(node.board, keys=network.keys[liar]).post(
        site_key("run-1", 0, liar, "ready"), kind="ready", payload=said, study=study, run="run-1"
    )
    network.follow("run-1")
    ready = node.wait_for_sites("run-1", 0).ready
    assert tuple(ready) == tuple(site for site in FIVE if site != liar)
    assert liar in node.blamed
    assert node.account("run-1").answer(0, liar) is None


def test_a_round_that_is_closed_again_after_a_kill_is_logged_once(tmp_path):
    """A site that replayed it meanwhile has changed what lies on the exchange."""
    network = started(tmp_path)
    network.follow("run-1")
    node = network.coordinator
    closed = network.run_round("run-1", 0)
    node._closed_path("run-1", 0).unlink()  # as if killed between log and memory
    late = next(site for site in FIVE if site not in verdicts(network, 0))
    site = network.node(late)
    site._closing._replay(
        site._manifest("run-1", 0), digest_of(network, 0), site._closing.account_of("run-1")
    )
    again = network.coordinator.close_round("run-1", 0)
    assert (again.log_index, again.log_size, again.log_root) == (
        closed.log_index,
        closed.log_size,
        closed.log_root,
    )


def digest_of(network, number):
    aggregate = read_aggregate(network.coordinator.board, "coordinator", "run-1", number)
    return sha256(aggregate.to_bytes()).hexdigest()


def test_a_site_that_has_replayed_a_round_does_not_do_so_again(tmp_path):
    """The uploads may be gone from the exchange by then."""
    network = started(tmp_path)
    threads, _, _ = network.follow("run-1")
    network.run_rounds("run-1")
    join_all(threads)
    replayed = next(iter(verdicts(network, 0)))
    shutil.rmtree(tmp_path / "exchange/runs/run-1/sums")
    node = network.node(replayed)
    node._closing.accepted(node._manifest("run-1", 0))


class NamesAnother(CoordinatorNode):
    """A coordinator that logs another aggregate than it posted."""

    __slots__ = ()

    def _objects(self, run, number):
        found, key = super()._objects(run, number), f"runs/{run}/rounds/{number}/aggregate"
        return found | {key: ("ab" * 32, found[key][1])}


def test_an_entry_that_names_another_aggregate_is_not_co_signed(tmp_path):
    network = started(tmp_path)
    network.coordinator.__class__ = NamesAnother
    threads, _, errors = network.follow("run-1")
    closed = network.run_round("run-1", 0)
    join_all(threads)
    assert set(errors) == set(FIVE)
    assert all("names another aggregate" in each.problem for each in errors.values())
    assert closed.cosigners == ()


def test_junk_under_keys_of_runs_does_not_stop_a_site(tmp_path):
    network = started(tmp_path)
    exchange = network.coordinator.board.exchange
    for key in ("runs/x/rounds/first/manifest", "runs/x/rounds/007/manifest", "runs/x/manifest"):
        exchange.put(key, b"junk")
    assert network.node("hospital-01").open_manifests() == (("run-1", 0),)


def test_the_sites_keys_are_not_shown():
    context = SiteSumContext(
        board=None,
        journal=None,
        site="a",
        coordinator="hub",
        pair_keys={"b": b"secret-pair"},
        tag_key=b"secret-tag",
        timeouts=TIMEOUTS,
    )
    assert "secret" not in repr(context)


def test_a_first_site_whose_tag_key_is_not_the_posted_one_stops(tmp_path):
    network = started(tmp_path)
    network.node("hospital-01")
    next(
        (tmp_path / "hospital-01/keys").glob("tag-*.json")
    ).unlink()  # a lost file: another key would be drawn
    with pytest.raises(ConfigError, match="not the one in keys"):
        network.node("hospital-01")
