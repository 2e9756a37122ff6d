"""E0: both ends of a pair get one key, nobody else does, and a swapped part changes it."""

import json
import stat
from pathlib import Path

import pytest
import rfc8785

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity import PartyKeys, Roster
from fedhealth.identity.agreement import Encapsulation, encapsulate, load_or_encapsulate, pair_keys
from fedhealth.identity.encoding import encode

SITES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PartyKeys]:
    folder = tmp_path_factory.mktemp("keys")
    keys = {name: PartyKeys.load_or_create(folder / name, name=name, role="site") for name in SITES}
    keys["hub"] = PartyKeys.load_or_create(folder / "hub", name="hub", role="coordinator")
    return keys


@pytest.fixture(scope="module")
def roster(parties: dict[str, PartyKeys]) -> Roster:
    return Roster.of(keys.public for keys in parties.values())


@pytest.fixture(scope="module")
def halves(parties: dict[str, PartyKeys], roster: Roster) -> dict[str, Encapsulation]:
    return {name: encapsulate(parties[name], roster) for name in SITES}


def agree(
    parties: dict[str, PartyKeys], roster: Roster, halves: dict[str, Encapsulation]
) -> dict[str, dict[str, bytes]]:
    payloads = {name: half.payload for name, half in halves.items()}
    return {name: pair_keys(parties[name], roster, halves[name], payloads) for name in SITES}


def test_every_pair_agrees_and_no_two_pairs_share_a_key(
    parties: dict[str, PartyKeys], roster: Roster, halves: dict[str, Encapsulation]
) -> None:
    keys = agree(parties, roster, halves)
    pairs = [(one, two) for one in SITES for two in SITES if one < two]
    for one, two in pairs:
        assert keys[one][two] == keys[two][one]
        assert len(keys[one][two]) == 32
    assert len({keys[one][two] for one, two in pairs}) == len(pairs)
    assert all(set(keys[name]) == set(SITES) - {name} for name in SITES)


def test_another_roster_gives_other_keys(
    parties: dict[str, PartyKeys], roster: Roster, halves: dict[str, Encapsulation]
) -> None:
    smaller = Roster.of(party for party in roster.parties if party.name != "d")
    both = {name: encapsulate(parties[name], smaller) for name in ("a", "b")}
    one = pair_keys(parties["a"], smaller, both["a"], {}, peers=["b"])
    two = pair_keys(parties["b"], smaller, both["b"], {"a": both["a"].payload}, peers=["a"])
    assert one["b"] == two["a"] != agree(parties, roster, halves)["a"]["b"]
    with pytest.raises(ProtocolError, match="does not fit"):
        pair_keys(parties["b"], smaller, both["b"], {"a": halves["a"].payload}, peers=["a"])


@pytest.mark.parametrize("field", ["x25519", "mlkem768"])
def test_a_swapped_public_key_leaves_the_pair_without_a_common_key(
    parties: dict[str, PartyKeys], roster: Roster, tmp_path: Path, field: str
) -> None:
    thief = PartyKeys.load_or_create(tmp_path, name="b", role="site")
    forged_b = parties["b"].public.model_copy(update={field: getattr(thief.public, field)})
    forged = Roster.of([forged_b, *(party for party in roster.parties if party.name != "b")])
    half = encapsulate(parties["a"], forged)
    key_of_a = pair_keys(parties["a"], forged, half, {}, peers=["b"])["b"]
    own = encapsulate(parties["b"], roster)
    with pytest.raises(ProtocolError):
        pair_keys(parties["b"], roster, own, {"a": half.payload}, peers=["a"])
    honest = encapsulate(parties["a"], roster)
    key_of_b = pair_keys(parties["b"], roster, own, {"a": honest.payload}, peers=["a"])["a"]
    assert key_of_a != key_of_b


def test_a_changed_ciphertext_gives_a_key_that_nobody_shares(
    parties: dict[str, PartyKeys], roster: Roster, halves: dict[str, Encapsulation]
) -> None:
    content = json.loads(halves["a"].payload)
    content["ciphertexts"]["b"] = encode(bytes(1088))
    changed = pair_keys(parties["b"], roster, halves["b"], {"a": rfc8785.dumps(content)}, peers=["a"])
    assert changed["a"] != agree(parties, roster, halves)["a"]["b"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["ciphertexts"].pop("c"),
        lambda content: content["ciphertexts"].update(a="AAAA"),
        lambda content: content["ciphertexts"].update(b=encode(bytes(1087))),
        lambda content: content["ciphertexts"].update(b="!"),
        lambda content: content.update(roster="0" * 64),
        lambda content: content.update(extra=1),
        lambda content: content.update(schema_version=2),
    ],
)
def test_malformed_key_material_is_refused(
    parties: dict[str, PartyKeys], roster: Roster, halves: dict[str, Encapsulation], edit: object
) -> None:
    content = json.loads(halves["a"].payload)
    edit(content)  # type: ignore[operator]
    with pytest.raises(ProtocolError):
        pair_keys(parties["b"], roster, halves["b"], {"a": rfc8785.dumps(content)}, peers=["a"])


def test_a_missing_payload_of_an_earlier_site_is_named(
    parties: dict[str, PartyKeys], roster: Roster, halves: dict[str, Encapsulation]
) -> None:
    with pytest.raises(ProtocolError, match="a posted no key material"):
        pair_keys(parties["b"], roster, halves["b"], {})
    assert set(pair_keys(parties["a"], roster, halves["a"], {})) == {"b", "c", "d"}


def test_a_point_of_small_order_is_refused(parties: dict[str, PartyKeys], roster: Roster) -> None:
    weak_b = parties["b"].public.model_copy(update={"x25519": encode(bytes(32))})
    forged = Roster.of([weak_b, *(party for party in roster.parties if party.name != "b")])
    with pytest.raises(ProtocolError):
        pair_keys(parties["a"], forged, encapsulate(parties["a"], forged), {}, peers=["b"])


def test_the_coordinator_and_strangers_do_not_agree(
    parties: dict[str, PartyKeys], roster: Roster, tmp_path: Path
) -> None:
    stranger = PartyKeys.load_or_create(tmp_path, name="a", role="site")
    for keys in (parties["hub"], stranger):
        with pytest.raises(ProtocolError, match="not a site of this roster"):
            encapsulate(keys, roster)


def test_a_restarted_site_still_knows_what_it_sent(
    parties: dict[str, PartyKeys], roster: Roster, tmp_path: Path
) -> None:
    first = load_or_encapsulate(tmp_path, parties["a"], roster)
    again = load_or_encapsulate(tmp_path, parties["a"], roster)
    assert (again.payload, again.secrets) == (first.payload, first.secrets)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("part", ["payload", "secrets"])
def test_a_damaged_epoch_file_is_refused(
    parties: dict[str, PartyKeys], roster: Roster, tmp_path: Path, part: str
) -> None:
    load_or_encapsulate(tmp_path, parties["a"], roster)
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_bytes())
    content[part] = content[part][:-40] if part == "payload" else {"b": content[part]["b"]}
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="damaged"):
        load_or_encapsulate(tmp_path, parties["a"], roster)
