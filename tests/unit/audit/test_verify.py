"""Any edit of a log entry, a checkpoint, an exchange object, a model file or a tag is found."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedhealth.audit import DIGEST_TAG, INDEX_TAG, Checkpoint, TransparencyLog, verify_exchange
from fedhealth.audit.checkpoints import cosign, sign_checkpoint
from fedhealth.identity import PartyKeys, Roster

MODEL = "readmission/1"
ENTRIES = [f"log/entries/{index:08d}" for index in range(5)]
CHECKPOINTS = [f"log/checkpoints/{size:08d}" for size in (3, 4, 5)]
TILES = [f"log/tile/0/000.p/{size}" for size in (3, 4, 5)]
COSIGNATURES = [
    f"log/cosignatures/{size:08d}/{name}" for size in (3, 4) for name in ("north", "south", "west")
]
OBJECTS = ["runs/r1/rounds/1/manifest", "studies/readmission/abc/study"]
OBJECTS += [f"runs/r1/rounds/{round_}/aggregate" for round_ in (0, 1)]
OBJECTS += [
    f"runs/r1/sums/{round_}/update/0/0/masked/{name}"
    for round_ in (0, 1)
    for name in ("north", "south", "west")
]


def kinds(result: Any) -> set[str]:
    return {finding.kind for finding in result.findings}


def test_an_untouched_history_is_proven(history: Any) -> None:
    result = history.audit()
    assert result.findings == ()
    assert result.ok
    assert result.log_size == 5
    everything = {*ENTRIES, *CHECKPOINTS, *TILES, *COSIGNATURES, *OBJECTS}
    assert result.objects_checked == len(everything)
    assert set(history.exchange.list()) == everything
    assert (result.cosigned.size, result.cosigners) == (4, ("north", "south", "west"))


def test_a_model_whose_rounds_too_few_sites_have_co_signed_is_not_proven(history: Any) -> None:
    history.path(COSIGNATURES[-1]).unlink()
    result = history.audit()
    assert result.ok  # two of three are two thirds
    assert [(each.kind, each.problem) for each in result.findings] == [("witness", "not co-signed by west")]
    history.path(COSIGNATURES[-2]).unlink()
    result = history.audit()
    assert not result.ok
    assert "two thirds" in result.findings[-1].problem
    assert result.cosigned.size == 3


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_a_co_signature_that_is_spoilt_is_told_and_does_not_count(history: Any, place: float) -> None:
    """One site, or whoever writes there, cannot unmake a history that enough others have co-signed."""
    for spoilt in (COSIGNATURES[-1:], COSIGNATURES[-2:]):
        path = history.path(spoilt[0])
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 1
        path.write_bytes(data)
        result = history.audit()
        assert {each.key for each in result.findings if "no co-signature" in each.problem} == set(spoilt)
        assert result.ok is (len(spoilt) == 1)


def test_a_fork_that_a_site_has_co_signed_is_found(history: Any) -> None:
    boards, roster = history.boards, history.roster.roster
    note = sign_checkpoint(Checkpoint(4, "ab" * 32), keys=boards["hub"].keys, roster=roster)
    history.path(COSIGNATURES[-1]).write_bytes(cosign(note, keys=boards["west"].keys))
    assert ("cosignature", COSIGNATURES[-1]) in {(each.kind, each.key) for each in history.audit().findings}
    assert not history.audit().ok


def test_missing_tiles_are_told(history: Any) -> None:
    history.path(TILES[-1]).unlink()
    result = history.audit()
    assert result.ok
    assert [(each.kind, each.key) for each in result.findings] == [("witness", TILES[-1])]


@pytest.mark.parametrize("logged", [(), (0,)])
def test_a_release_of_a_run_whose_rounds_are_not_all_logged_is_not_proven(
    make_history: Callable[..., Any], tmp_path: Path, logged: tuple[int, ...]
) -> None:
    result = make_history(tmp_path / "exchange", rounds=logged).audit()
    assert not result.ok
    assert ("release", "the log does not hold all rounds of its run up to round 1") in {
        (each.kind, each.problem) for each in result.findings
    }


@pytest.mark.parametrize("key", [*ENTRIES, *CHECKPOINTS, *TILES, *OBJECTS])
@pytest.mark.parametrize("place", [0.0, 0.02, 0.3, 0.5, 0.8, 1.0])
def test_a_flipped_bit_anywhere_is_found(history: Any, key: str, place: float) -> None:
    path = history.path(key)
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    result = history.audit()
    assert not result.ok
    assert any(finding.key == key and not finding.is_note for finding in result.findings)


@pytest.mark.parametrize("key", [*ENTRIES, *OBJECTS, CHECKPOINTS[-1]])
def test_a_deleted_object_is_found(history: Any, key: str) -> None:
    history.path(key).unlink()
    assert not history.audit().ok


@pytest.mark.parametrize("key", [*ENTRIES, *CHECKPOINTS, *OBJECTS])
@pytest.mark.parametrize("change", [b"", b"x", b"append", b"cut"])
def test_a_replaced_object_is_found(history: Any, key: str, change: bytes) -> None:
    path = history.path(key)
    data = path.read_bytes()
    path.write_bytes({b"append": data + b"\n", b"cut": data[:-1]}.get(change, change))
    assert not history.audit().ok


def test_a_validly_signed_replacement_by_its_own_sender_is_found(history: Any) -> None:
    key = OBJECTS[-1]
    history.path(key).unlink()
    history.boards["west"].post(key, kind="masked", payload=b"other", run="r1", round=1, purpose="update")
    result = history.audit()
    assert [(finding.kind, finding.key) for finding in result.findings] == [("subject", key)]


@pytest.mark.parametrize(
    "keys", [(ENTRIES[2], ENTRIES[3]), (OBJECTS[1], OBJECTS[2]), (CHECKPOINTS[0], CHECKPOINTS[1])]
)
def test_two_swapped_objects_are_found(history: Any, keys: tuple[str, str]) -> None:
    one, two = (history.path(key) for key in keys)
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    assert not history.audit().ok


def test_an_object_copied_to_another_key_is_found(history: Any) -> None:
    copy = "runs/r1/sums/2/update/0/0/masked/west"
    history.path(copy).parent.mkdir(parents=True)
    shutil.copy(history.path(OBJECTS[-1]), history.path(copy))
    result = history.audit()
    assert ("object", copy) in {(finding.kind, finding.key) for finding in result.findings}
    assert not result.ok


def test_an_inserted_log_object_is_found(history: Any) -> None:
    history.path("log/extra").write_bytes(b"x")
    assert kinds(history.audit()) == {"entry"}


def test_an_entry_signed_by_a_site_is_found(history: Any) -> None:
    from fedhealth.audit.statements import make_statement, sign_statement

    data = sign_statement(make_statement("spend", {"epsilon": 1}, {}), keys=history.boards["west"].keys)
    history.exchange.put("log/entries/00000005", data)
    assert "entry" in kinds(history.audit())


def test_an_entry_with_one_signature_twice_is_found(history: Any) -> None:
    path = history.path(ENTRIES[-1])
    envelope = json.loads(path.read_bytes())
    envelope["signatures"][1] = envelope["signatures"][0]
    path.write_bytes(json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode())
    assert not history.audit().ok


def test_an_edited_predicate_is_found(history: Any) -> None:
    path = history.path(ENTRIES[-1])
    envelope = json.loads(path.read_bytes())
    body = base64.b64decode(envelope["payload"]).replace(b'"epsilon":8', b'"epsilon":1')
    envelope["payload"] = base64.b64encode(body).decode()
    path.write_bytes(json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode())
    findings = history.audit().findings
    assert "signature" in next(finding.problem for finding in findings if finding.kind == "entry")


@pytest.mark.parametrize("path", ["MLmodel", "artifacts/weights.safetensors"])
@pytest.mark.parametrize("edit", ["flip", "delete"])
def test_an_edited_model_file_is_found(history: Any, path: str, edit: str) -> None:
    data = bytearray(history.files.pop(path))
    if edit == "flip":
        data[0] ^= 1
        history.files[path] = bytes(data)
    result = history.audit()
    assert [(finding.kind, finding.key) for finding in result.findings] == [
        ("release", f"readmission/1/{path}")
    ]
    assert not result.ok


def test_an_added_model_file_is_found(history: Any) -> None:
    history.files["payload.pkl"] = b"x"
    assert not history.audit().ok


@pytest.mark.parametrize("tag", ["fedhealth.weights_digest", INDEX_TAG, DIGEST_TAG])
@pytest.mark.parametrize("value", ["0", None])
def test_an_edited_tag_is_found(history: Any, tag: str, value: str | None) -> None:
    del history.tags[tag]
    if value is not None:
        history.tags[tag] = value
    assert kinds(history.audit()) == {"release"}


def test_a_tag_that_the_release_does_not_name_is_free(history: Any) -> None:
    history.tags["owner"] = "cardiology"
    assert history.audit().ok


def test_weights_that_are_not_the_model_of_the_run_are_found(history: Any) -> None:
    from fedhealth.audit.log import TransparencyLog

    hub = history.boards["hub"]
    log = TransparencyLog(history.exchange, hub)
    manifest = "runs/r2/rounds/2/manifest"
    payload = b'{"model_digest": "' + b"0" * 64 + b'"}'
    posted = hub.post(manifest, kind="manifest", payload=payload, run="r2", round=2)
    for objects in ({manifest: posted}, {}):
        weights = {"artifacts/weights.safetensors": "1" * 64}
        log.append_release("other/1", files=weights, tags={}, objects=objects, settings={})
        log.checkpoint()
    problems = [each.problem for each in verify_exchange(history.exchange, history.roster).findings]
    assert problems == [
        f"its weights are not the model of {manifest}",
        "the log does not hold all rounds of its run up to round 2",
        "names no manifest of a round, so that nothing ties it to a run",
    ]


def test_a_model_that_nobody_released_and_one_that_vanished_are_found(history: Any) -> None:
    result = verify_exchange(history.exchange, history.roster, model_files={"other/1": {}})
    assert [finding.key for finding in result.findings] == ["readmission/1", "other/1"]
    assert not result.ok


def test_a_late_upload_is_a_note_and_an_unsigned_one_a_failure(history: Any) -> None:
    late = "runs/r1/sums/1/update/0/1/masked/west"
    history.boards["west"].post(late, kind="masked", payload=b"late", run="r1", round=1)
    result = history.audit()
    assert result.ok
    assert [(finding.kind, finding.key) for finding in result.findings] == [("uncovered", late)]
    history.exchange.put("runs/r1/sums/1/update/0/2/masked/west", b"junk")
    assert not history.audit().ok


@pytest.mark.parametrize(
    "key", ["runs/r1/sums/1/update/0/1/masked/west", "runs/r1/rounds/1/sites/west/ready"]
)
def test_an_object_by_the_coordinator_in_the_place_of_a_site_is_found(history: Any, key: str) -> None:
    history.boards["hub"].post(key, kind="masked", payload=b"x")
    assert "object" in kinds(history.audit())


def test_an_object_outside_the_known_folders_is_noted(history: Any) -> None:
    history.exchange.put("notes/readme", b"hello")
    result = history.audit()
    assert result.ok
    assert kinds(result) == {"unknown"}


def test_a_log_cut_with_its_checkpoint_is_found_by_a_known_checkpoint(history: Any) -> None:
    known = Checkpoint(5, history.audit().root)
    check: Callable[[], Any] = lambda: verify_exchange(  # noqa: E731
        history.exchange, history.roster, expected_checkpoint=known
    )
    assert check().ok
    history.path(ENTRIES[-1]).unlink()
    history.path(CHECKPOINTS[-1]).unlink()
    history.path(TILES[-1]).unlink()
    assert verify_exchange(history.exchange, history.roster).ok  # the stated limit of an audit without it
    assert kinds(check()) == {"checkpoint"}


def test_a_known_checkpoint_of_a_longer_or_other_log_is_refused(history: Any) -> None:
    for known in (Checkpoint(6, "0" * 64), Checkpoint(5, "0" * 64)):
        assert not verify_exchange(history.exchange, history.roster, expected_checkpoint=known).ok


def test_an_older_known_checkpoint_is_extended(history: Any) -> None:
    log = TransparencyLog(history.exchange, history.boards["west"])
    known = Checkpoint(3, log.tree.root(3).hex())
    assert verify_exchange(history.exchange, history.roster, expected_checkpoint=known).ok


def test_an_empty_exchange_proves_nothing(history: Any, tmp_path: Path) -> None:
    from fedhealth.exchange import FolderExchange

    result = verify_exchange(FolderExchange(tmp_path / "empty"), history.roster)
    assert not result.ok
    assert kinds(result) == {"checkpoint"}


def test_a_run_that_closed_no_round_is_told_and_proves_nothing(
    make_empty: Callable[..., Any], tmp_path: Path
) -> None:
    """Nothing was released and nothing edited: what is there checks out."""
    empty = make_empty(tmp_path / "exchange")
    log = TransparencyLog(empty.exchange, empty.boards["hub"])
    log.append("roster", {}, {"roster:current": empty.roster.roster.digest})
    key = "studies/readmission/abc/study"
    log.append("study", {}, {key: empty.boards["hub"].post(key, kind="study", payload=b"{}")})
    result = verify_exchange(empty.exchange, empty.roster, model_files={}, model_tags={})
    assert result.ok
    assert kinds(result) == {"unfinished", "witness"}
    assert result.released == ()
    assert not verify_exchange(empty.exchange, empty.roster, model_files={MODEL: {}}).ok  # nobody released it
    log.append("round", {"run": "r1", "round": 0}, {})
    assert "checkpoint" in kinds(verify_exchange(empty.exchange, empty.roster))


def test_a_run_that_closed_no_round_leaves_an_earlier_model_proven(history: Any) -> None:
    hub = history.boards["hub"]
    log, key = TransparencyLog(history.exchange, hub), "studies/second/abc/study"
    log.append("study", {}, {key: hub.post(key, kind="study", payload=b"{}")})
    result = history.audit()
    assert result.ok
    assert result.released == (MODEL,)
    assert "unfinished" in kinds(result)
    history.path(CHECKPOINTS[-1]).unlink()  # that over the release
    assert not history.audit().ok


def test_another_roster_is_refused(history: Any, parties: dict[str, PartyKeys], tmp_path: Path) -> None:
    extra = PartyKeys.load_or_create(tmp_path / "sybil", name="sybil", role="site")
    other = Roster.of([*(keys.public for keys in parties.values()), extra.public])
    result = verify_exchange(
        history.exchange,
        parties["hub"].sign_roster(other),
        expected_roster_digest=history.roster.roster.digest,
    )
    assert kinds(result) == {"roster"}
    assert not verify_exchange(history.exchange, parties["hub"].sign_roster(other)).ok


@pytest.mark.parametrize("name", ["x/manifest", "runs/r1/rounds/x/manifest"])
def test_a_release_that_names_no_manifest_of_a_round_is_a_finding(history: Any, name: str) -> None:
    log = TransparencyLog(history.exchange, history.boards["hub"])
    log.append("release", {"model": "m/9", "tags": {}, "settings": {}}, {name: "ab" * 32})
    log.checkpoint()
    result = history.audit()
    assert not result.ok
    assert any("none of a round" in found.problem for found in result.findings)
