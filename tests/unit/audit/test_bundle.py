"""A model's history in one file: whole by itself, and any edit of it is found."""

import json
import re
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fedhealth.audit import (
    DIGEST_TAG,
    INDEX_TAG,
    BundleResult,
    Checkpoint,
    TransparencyLog,
    export_bundle,
    verify_bundle,
)
from fedhealth.audit.statements import MAX_ENTRY_BYTES
from fedhealth.errors import ConfigError

MODEL = "readmission/1"


def export(history: Any, path: Path, *, model: str = MODEL, tags: dict[str, str] | None = None) -> Path:
    files = path.parent / f"{path.stem}-files"
    for name, data in history.files.items():
        target = files / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    export_bundle(path, history.exchange, history.roster, model=model, files=files, tags=tags or history.tags)
    return path


def rewritten(source: Path, target: Path, changes: dict[str, bytes | None]) -> Path:
    """A copy of a bundle with other files: None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if changes.get(name, b"") is not None:
                new.writestr(name, changes.get(name) or old.read(name))
        for name in changes.keys() - set(old.namelist()):
            new.writestr(name, changes[name] or b"")
    return target


def is_proven(path: Path, **known: Any) -> bool:
    try:
        return verify_bundle(path, **known).audit.ok
    except ConfigError:
        return False


@pytest.fixture(scope="module")
def bundle(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(original, tmp_path_factory.mktemp("bundle") / "a.zip")


def test_a_bundle_proves_its_models_history_by_itself(original: Any, bundle: Path, tmp_path: Path) -> None:
    found: BundleResult = verify_bundle(bundle)
    assert found.audit.findings == ()
    assert (found.model, found.run, found.roster) == (MODEL, "r1", original.roster.roster.digest)
    assert found.audit.log_size == 5
    assert export(original, tmp_path / "b.zip").read_bytes() == bundle.read_bytes()


def test_what_is_known_from_elsewhere_is_held_against_it(original: Any, bundle: Path) -> None:
    digest, root = original.roster.roster.digest, original.audit().root
    assert is_proven(bundle, expected_roster_digest=digest, expected_checkpoint=Checkpoint(5, root))
    assert not is_proven(bundle, expected_roster_digest="0" * 64)
    assert not is_proven(bundle, expected_checkpoint=Checkpoint(6, root))


def test_any_file_that_is_changed_or_taken_out_is_found(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        contents = {name: archive.read(name) for name in names}
    assert len(names) == 2 + 2 + 5 + 3 + 3 + 6 + 10  # of the log: entries, checkpoints, tiles, co-signatures
    may_be_missing = re.compile(
        "tile|cosignatures|checkpoints/0000000[34]"
    )  # older ones, one witness of three
    for name in names:
        changed = bytearray(contents[name])
        changed[len(changed) // 2] ^= 1
        is_changed = rewritten(bundle, tmp_path / "changed.zip", {name: bytes(changed)})
        assert "cosignatures" in name or not is_proven(is_changed), name
        if not may_be_missing.search(name):
            assert not is_proven(rewritten(bundle, tmp_path / "cut.zip", {name: None})), name
    assert not is_proven(rewritten(bundle, tmp_path / "more.zip", {"model/code.py": b"import os"}))


def test_a_bundle_cannot_choose_which_run_is_looked_at(history: Any, tmp_path: Path) -> None:
    """Another model with another run: its history is not asked for, and does not stand in for the asked one."""
    hub = history.boards["hub"]
    log = TransparencyLog(history.exchange, hub)
    weights = sha256(b"other").hexdigest()
    manifest = "runs/r2/rounds/1/manifest"
    payload = json.dumps({"model_digest": weights}).encode()
    objects = {manifest: hub.post(manifest, kind="manifest", payload=payload, run="r2", round=1)}
    log.append("round", {"run": "r2", "round": 1}, objects)
    files = {"artifacts/weights.safetensors": weights}
    index = log.append_release("other/1", files=files, tags={}, objects=objects, settings={})
    log.checkpoint()
    one = export(history, tmp_path / "one.zip")
    with zipfile.ZipFile(one) as archive:
        assert not [name for name in archive.namelist() if "/r2/" in name]
    assert verify_bundle(one).audit.ok
    told = {"tags": history.tags}
    for name in ("other/1", "nobody/1"):
        forged = json.dumps(told | {"model": name}).encode()
        assert not is_proven(rewritten(one, tmp_path / "forged.zip", {"model.json": forged}))
    renamed = json.dumps(told | {"model": MODEL}).encode()
    without = {
        f"exchange/runs/r1/sums/0/update/0/0/masked/{site}": None for site in ("north", "south", "west")
    }
    assert not is_proven(rewritten(one, tmp_path / "renamed.zip", {"model.json": renamed, **without}))
    tags = {INDEX_TAG: str(index), DIGEST_TAG: log.read(index).digest}
    with pytest.raises(ConfigError, match="no log entry releases"):
        export(history, tmp_path / "wrong.zip", tags=tags)


@pytest.mark.parametrize("name", ["exchange/../../outside", "exchange//x", "exchange/LOG/x"])
def test_names_that_lead_elsewhere_are_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no bundle"):
        verify_bundle(rewritten(bundle, tmp_path / "led.zip", {name: b"x"}))
    assert not (tmp_path.parent / "outside").exists()


def test_a_file_that_unpacks_to_too_much_is_not_read(bundle: Path, tmp_path: Path) -> None:
    bomb = {"exchange/log/entries/00000004": bytes(MAX_ENTRY_BYTES + 1)}
    path = rewritten(bundle, tmp_path / "bomb.zip", bomb)
    assert path.stat().st_size < MAX_ENTRY_BYTES // 100
    found = verify_bundle(path)
    assert ("entry", "log/entries/00000004") in {(each.kind, each.key) for each in found.audit.findings}


def test_what_is_no_bundle_and_what_is_there_already_are_refused(
    original: Any, bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name, problem in (
        ("text.zip", "no bundle"),
        ("empty.zip", "no bundle"),
        ("nowhere.zip", "cannot be"),
    ):
        with pytest.raises(ConfigError, match=problem):
            verify_bundle(tmp_path / name)
    with pytest.raises(ConfigError, match="is there already"):
        export(original, bundle)
    with pytest.raises(ConfigError, match="no log entry releases"):
        export(original, tmp_path / "other.zip", model="other/1")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_bundle_that_was_cut_off_says_so(bundle: Path, tmp_path: Path, share: float) -> None:
    data = bundle.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ConfigError, match=r"cut.zip is cut off or damaged. Fix: copy the bundle again"):
        verify_bundle(tmp_path / "cut.zip")


@pytest.mark.parametrize(
    "name", ["model.json", "roster.json", "model/MLmodel", "exchange/log/entries/00000003"]
)
def test_a_damaged_file_of_a_bundle_is_named(bundle: Path, tmp_path: Path, name: str) -> None:
    """Bytes flipped where the archive keeps the file: broken deflate streams, wrong sums, wrong heads."""
    with zipfile.ZipFile(bundle) as archive:
        found = archive.getinfo(name)
    start = found.header_offset + 30 + len(name)
    for place in (found.header_offset, start, start + found.compress_size // 2):
        data = bytearray(bundle.read_bytes())
        data[place : place + 2] = bytes(each ^ 0xFF for each in data[place : place + 2])
        (tmp_path / "damaged.zip").write_bytes(data)
        with pytest.raises(ConfigError, match=f"damaged.zip: {name} is damaged"):
            verify_bundle(tmp_path / "damaged.zip")


def test_no_flipped_byte_of_a_bundle_gives_another_error(bundle: Path, tmp_path: Path) -> None:
    original = bundle.read_bytes()
    for place in range(len(original) - 1, 0, -len(original) // 150):
        data = bytearray(original)
        data[place] ^= 0xFF
        (tmp_path / "flipped.zip").write_bytes(data)
        is_proven(tmp_path / "flipped.zip")  # lets nothing through but a ConfigError
