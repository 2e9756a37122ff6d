"""Real keys and a folder exchange for the tests of envelopes and boards."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedhealth.exchange import Board, Exchange, FolderExchange
from fedhealth.identity import PartyKeys, Roster


@pytest.fixture(scope="session")
def parties(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PartyKeys]:
    folder = tmp_path_factory.mktemp("keys")
    keys = {
        name: PartyKeys.load_or_create(folder / name, name=name, role="site") for name in ("north", "south")
    }
    keys["hub"] = PartyKeys.load_or_create(folder / "hub", name="hub", role="coordinator")
    return keys


@pytest.fixture(scope="session")
def roster(parties: dict[str, PartyKeys]) -> Roster:
    return Roster.of(keys.public for keys in parties.values())


@pytest.fixture
def exchange(tmp_path: Path) -> FolderExchange:
    return FolderExchange(tmp_path / "exchange", durable=False)


@pytest.fixture
def board_of(exchange: Exchange, parties: dict[str, PartyKeys], roster: Roster) -> Callable[[str], Board]:
    return lambda name: Board(exchange, roster, parties[name], clock=lambda: 1_700_000_000.25)
