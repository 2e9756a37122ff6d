"""A witness co-signs what extends the history that it has seen, and keeps the evidence of one that does not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fedhealth.audit import Checkpoint, TransparencyLog, Witness
from fedhealth.audit.checkpoints import cosign, open_checkpoint, sign_checkpoint
from fedhealth.audit.log import cosignature_key, cosigners
from fedhealth.audit.merkle import leaf_hash
from fedhealth.errors import ConfigError, MissingObjectError, ProtocolError
from fedhealth.exchange import Board, FolderExchange


def witness_of(history: Any, name: str, folder: Path, exchange: FolderExchange | None = None) -> Witness:
    board = history.boards[name]
    return Witness(exchange or history.exchange, board.keys, board.roster, folder=folder / name)


def log_of(history: Any, exchange: FolderExchange | None = None) -> TransparencyLog:
    board = history.boards["hub"]
    exchange = exchange or history.exchange
    return TransparencyLog(exchange, Board(exchange, board.roster, board.keys, clock=board.clock))


def forked(history: Any, tmp_path: Path) -> FolderExchange:
    """A copy of the exchange in which the coordinator goes on with another entry."""
    shutil.copytree(history.exchange.root, tmp_path / "fork")
    exchange = FolderExchange(tmp_path / "fork", durable=False)
    log = log_of(history, exchange)
    log.append("spend", {"epsilon": 2}, {})
    log.checkpoint()
    return exchange


def test_a_new_witness_takes_the_whole_history_and_co_signs_it(history: Any, tmp_path: Path) -> None:
    witness, seen = witness_of(history, "west", tmp_path), []
    checkpoint = witness.observe(seen.append)
    assert checkpoint == witness.last == Checkpoint(5, history.audit().root)
    assert [entry.index for entry in seen] == [0, 1, 2, 3, 4]
    assert witness.has_seen("r1", 1)
    assert not witness.has_seen("r1", 2)
    assert cosigners(history.exchange, checkpoint, roster=history.roster.roster) == ("west",)
    assert history.audit().ok


def test_a_witness_that_comes_back_sees_only_what_is_new(history: Any, tmp_path: Path) -> None:
    witness_of(history, "west", tmp_path).observe()
    log = log_of(history)
    log.append("round", {"run": "r1", "round": 2}, {"runs/r1/rounds/2/aggregate": "ab" * 32})
    log.checkpoint()
    again, seen = witness_of(history, "west", tmp_path), []
    assert again.observe(seen.append) == Checkpoint(6, log.root)
    assert [entry.index for entry in seen] == [5]
    assert again.has_seen("r1", 2)
    assert again.observe() is None


def test_a_history_that_does_not_extend_the_last_is_not_co_signed_and_kept_as_evidence(
    history: Any, tmp_path: Path
) -> None:
    log = log_of(history)
    log.append("spend", {"epsilon": 1}, {})
    log.checkpoint()
    witness_of(history, "west", tmp_path).observe()
    other = forked(history, tmp_path)
    for entry in (6, 5):  # the fork is the coordinator's other history from entry 5 on
        (other.root / f"log/entries/{entry:08d}").unlink()
    for key in (*other.list("log/checkpoints/")[-2:], *other.list("log/tile/")):
        (other.root / key).unlink()
    branch = log_of(history, other)
    for epsilon in (3, 4):
        branch.append("spend", {"epsilon": epsilon}, {})
    branch.checkpoint()
    with pytest.raises(ProtocolError, match="two histories"):
        witness_of(history, "west", tmp_path, other).observe()
    assert not other.exists(cosignature_key(7, "west"))
    first, second = (
        open_checkpoint((tmp_path / "west/evidence" / name).read_bytes(), roster=history.roster.roster)
        for name in ("first.note", "second.note")
    )
    assert (first.size, second.size) == (6, 7)
    assert second.root == branch.root


def test_a_history_that_another_site_has_co_signed_at_the_same_size_is_noticed(
    history: Any, tmp_path: Path
) -> None:
    """Each of the two sees one history that is sound in itself."""
    witness = witness_of(history, "west", tmp_path)
    witness.observe()
    boards = history.boards
    shown = sign_checkpoint(Checkpoint(5, "ab" * 32), keys=boards["hub"].keys, roster=history.roster.roster)
    note = cosign(shown, keys=boards["north"].keys)
    history.exchange.put(cosignature_key(5, "north"), note)
    log = log_of(history)
    log.append("spend", {"epsilon": 1}, {})
    log.checkpoint()
    with pytest.raises(ProtocolError, match="two histories"):
        witness.observe()
    assert (tmp_path / "west/evidence/second.note").read_bytes() == note
    assert not history.exchange.exists(cosignature_key(6, "west"))


def test_a_co_signature_without_the_coordinators_signatures_accuses_nobody(
    history: Any, tmp_path: Path
) -> None:
    """Else one site could stop all others for ever, by a note that it makes up."""
    witness = witness_of(history, "west", tmp_path)
    witness.observe()
    keys, roster = history.boards["north"].keys, history.roster.roster
    alone = sign_checkpoint(Checkpoint(5, "ab" * 32), keys=keys, roster=roster)
    for site, note in (("north", alone), ("south", b"junk")):
        history.exchange.put(cosignature_key(5, site), note)
    log = log_of(history)
    log.append("spend", {"epsilon": 1}, {})
    log.checkpoint()
    assert witness.observe() == Checkpoint(6, log.root)
    assert not (tmp_path / "west/evidence").exists()


@pytest.mark.parametrize("has_seen_before", [True, False])
def test_a_tile_that_is_spoilt_or_missing_accuses_nobody_and_stops_nobody(
    history: Any, tmp_path: Path, has_seen_before: bool
) -> None:
    witness = witness_of(history, "west", tmp_path)
    if has_seen_before:
        witness.observe()
    log = log_of(history)
    log.append("spend", {"epsilon": 1}, {})
    log.checkpoint()
    tile = history.path("log/tile/0/000.p/6")
    data = tile.read_bytes()
    tile.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert witness.observe() == Checkpoint(6, log.root)
    tile.unlink()
    assert witness_of(history, "north", tmp_path).observe() == Checkpoint(6, log.root)
    assert not (tmp_path / "west/evidence").exists()


def test_an_entry_that_names_no_aggregate_closes_no_round_and_one_that_skips_is_refused(
    history: Any, tmp_path: Path
) -> None:
    witness = witness_of(history, "west", tmp_path)
    log = log_of(history)
    log.append("round", {"run": "r9", "round": 0}, {})
    log.checkpoint()
    witness.observe()
    assert not witness.has_seen("r9", 0)
    log.append("round", {"run": "r9", "round": 99}, {"runs/r9/rounds/99/aggregate": "ab" * 32})
    log.checkpoint()
    with pytest.raises(ProtocolError, match="skips rounds before round 99 of r9"):
        witness.observe()
    assert not witness.has_seen("r9", 0)


def test_a_witness_that_was_killed_before_it_co_signed_does_so_when_it_is_back(
    history: Any, tmp_path: Path
) -> None:
    checkpoint = witness_of(history, "west", tmp_path).observe()
    history.path(cosignature_key(5, "west")).unlink()  # as if it had never left
    assert witness_of(history, "west", tmp_path).observe() is None
    assert cosigners(history.exchange, checkpoint, roster=history.roster.roster) == ("west",)


def test_junk_among_the_checkpoints_is_passed_over(history: Any, tmp_path: Path) -> None:
    history.exchange.put("log/checkpoints/99999999", b"junk")
    history.exchange.put("log/checkpoints/00000009", history.exchange.get("log/checkpoints/00000005"))
    assert witness_of(history, "west", tmp_path).observe() == Checkpoint(5, history.audit().root)


def test_an_entry_that_the_site_knows_to_be_wrong_is_not_co_signed(history: Any, tmp_path: Path) -> None:
    witness = witness_of(history, "west", tmp_path)

    def refuse(entry: Any) -> None:
        raise ProtocolError("what this site gave is not in the log", "report it")

    with pytest.raises(ProtocolError, match="not in the log"):
        witness.observe(refuse)
    assert witness.last.size == 0
    assert not history.exchange.exists(cosignature_key(5, "west"))


def test_an_entry_that_is_missing_is_not_co_signed(history: Any, tmp_path: Path) -> None:
    history.path("log/entries/00000004").unlink()
    with pytest.raises(MissingObjectError):
        witness_of(history, "west", tmp_path).observe()


def test_another_entry_in_the_place_of_one_is_noticed(history: Any, tmp_path: Path) -> None:
    history.path("log/entries/00000004").write_bytes(history.exchange.get("log/entries/00000003"))
    with pytest.raises(ProtocolError, match="do not fit its checkpoint"):
        witness_of(history, "west", tmp_path).observe()


def test_behind_a_whole_tile_too_an_entry_is_the_one_under_the_root(history: Any, tmp_path: Path) -> None:
    """The hash of a whole tile stands one level up, so its own hashes could be others."""
    log = log_of(history)
    for number in range(256):
        log.append("spend", {"epsilon": number}, {})
    log.checkpoint()
    tile = history.path("log/tile/0/000")
    right, entry = tile.read_bytes(), history.path("log/entries/00000004").read_bytes()

    for spoilt in (bytes(32) + right[32:], None):  # a changed or lost tile of the store stops nobody
        tile.write_bytes(spoilt) if spoilt else tile.unlink()
        witness, seen = witness_of(history, "west", tmp_path / ("changed" if spoilt else "lost")), []
        assert witness.observe(seen.append) == Checkpoint(261, log.root)
        assert [each.index for each in seen] == list(range(261))

    other = history.path("log/entries/00000003").read_bytes()  # as well signed, and not what the root is over
    assert other != entry
    history.path("log/entries/00000004").write_bytes(other)
    tile.write_bytes(right[: 32 * 4] + leaf_hash(other) + right[32 * 5 :])
    with pytest.raises(ProtocolError, match="do not fit its checkpoint"):
        witness_of(history, "west", tmp_path / "deceived").observe()


def test_a_damaged_memory_stops_the_witness(history: Any, tmp_path: Path) -> None:
    witness_of(history, "west", tmp_path).observe()
    next((tmp_path / "west").glob("*.json")).write_text("{}x")
    with pytest.raises(ConfigError, match="damaged"):
        witness_of(history, "west", tmp_path)
