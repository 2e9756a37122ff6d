"""Each party an operating-system process of its own, which sees its own folder and an exchange, and nothing else.

    python -m simulator.party      imports once, and forks a process for every task on its standard input

A task is a line of JSON; what came of it stands in a file beside the party's folder when it is over. What a party does
is one of `simulator.acts`; who lies is told by a word, and how is written there.
"""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import numpy as np

from fedhealth.config import Timeouts
from fedhealth.exchange import Board, FolderExchange
from fedhealth.identity import PartyKeys, Roster
from fedhealth.rounds.pinned_roster import read_roster

COORDINATOR = "coordinator"
PATIENCE = Timeouts(
    phase_timeout_s=20, ready_timeout_s=20, verify_timeout_s=20, coordinator_timeout_s=40, poll_s=0.01
)
_TESTS = Path(__file__).parents[1]
_LATE_IMPORTS = ("pandas", "torch._dynamo", "torch.profiler")
"""What the library's own dependencies import when they are first used."""


def vector_of(site, plan, variant=""):
    """What a site has to say in a sum: small integers, of its name alone."""
    seed = sha256(f"{site}/{plan.purpose}/{plan.round}/{variant}".encode()).digest()
    return np.random.default_rng(list(seed)).integers(-1000, 1000, plan.length)


def keys_in(folder, name):
    """A party's keys, made when there are none."""
    role = "coordinator" if name == COORDINATOR else "site"
    return PartyKeys.load_or_create(folder / "keys", name=name, role=role)


@dataclass(frozen=True)
class Party:
    """What a process is told of itself."""

    name: str
    folder: Path
    exchange: Path
    pinned: str
    timeouts: Timeouts

    def roster(self):
        return read_roster(self.folder, expected_digest=self.pinned, now=time.time())

    def board(self, exchange=None):
        store = FolderExchange(exchange or self.exchange, durable=False)
        return Board(store, self.roster(), keys_in(self.folder, self.name), clock=time.time)


# --- the side of the tests


@dataclass
class Stage:
    """Enrols the parties, starts them and hears what became of each."""

    folder: Path
    sites: tuple[str, ...]
    server: subprocess.Popen
    timeouts: Timeouts = PATIENCE
    _started: list = field(default_factory=list)

    def __post_init__(self):
        self.keys = {name: keys_in(self.folder / name, name) for name in (COORDINATOR, *self.sites)}
        self.roster = Roster.of(each.public for each in self.keys.values())
        signed = self.keys[COORDINATOR].sign_roster(self.roster).to_bytes()
        for name in self.keys:
            (self.folder / name / "roster.json").write_bytes(signed)

    @property
    def exchange(self):
        return self.folder / "exchange"

    def board(self, name=COORDINATOR, exchange=None):
        store = FolderExchange(exchange or self.exchange, durable=False)
        return Board(store, self.roster, self.keys[name], clock=time.time)

    def view(self, name):
        """The exchange as it is shown to one party, where a store shows everybody another."""
        return self.folder / "views" / name

    def start(self, name, act, *, exchange=None, timeouts=None, **options):
        """Fork the process of one party; returns what waits for its end."""
        started = Started(name, self.folder / f"outcome-{len(self._started)}.json")
        self._started.append(started)
        task = {
            "name": name,
            "folder": str(self.folder / name),
            "exchange": str(exchange or self.exchange),
            "pinned": self.roster.digest,
            "timeouts": asdict(timeouts or self.timeouts),
            "act": act,
            "options": options,
            "outcome": str(started.outcome),
        }
        self.server.stdin.write(json.dumps(task).encode() + b"\n")
        self.server.stdin.flush()
        return started

    def start_sites(self, act, **options):
        return {name: self.start(name, act, **options) for name in self.sites}

    def stop(self):
        """End whoever is still at it."""
        for started in self._started:
            if not started.outcome.exists() and started.process.exists():
                with suppress(ProcessLookupError):
                    os.kill(int(started.process.read_text()), signal.SIGKILL)


@dataclass(frozen=True)
class Started:
    """A party's process."""

    name: str
    outcome: Path

    @property
    def process(self):
        """The file in which it tells its process number."""
        return self.outcome.with_suffix(".pid")

    def ends(self, timeout_s=60.0):
        """What it came to: ``{"value": ...}``, or ``{"error": type, "problem": text}``."""
        deadline = time.monotonic() + timeout_s
        while not self.outcome.exists():
            assert time.monotonic() < deadline, f"{self.name} has not ended"
            time.sleep(0.01)
        return json.loads(self.outcome.read_bytes())

    def value(self, timeout_s=60.0):
        told = self.ends(timeout_s)
        assert "value" in told, told
        return told["value"]

    def problem(self, error, timeout_s=60.0):
        """The text of the error of that type in which it ended."""
        told = self.ends(timeout_s)
        assert told.get("error") == error, told
        return told["problem"]


def start_server():
    """The process from which all parties are forked."""
    path = os.pathsep.join([str(_TESTS), str(_TESTS.parent)])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-m", "simulator.party"],
        stdin=subprocess.PIPE,
        env={**os.environ, **threads, "PYTHONPATH": path},
        start_new_session=True,
    )


def stop_server(server):
    """Ends it, and every party that still waits."""
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    server.stdin.close()


def restore(snapshot, folder):
    """Put a folder back as it was."""
    shutil.rmtree(folder)
    shutil.copytree(snapshot, folder)


# --- the side of the processes


def _run(task):
    from simulator.acts import ACTS

    outcome = Path(task["outcome"])
    outcome.with_suffix(".pid").write_text(str(os.getpid()))
    party = Party(
        task["name"],
        Path(task["folder"]),
        Path(task["exchange"]),
        task["pinned"],
        Timeouts(**task["timeouts"]),
    )
    try:
        told = {"value": ACTS[task["act"]](party, **task["options"])}
    except Exception as error:  # noqa: BLE001 - the test is told
        told = {"error": type(error).__name__, "problem": str(error)}
    staged = outcome.with_suffix(".part")
    staged.write_text(json.dumps(told))
    staged.rename(outcome)


def main():
    """Fork a process for every line."""
    for name in ("simulator.acts", *_LATE_IMPORTS):  # once, before the forks
        import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would copy what it shares with the others
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        if os.fork() == 0:
            try:
                _run(json.loads(line))
            finally:
                os._exit(0)


if __name__ == "__main__":
    main()
