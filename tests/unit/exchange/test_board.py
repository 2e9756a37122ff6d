"""The board gives what the named party posted for exactly this place, or an error."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from fedhealth.errors import MissingObjectError, ProtocolError, TransportError
from fedhealth.exchange import Board, FolderExchange, Limits, read_object

KEY = "runs/r1/sums/2/update/0/1/masked/north"
PLACE: dict[str, Any] = {
    "kind": "masked",
    "run": "r1",
    "round": 2,
    "purpose": "update",
    "step": 3,
    "attempt": 1,
}
READ: dict[str, Any] = PLACE | {"sender": "north", "role": "site"}

BoardOf = Callable[[str], Board]


def test_what_one_posts_the_other_reads(board_of: BoardOf, exchange: FolderExchange) -> None:
    digest = board_of("north").post(KEY, payload=b"vector", study="ab" * 32, plan="cd" * 32, **PLACE)
    opened = board_of("hub").read(KEY, digest=digest, study="ab" * 32, plan="cd" * 32, **READ)
    assert opened.payload == b"vector"
    assert opened.digest == digest == sha256(exchange.get(KEY)).hexdigest()
    assert opened.header.time == "2023-11-14T22:13:20.250Z"
    assert board_of("south").read(KEY, **READ).payload == b"vector"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "share"),
        ("sender", "south"),
        ("role", "coordinator"),
        ("digest", "0" * 64),
        ("study", "ef" * 32),
        ("run", "r2"),
        ("round", 3),
        ("purpose", "moments"),
        ("step", 0),
        ("attempt", 2),
        ("plan", "ef" * 32),
    ],
)
def test_any_other_expectation_is_refused(board_of: BoardOf, field: str, value: Any) -> None:
    board_of("north").post(KEY, payload=b"vector", study="ab" * 32, plan="cd" * 32, **PLACE)
    with pytest.raises(ProtocolError):
        board_of("hub").read(KEY, **(READ | {field: value}))


def test_whoever_knows_the_roster_reads_without_keys(board_of: BoardOf, exchange: FolderExchange) -> None:
    board_of("north").post(KEY, payload=b"vector", **PLACE)
    roster = board_of("hub").roster
    given: dict[str, Any] = {"roster": roster, "kind": "masked", "sender": "north", "role": "site"}
    assert read_object(exchange, KEY, **given).payload == b"vector"
    assert read_object(exchange, KEY, **given, run="r1", round=2).payload == b"vector"
    for changes in ({"kind": "share"}, {"sender": "south"}, {"round": 3}, {"digest": "0" * 64}):
        with pytest.raises(ProtocolError):
            read_object(exchange, KEY, **(given | changes))
    with pytest.raises(ValueError, match="place"):
        read_object(exchange, KEY, **given, rounds=2)


def test_an_object_that_the_store_shows_elsewhere_is_refused(
    board_of: BoardOf, exchange: FolderExchange
) -> None:
    board_of("north").post(KEY, payload=b"vector", **PLACE)
    elsewhere = KEY.replace("masked", "share")
    exchange.put(elsewhere, exchange.get(KEY))
    with pytest.raises(ProtocolError, match="another key"):
        board_of("hub").read(elsewhere, **READ)


def test_a_site_posts_only_under_its_own_name(board_of: BoardOf, exchange: FolderExchange) -> None:
    other = KEY.replace("north", "south")
    for key in ("runs/r1/rounds/2/model", other, KEY + "ern", "runs/r1/x-north", "runs/north/rounds/2/model"):
        with pytest.raises(ProtocolError, match="may not post"):
            board_of("north").post(key, payload=b"x", **PLACE)
    assert exchange.list() == ()
    board_of("north").post("runs/r1/rounds/2/sites/north/ready", kind="ready", payload=b"x")


def test_a_site_object_in_a_foreign_place_is_refused_by_its_reader(
    board_of: BoardOf, exchange: FolderExchange
) -> None:
    from fedhealth.exchange import Header, seal

    key = "runs/r1/rounds/2/model"
    header = Header(
        key=key,
        kind="model",
        sender="north",
        payload_digest=sha256(b"x").hexdigest(),
        payload_bytes=1,
        time="2026-01-02T03:04:05.678Z",
    )
    exchange.put(key, seal(b"x", header, keys=board_of("north").keys))
    with pytest.raises(ProtocolError, match="may not post"):
        board_of("south").read(key, kind="model", sender="north", role="site")


def test_posting_again_returns_the_first_digest(board_of: BoardOf, exchange: FolderExchange) -> None:
    first = board_of("north").post(KEY, payload=b"vector", **PLACE)
    stored = exchange.get(KEY)
    assert board_of("north").post(KEY, payload=b"vector", **PLACE) == first
    assert board_of("north").post(KEY, payload=b"another draw", **PLACE) == first
    assert exchange.get(KEY) == stored


def test_two_processes_of_one_party_end_with_the_same_object(
    board_of: BoardOf, exchange: FolderExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = board_of("north").post(KEY, payload=b"vector", **PLACE)
    monkeypatch.setattr(FolderExchange, "exists", lambda self, key: False)  # the other one came just after
    assert board_of("north").post(KEY, payload=b"another draw", **PLACE) == first
    with pytest.raises(ProtocolError, match="sender"):
        board_of("hub").post(KEY, payload=b"vector", **PLACE)


def test_posting_where_something_else_is_is_refused(board_of: BoardOf, exchange: FolderExchange) -> None:
    board_of("north").post(KEY, payload=b"vector", **PLACE)
    for changes in ({"kind": "share"}, {"attempt": 2}, {"plan": "ef" * 32}):
        with pytest.raises(ProtocolError):
            board_of("north").post(KEY, payload=b"vector", **(PLACE | changes))
    with pytest.raises(ProtocolError, match="sender"):
        board_of("hub").post(KEY, payload=b"vector", **PLACE)
    exchange.put("runs/junk/north", b"junk")
    with pytest.raises(ProtocolError):
        board_of("north").post("runs/junk/north", kind="x", payload=b"")


def test_a_missing_object_is_missing_not_wrong(board_of: BoardOf) -> None:
    with pytest.raises(MissingObjectError):
        board_of("hub").read(KEY, **READ)
    assert not board_of("hub").exists(KEY)
    assert board_of("hub").list("runs/") == ()


def test_a_field_that_is_not_valid_is_the_callers_mistake(board_of: BoardOf) -> None:
    for changes in ({"round": -1}, {"kind": "No"}, {"plan": "short"}):
        with pytest.raises(ValueError, match="not a valid header"):
            board_of("north").post(KEY, payload=b"x", **(PLACE | changes))


def test_an_object_over_the_limit_is_not_even_read(board_of: BoardOf, exchange: FolderExchange) -> None:
    board = board_of("north")
    board.post(KEY, payload=b"x" * 10_000, **PLACE)
    small = Board(exchange, board.roster, board.keys, clock=board.clock, limits=Limits(max_bytes=5_000))
    with pytest.raises(ProtocolError, match="larger than 5000"):
        small.read(KEY, **READ)


def test_wait_polls_until_the_object_is_there(board_of: BoardOf) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            board_of("north").post(KEY, payload=b"x", **PLACE)

    board_of("hub").wait(KEY, timeout_s=10, poll_s=0.5, sleep=sleep, monotonic=lambda: sum(slept))
    assert slept == [0.5, 0.5, 0.5]


def test_wait_ends_with_a_transport_error(board_of: BoardOf) -> None:
    slept: list[float] = []
    with pytest.raises(TransportError, match="did not appear within 2 s"):
        board_of("hub").wait(KEY, timeout_s=2, poll_s=0.5, sleep=slept.append, monotonic=lambda: sum(slept))
    assert slept == [0.5] * 4
