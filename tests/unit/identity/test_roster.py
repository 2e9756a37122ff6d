"""The roster: one coordinator, distinct parties, one digest, pinned."""

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity import PartyKeys, PublicIdentity, Roster, SignedRoster
from fedhealth.identity.encoding import decode, encode


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PartyKeys]:
    folder = tmp_path_factory.mktemp("keys")
    keys = {name: PartyKeys.load_or_create(folder / name, name=name, role="site") for name in ("b", "a", "c")}
    keys["hub"] = PartyKeys.load_or_create(folder / "hub", name="hub", role="coordinator")
    return keys


@pytest.fixture(scope="module")
def roster(parties: dict[str, PartyKeys]) -> Roster:
    return Roster.of(keys.public for keys in parties.values())


def test_order_of_enrolment_does_not_change_the_digest(parties: dict[str, PartyKeys], roster: Roster) -> None:
    shuffled = Roster.of(keys.public for keys in reversed(list(parties.values())))
    assert shuffled.digest == roster.digest
    assert roster.sites == ("a", "b", "c")
    assert roster.coordinator == "hub"


def test_bytes_round_trip(roster: Roster) -> None:
    assert Roster.from_bytes(roster.to_bytes()) == roster
    public = roster.party("a")
    assert PublicIdentity.from_bytes(public.to_bytes()) == public


def test_a_party_twice_or_under_two_names_is_refused(parties: dict[str, PartyKeys]) -> None:
    publics = [keys.public for keys in parties.values()]
    for field in ("ed25519", "mldsa65", "x25519", "mlkem768"):
        sybil = parties["b"].public.model_copy(
            update={"name": "sybil", field: getattr(parties["a"].public, field)}
        )
        rest = [public for public in publics if public.name != "b"]
        with pytest.raises(ConfigError, match=field):
            Roster.of([*rest, sybil])
    with pytest.raises(ConfigError, match="name"):
        Roster.of([*publics, publics[0]])


def test_exactly_one_coordinator(parties: dict[str, PartyKeys], tmp_path: Path) -> None:
    sites = [parties[name].public for name in ("a", "b", "c")]
    second = PartyKeys.load_or_create(tmp_path, name="hub2", role="coordinator")
    for publics in (sites, [*sites, parties["hub"].public, second.public]):
        with pytest.raises(ConfigError, match="exactly one coordinator"):
            Roster.of(publics)


def _edited(roster: Roster, edit: Any) -> bytes:
    content = json.loads(roster.to_bytes())
    edit(content)
    return rfc8785.dumps(content)


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["parties"].reverse(),
        lambda content: content.update(extra=1),
        lambda content: content.update(schema_version=2),
        lambda content: content["parties"][0].update(role="auditor"),
        lambda content: content["parties"][0].update(name="A"),
        lambda content: content["parties"][0].pop("mlkem768"),
        lambda content: content["parties"][0].update(ed25519=content["parties"][0]["ed25519"] + "="),
        lambda content: content["parties"][0].update(ed25519="A" * 42),
        lambda content: content["parties"][0].update(ed25519="+" * 43),
        lambda content: content["parties"][0].update(ed25519=7),
    ],
)
def test_a_roster_in_any_other_form_is_refused(roster: Roster, edit: Any) -> None:
    with pytest.raises(ProtocolError):
        Roster.from_bytes(_edited(roster, edit))


def test_duplicate_json_keys_and_spaces_are_refused(roster: Roster) -> None:
    data = roster.to_bytes()
    for other in (
        data + b"\n",
        b" " + data,
        data.replace(b'"role":', b'"role":"site","role":', 1),
        data[:-1],
    ):
        with pytest.raises(ProtocolError):
            Roster.from_bytes(other)


def test_verify_checks_name_role_and_message(parties: dict[str, PartyKeys], roster: Roster) -> None:
    signatures = parties["a"].sign(b"m")
    roster.verify("a", "site", b"m", signatures)
    for name, role, message in (
        ("a", "coordinator", b"m"),
        ("b", "site", b"m"),
        ("nobody", "site", b"m"),
        ("a", "site", b"n"),
    ):
        with pytest.raises(ProtocolError):
            roster.verify(name, role, message, signatures)  # type: ignore[arg-type]


def test_a_pinned_roster_verifies_and_any_other_is_refused(
    parties: dict[str, PartyKeys], roster: Roster, tmp_path: Path
) -> None:
    signed = SignedRoster.from_bytes(parties["hub"].sign_roster(roster).to_bytes())
    assert signed.verify(expected_digest=roster.digest) == roster
    smaller = Roster.of(public for public in roster.parties if public.name != "c")
    with pytest.raises(ProtocolError, match="pinned"):
        parties["hub"].sign_roster(smaller).verify(expected_digest=roster.digest)
    swapped = SignedRoster(roster=smaller, signatures=signed.signatures)
    with pytest.raises(ProtocolError, match="does not verify"):
        swapped.verify()


def test_a_site_cannot_sign_a_roster(parties: dict[str, PartyKeys], roster: Roster) -> None:
    with pytest.raises(ConfigError, match="coordinator"):
        parties["a"].sign_roster(roster)


@pytest.mark.parametrize("text", ["A", "AB=", "AB==", "A B", "AB+/", "QUJ\n", "AB", "é"])
def test_base64url_has_one_spelling(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode(text)


def test_base64url_round_trips() -> None:
    for size in range(6):
        assert decode(encode(bytes(range(250, 250 + size)))) == bytes(range(250, 250 + size))
