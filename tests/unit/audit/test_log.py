"""The log resumes, refuses and repeats as it says."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedhealth.audit import TransparencyLog
from fedhealth.audit.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from fedhealth.audit.merkle import verify_consistency, verify_inclusion
from fedhealth.errors import ConfigError, ProtocolError

DIGEST = "ab" * 32


def test_a_log_goes_on_where_it_was(history: Any) -> None:
    before = TransparencyLog(history.exchange, history.boards["hub"])
    again = TransparencyLog(history.exchange, history.boards["hub"])
    assert (again.size, again.root) == (before.size, before.root) == (5, history.audit().root)
    assert again.append("spend", {"epsilon": 1.5}, {}) == 5
    assert again.checkpoint() == Checkpoint(6, again.root)
    assert history.audit().ok


def test_the_same_statement_is_recorded_once(history: Any) -> None:
    log = TransparencyLog(history.exchange, history.boards["hub"])
    first = log.append("aggregate", {"round": 7}, {})
    assert log.append("aggregate", {"round": 7}, {}) == first
    resumed = TransparencyLog(history.exchange, history.boards["hub"])
    assert resumed.append("aggregate", {"round": 7}, {}) == first
    assert resumed.append("aggregate", {"round": 8}, {}) == first + 1


def test_a_checkpoint_is_written_once(history: Any) -> None:
    log = TransparencyLog(history.exchange, history.boards["hub"])
    stored = history.exchange.get("log/checkpoints/00000005")
    assert log.checkpoint() == log.checkpoint() == Checkpoint(5, log.root)
    assert history.exchange.get("log/checkpoints/00000005") == stored


def test_a_site_reads_but_does_not_append(history: Any) -> None:
    log = TransparencyLog(history.exchange, history.boards["west"])
    assert log.read(3).statement.predicate == {"run": "r1", "round": 1, "survivors": 3}
    with pytest.raises(ConfigError, match="coordinator"):
        log.append("spend", {}, {})
    assert log.size == 5


def test_a_second_writer_goes_on_after_what_the_first_wrote(history: Any) -> None:
    one = TransparencyLog(history.exchange, history.boards["hub"])
    two = TransparencyLog(history.exchange, history.boards["hub"])
    assert one.append("spend", {"epsilon": 1}, {}) == 5
    assert two.append("spend", {"epsilon": 2}, {}) == 6
    assert two.append("spend", {"epsilon": 1}, {}) == 5
    assert one.checkpoint() == two.checkpoint() == Checkpoint(7, two.root)
    assert history.audit().ok


def test_writers_that_race_lose_no_entry(history: Any) -> None:
    start = threading.Barrier(4)

    def write(writer: int) -> None:
        log = TransparencyLog(history.exchange, history.boards["hub"])
        start.wait()
        for number in range(3):
            log.append("spend", {"writer": writer, "number": number}, {})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = TransparencyLog(history.exchange, history.boards["hub"])
    assert log.size == 5 + 12
    log.checkpoint()
    assert history.audit().ok


def test_a_forged_next_entry_stops_the_writer(history: Any) -> None:
    log = TransparencyLog(history.exchange, history.boards["hub"])
    history.exchange.put("log/entries/00000005", b"{}")
    with pytest.raises(ProtocolError):
        log.append("spend", {"epsilon": 1}, {})
    assert log.size == 5


@pytest.mark.parametrize("key", ["log/entries/00000001", "log/entries/00000004"])
def test_a_log_with_a_lost_entry_does_not_open(history: Any, key: str) -> None:
    history.path(key).unlink()
    with pytest.raises(ProtocolError):
        TransparencyLog(history.exchange, history.boards["hub"])


def test_a_log_with_a_foreign_checkpoint_does_not_open(
    history: Any, make_history: Callable[[Path], Any], tmp_path: Path
) -> None:
    other = make_history(tmp_path / "other")
    history.path("log/checkpoints/00000005").write_bytes(other.path("log/checkpoints/00000005").read_bytes())
    with pytest.raises(ProtocolError, match="does not fit"):
        TransparencyLog(history.exchange, history.boards["hub"])


def test_proofs_from_the_log_verify(history: Any) -> None:
    log = TransparencyLog(history.exchange, history.boards["north"])
    root = bytes.fromhex(log.root)
    for index in range(log.size):
        data = history.exchange.get(f"log/entries/{index:08d}")
        proof = log.tree.inclusion_proof(index)
        assert verify_inclusion(data, index=index, size=log.size, proof=proof, root=root)
    proof = log.tree.consistency_proof(3)
    assert verify_consistency(old_size=3, old_root=log.tree.root(3), size=5, root=root, proof=proof)


@pytest.mark.parametrize(
    ("kind", "predicate", "subjects"),
    [
        ("gossip", {}, {}),
        ("round", {}, {"runs/r1/x": "AB" * 32}),
        ("round", {}, {"runs/r1/x": "ab"}),
        ("round", {}, {"../x": DIGEST}),
        ("round", {}, {"file:x": DIGEST}),
        ("round", {}, {"model:../x": DIGEST}),
        ("round", {}, {"model:": DIGEST}),
        ("round", {"a": float("nan")}, {}),
        ("round", {"a": 2**60}, {}),
        ("round", {"a": "x" * 40_000}, {}),
        ("round", {"a": {"b": {"c": {"d": 1}}}}, {}),
    ],
)
def test_a_statement_that_is_not_small_and_plain_is_refused(
    history: Any, kind: str, predicate: Any, subjects: Any
) -> None:
    log = TransparencyLog(history.exchange, history.boards["hub"])
    with pytest.raises(ValueError, match="not a valid"):
        log.append(kind, predicate, subjects)
    assert log.size == 5


def test_a_checkpoint_is_a_signed_note(history: Any) -> None:
    text, _, signatures = history.exchange.get("log/checkpoints/00000005").decode().partition("\n\n")
    lines = text.split("\n")
    assert lines[0] == f"fedhealth.dev/log/{history.roster.roster.digest}"
    assert lines[1] == "5"
    assert [line.split(" ")[:2] for line in signatures.splitlines()] == [["—", "hub"], ["—", "hub"]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n5\n", b"\n05\n"),
        (b"\n5\n", b"\n4\n"),
        (b"\n\n", b"\nextension\n\n"),
        ("— hub".encode(), "— hob".encode()),
        (b"fedhealth.dev/log/", b"fedhealth.dev/log/x"),
    ],
)
def test_an_edited_note_is_refused(history: Any, old: bytes, new: bytes) -> None:
    data = history.exchange.get("log/checkpoints/00000005")
    assert old in data
    with pytest.raises(ProtocolError):
        open_checkpoint(data.replace(old, new, 1), roster=history.roster.roster)


def test_a_note_with_one_signature_or_by_a_site_is_refused(history: Any) -> None:
    roster = history.roster.roster
    data = history.exchange.get("log/checkpoints/00000005")
    for line in (1, 2):
        lines = data.split(b"\n\n")[1].splitlines(keepends=True)
        with pytest.raises(ProtocolError):
            open_checkpoint(data.replace(lines[line - 1], b""), roster=roster)
    forged = sign_checkpoint(Checkpoint(5, DIGEST), keys=history.boards["west"].keys, roster=roster)
    with pytest.raises(ProtocolError):
        open_checkpoint(forged, roster=roster)
