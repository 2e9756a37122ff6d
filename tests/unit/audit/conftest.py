"""A small, real history: a study, two rounds of posts by three sites, a released model."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from fedhealth.audit import (
    DIGEST_TAG,
    INDEX_TAG,
    ROSTER_SUBJECT,
    AuditResult,
    TransparencyLog,
    Witness,
    verify_exchange,
)
from fedhealth.exchange import Board, FolderExchange
from fedhealth.identity import PartyKeys, Roster, SignedRoster

SITES = ("north", "south", "west")
MODEL = "readmission/1"


@dataclass(frozen=True, slots=True)
class History:
    """Where the history lies and what the registry would answer."""

    exchange: FolderExchange
    boards: dict[str, Board]
    roster: SignedRoster
    files: dict[str, bytes]
    tags: dict[str, str]

    def path(self, key: str) -> Path:
        return self.exchange.root / key

    def audit(self) -> AuditResult:
        digests = {path: sha256(data).hexdigest() for path, data in self.files.items()}
        return verify_exchange(
            self.exchange,
            self.roster,
            expected_roster_digest=self.roster.roster.digest,
            model_files={MODEL: digests},
            model_tags={MODEL: self.tags},
        )


@pytest.fixture(scope="session")
def parties(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PartyKeys]:
    folder = tmp_path_factory.mktemp("keys")
    keys = {name: PartyKeys.load_or_create(folder / name, name=name, role="site") for name in SITES}
    keys["hub"] = PartyKeys.load_or_create(folder / "hub", name="hub", role="coordinator")
    return keys


@pytest.fixture(scope="session")
def make_history(parties: dict[str, PartyKeys]) -> Callable[..., History]:
    """Write a new history in a folder."""

    def make(folder: Path, rounds: tuple[int, ...] = (0, 1)) -> History:
        history = _open(folder, parties, {})
        _write(history, rounds)
        return history

    return make


@pytest.fixture
def make_empty(parties: dict[str, PartyKeys]) -> Callable[[Path], History]:
    """An exchange on which nothing is logged yet."""
    return lambda folder: _open(folder, parties, {})


@pytest.fixture(scope="session")
def original(make_history: Callable[..., History], tmp_path_factory: pytest.TempPathFactory) -> History:
    return make_history(tmp_path_factory.mktemp("original") / "exchange")


@pytest.fixture
def history(original: History, parties: dict[str, PartyKeys], tmp_path: Path) -> History:
    """A copy that a test may damage."""
    shutil.copytree(original.exchange.root, tmp_path / "exchange")
    return _open(tmp_path / "exchange", parties, original.tags)


def _open(folder: Path, parties: dict[str, PartyKeys], tags: dict[str, str]) -> History:
    roster = Roster.of(keys.public for keys in parties.values())
    exchange = FolderExchange(folder, durable=False)
    boards = {
        name: Board(exchange, roster, keys, clock=lambda: 1_700_000_000.0) for name, keys in parties.items()
    }
    return History(exchange, boards, parties["hub"].sign_roster(roster), _files(), dict(tags))


def _files() -> dict[str, bytes]:
    return {"MLmodel": b"flavors: {}", "artifacts/weights.safetensors": bytes(range(200))}


def _write(history: History, rounds: tuple[int, ...]) -> None:
    hub, memory = history.boards["hub"], Path(tempfile.mkdtemp(dir=history.exchange.root.parent))
    witnesses = [
        Witness(history.exchange, history.boards[name].keys, hub.roster, folder=memory / name)
        for name in SITES
    ]
    log = TransparencyLog(history.exchange, hub)
    log.append("roster", {}, {ROSTER_SUBJECT: hub.roster.digest})
    study_key = "studies/readmission/abc/study"
    log.append("study", {}, {study_key: hub.post(study_key, kind="study", payload=b"{}")})
    weights = sha256(history.files["artifacts/weights.safetensors"]).hexdigest()
    tags = {"fedhealth.weights_digest": weights}
    manifest = "runs/r1/rounds/1/manifest"
    payload = json.dumps({"model_digest": weights}).encode()
    made_from = {manifest: hub.post(manifest, kind="manifest", payload=payload, run="r1", round=1)}
    for round_ in rounds:
        subjects = dict(made_from) if round_ else {}
        aggregate = f"runs/r1/rounds/{round_}/aggregate"
        subjects[aggregate] = hub.post(aggregate, kind="aggregate", payload=b"sum", run="r1", round=round_)
        for name in SITES:
            key = f"runs/r1/sums/{round_}/update/0/0/masked/{name}"
            payload = f"{name}{round_}".encode() * 40
            subjects[key] = history.boards[name].post(
                key, kind="masked", payload=payload, run="r1", round=round_, purpose="update"
            )
        log.append("round", {"run": "r1", "round": round_, "survivors": len(SITES)}, subjects)
        log.checkpoint()
        for witness in witnesses:
            witness.observe()
    index = log.append_release(
        MODEL,
        files={path: sha256(data).hexdigest() for path, data in history.files.items()},
        tags=tags,
        objects=made_from,
        settings={"epsilon": 8.0},
    )
    log.checkpoint()
    history.tags.update(tags | {INDEX_TAG: str(index), DIGEST_TAG: log.read(index).digest})
