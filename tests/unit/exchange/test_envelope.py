"""An envelope opens only when it is whole, canonical, known and signed by its sender."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from fedhealth.errors import ProtocolError
from fedhealth.exchange import Header, Limits, seal, unseal
from fedhealth.exchange.envelope import HEADER_TYPE, MAGIC, timestamp
from fedhealth.identity import PartyKeys, Roster
from fedhealth.identity.encoding import pae

PAYLOAD = bytes(range(256)) * 3


def header(payload: bytes = PAYLOAD, **changes: Any) -> Header:
    fields: dict[str, Any] = {
        "key": "runs/r1/sums/2/update/0/1/masked/north",
        "kind": "masked",
        "study": "ab" * 32,
        "run": "r1",
        "round": 2,
        "purpose": "update",
        "attempt": 1,
        "sender": "north",
        "payload_digest": sha256(payload).hexdigest(),
        "payload_bytes": len(payload),
        "time": "2026-01-02T03:04:05.678Z",
    }
    return Header(**(fields | changes))


@pytest.fixture(scope="module")
def sealed(parties: dict[str, PartyKeys]) -> bytes:
    return seal(PAYLOAD, header(), keys=parties["north"])


def _with_header(head: bytes, parties: dict[str, PartyKeys], payload: bytes = PAYLOAD) -> bytes:
    """An envelope with any header bytes, properly signed: what a lying sender can make."""
    signatures = parties["north"].sign(pae(HEADER_TYPE, head)).to_bytes()
    return MAGIC + len(head).to_bytes(4, "big") + head + payload + signatures


def _edited(parties: dict[str, PartyKeys], edit: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(header().to_bytes())
    edit(content)
    return _with_header(rfc8785.dumps(content), parties)


def test_what_was_sealed_is_opened(sealed: bytes, roster: Roster) -> None:
    opened = unseal(sealed, roster=roster)
    assert opened.payload == PAYLOAD
    assert opened.header == header()
    assert opened.digest == sha256(sealed).hexdigest()


def test_the_helper_makes_what_seal_makes(parties: dict[str, PartyKeys], roster: Roster) -> None:
    """Otherwise the refusals below would prove nothing."""
    assert unseal(_edited(parties, lambda content: None), roster=roster).header == header()


def test_every_single_byte_matters(sealed: bytes, roster: Roster) -> None:
    """Magic, version, length, header and the borders of payload and signatures, byte by byte."""
    size = int.from_bytes(sealed[8:12], "big")
    borders = [12 + size, 12 + size + len(PAYLOAD) - 1, 12 + size + len(PAYLOAD), len(sealed) - 1]
    for place in [*range(12 + size), *borders]:
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(ProtocolError):
            unseal(bytes(changed), roster=roster)


def test_a_cut_anywhere_is_refused(sealed: bytes, roster: Roster) -> None:
    for size in range(len(sealed)):
        with pytest.raises(ProtocolError):
            unseal(sealed[:size], roster=roster)


@pytest.mark.parametrize("extra", [b"\x00", b"x" * 3373])
def test_bytes_left_over_are_refused(sealed: bytes, roster: Roster, extra: bytes) -> None:
    with pytest.raises(ProtocolError, match="left over"):
        unseal(sealed + extra, roster=roster)


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content.update(extra=1),
        lambda content: content.pop("plan"),
        lambda content: content.pop("sender"),
        lambda content: content.update(schema_version=2),
        lambda content: content.update(algorithms=["ed25519"]),
        lambda content: content.update(algorithms=["mldsa65", "ed25519"]),
        lambda content: content.update(round=-1),
        lambda content: content.update(round="2"),
        lambda content: content.update(round=2.5),
        lambda content: content.update(round=True),
        lambda content: content.update(kind="Masked"),
        lambda content: content.update(kind=""),
        lambda content: content.update(study="ab"),
        lambda content: content.update(study="AB" * 32),
        lambda content: content.update(run="a/b"),
        lambda content: content.update(time="2026-01-02"),
        lambda content: content.update(payload_digest="0" * 64),
        lambda content: content.update(payload_bytes=len(PAYLOAD) - 1),
        lambda content: content.update(payload_bytes=-1),
        lambda content: content.update(sender="south"),
        lambda content: content.update(sender="nobody"),
        lambda content: content.update(sender="../north"),
        lambda content: content.update(key="k" * 513),
    ],
)
def test_a_signed_header_with_anything_unexpected_is_refused(
    parties: dict[str, PartyKeys], roster: Roster, edit: Callable[[dict[str, Any]], object]
) -> None:
    with pytest.raises(ProtocolError):
        unseal(_edited(parties, edit), roster=roster)


def test_a_header_in_another_spelling_is_refused(parties: dict[str, PartyKeys], roster: Roster) -> None:
    head = header().to_bytes()
    for other in (
        head + b" ",
        head.replace(b'"round":2', b'"round": 2'),
        b'{"run":"r0",' + head[1:],
        b"[]",
        b"",
    ):
        with pytest.raises(ProtocolError):
            unseal(_with_header(other, parties), roster=roster)


def test_limits_hold_before_parsing(sealed: bytes, roster: Roster) -> None:
    with pytest.raises(ProtocolError, match="more than 100 bytes"):
        unseal(sealed, roster=roster, limits=Limits(max_bytes=100))
    with pytest.raises(ProtocolError, match="header of more than 64 bytes"):
        unseal(sealed, roster=roster, limits=Limits(max_header_bytes=64))
    assert unseal(sealed, roster=roster, limits=Limits(max_bytes=len(sealed))).payload == PAYLOAD


def test_a_sender_that_is_not_on_the_roster_is_refused(sealed: bytes, parties: dict[str, PartyKeys]) -> None:
    others = Roster.of(parties[name].public for name in ("south", "hub"))
    with pytest.raises(ProtocolError, match="not on the roster"):
        unseal(sealed, roster=others)


def test_the_name_of_a_party_with_other_keys_is_refused(roster: Roster, tmp_path: Path) -> None:
    impostor = PartyKeys.load_or_create(tmp_path, name="north", role="site")
    with pytest.raises(ProtocolError, match="does not verify"):
        unseal(seal(PAYLOAD, header(), keys=impostor), roster=roster)


@pytest.mark.parametrize("changes", [{"sender": "south"}, {"payload_bytes": 1}, {"payload_digest": "0" * 64}])
def test_sealing_what_does_not_fit_is_a_mistake(
    parties: dict[str, PartyKeys], changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="header is of another"):
        seal(PAYLOAD, header(**changes), keys=parties["north"])


def test_an_empty_payload_is_sealed_too(parties: dict[str, PartyKeys], roster: Roster) -> None:
    data = seal(b"", header(b""), keys=parties["north"])
    assert unseal(data, roster=roster).payload == b""


def test_time_is_utc_with_milliseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
