"""All sites of a roster come to one tag key, and nobody else does."""

import pytest

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity import PartyKeys, Roster
from fedhealth.identity.agreement import load_or_encapsulate, pair_keys
from fedhealth.identity.tag_key import holder, load_or_draw, open_sealed, seal_for_all

SITES = ("east", "north", "west")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    keys = {name: PartyKeys.load_or_create(folder / name, name=name, role="site") for name in SITES}
    hub = PartyKeys.load_or_create(folder / "hub", name="hub", role="coordinator")
    roster = Roster.of((hub.public, *(each.public for each in keys.values())))
    own = {name: load_or_encapsulate(folder / name, keys[name], roster) for name in SITES}
    payloads = {name: each.payload for name, each in own.items()}
    pairs = {name: pair_keys(keys[name], roster, own[name], payloads) for name in SITES}
    return folder, roster, pairs


def test_every_site_opens_the_key_that_the_first_has_drawn(world):
    folder, roster, pairs = world
    key = load_or_draw(folder / "east", roster)
    posted = seal_for_all(key, roster, pairs["east"])
    assert holder(roster) == "east"
    for name in ("north", "west"):
        assert open_sealed(posted, roster, site=name, pair_key=pairs[name]["east"]) == key
    assert key not in posted


def test_the_key_is_drawn_once(world):
    folder, roster, pairs = world
    key = load_or_draw(folder / "east", roster)
    assert load_or_draw(folder / "east", roster) == key
    assert seal_for_all(key, roster, pairs["east"]) == seal_for_all(key, roster, pairs["east"])


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"roster": "x", "schema_version": 1, "sealed": {}}'])
def test_what_is_no_sealed_key_is_refused(world, payload):
    _, roster, pairs = world
    with pytest.raises(ProtocolError, match="sealed no tag key"):
        open_sealed(payload, roster, site="west", pair_key=pairs["west"]["east"])


def test_a_key_sealed_to_another_site_or_under_another_key_is_refused(world):
    folder, roster, pairs = world
    posted = seal_for_all(load_or_draw(folder / "east", roster), roster, pairs["east"])
    for site, pair in (("north", pairs["west"]["east"]), ("west", pairs["west"]["north"])):
        with pytest.raises(ProtocolError, match="sealed no tag key"):
            open_sealed(posted, roster, site=site, pair_key=pair)


def test_a_damaged_file_stops_the_site(world):
    folder, roster, _ = world
    path = folder / "west" / f"tag-{roster.digest[:32]}.json"
    path.write_text("{}")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="damaged"):
        load_or_draw(folder / "west", roster)
