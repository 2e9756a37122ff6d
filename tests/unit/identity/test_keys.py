"""Private keys: made once, kept private, never silently replaced."""

import copy
import json
import os
import pickle
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity import PartyKeys, Signatures, SiteSecrets, seed_material
from fedhealth.identity.encoding import encode


def make(folder: Path, name: str = "north") -> PartyKeys:
    return PartyKeys.load_or_create(folder, name=name, role="site")


def test_keys_are_read_again_not_replaced(tmp_path: Path) -> None:
    first = make(tmp_path / "keys")
    stored = (tmp_path / "keys/keys.json").read_bytes()
    assert make(tmp_path / "keys").public == first.public
    assert (tmp_path / "keys/keys.json").read_bytes() == stored


def test_two_parties_share_no_key(tmp_path: Path) -> None:
    one, two = make(tmp_path / "1").public, make(tmp_path / "2", "south").public
    for field in ("ed25519", "mldsa65", "x25519", "mlkem768"):
        assert getattr(one, field) != getattr(two, field)


def test_files_are_for_this_user_only(tmp_path: Path) -> None:
    make(tmp_path / "a/keys")
    assert stat.S_IMODE((tmp_path / "a/keys").stat().st_mode) == 0o700
    assert [path.name for path in (tmp_path / "a/keys").iterdir()] == ["keys.json"]
    assert stat.S_IMODE((tmp_path / "a/keys/keys.json").stat().st_mode) == 0o600


def test_processes_that_start_at_once_end_with_the_same_keys(tmp_path: Path) -> None:
    start, found = threading.Barrier(6), []

    def run() -> None:
        start.wait()
        found.append(make(tmp_path / "keys").public)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len({public.ed25519 for public in found}) == 1


def _edit(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data + b"{}",
        lambda data: b"\xff" * 100,
        _edit(lambda content: content.pop("x25519")),
        _edit(lambda content: content.update(extra=1)),
        _edit(lambda content: content.update(schema_version=2)),
        _edit(lambda content: content.update(ed25519="A" * 43)),
        _edit(lambda content: content.update(mlkem768="A" * 43)),
        _edit(lambda content: content.update(mldsa65=5)),
    ],
)
def test_damage_is_refused_and_the_file_left_alone(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    make(tmp_path)
    path = tmp_path / "keys.json"
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    with pytest.raises(ConfigError, match="damaged"):
        make(tmp_path)
    assert path.read_bytes() == damaged


def test_an_error_about_a_key_file_holds_none_of_it(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "keys.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps(content | {"x25519": content["x25519"] + "AAAA"}))
    with pytest.raises(ConfigError) as caught:
        make(tmp_path)
    assert content["x25519"][:12] not in repr(caught.value)
    assert caught.value.__suppress_context__


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "keys")
    (tmp_path / "keys/keys.json").chmod(0o640)
    with pytest.raises(ConfigError, match="others can read"):
        make(tmp_path / "keys")


def test_a_folder_that_others_can_read_is_refused_when_it_holds_something(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o755)
    make(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        make(folder)


def test_a_link_in_place_of_the_key_file_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "real")
    (tmp_path / "linked").mkdir(mode=0o700)
    os.symlink(tmp_path / "real/keys.json", tmp_path / "linked/keys.json")
    with pytest.raises(ConfigError):
        make(tmp_path / "linked")


@pytest.mark.parametrize(("name", "role"), [("south", "site"), ("north", "coordinator")])
def test_keys_of_another_party_are_refused(tmp_path: Path, name: str, role: str) -> None:
    make(tmp_path)
    with pytest.raises(ConfigError, match="belongs to"):
        PartyKeys.load_or_create(tmp_path, name=name, role=role)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["", "North", "a/b", "..", "a..b", ".a", "a.", "a b", "é", "a\n", "x" * 64, "model", "sites"]
)
def test_a_name_that_cannot_be_a_key_segment_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        make(tmp_path / "keys", name)


def test_private_keys_are_not_printed_copied_or_pickled(tmp_path: Path) -> None:
    keys, secrets = make(tmp_path), SiteSecrets.load_or_create(tmp_path)
    stored = json.loads((tmp_path / "keys.json").read_bytes())
    assert not any(stored[field] in repr(keys) for field in ("ed25519", "mldsa65", "x25519", "mlkem768"))
    assert secrets.site_secret.hex() not in repr(secrets)
    for value in (keys, secrets):
        for action in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                action(value)


def test_both_signatures_must_verify(tmp_path: Path) -> None:
    one, two = make(tmp_path / "1"), make(tmp_path / "2", "south")
    mine, theirs = one.sign(b"message"), two.sign(b"message")
    one.public.check(b"message", mine)
    half_forged = [
        Signatures(ed25519=mine.ed25519, mldsa65=theirs.mldsa65),
        Signatures(ed25519=theirs.ed25519, mldsa65=mine.mldsa65),
        theirs,
    ]
    for signatures in half_forged:
        with pytest.raises(ProtocolError, match="does not verify"):
            one.public.check(b"message", signatures)
    with pytest.raises(ProtocolError):
        one.public.check(b"messagE", mine)


@pytest.mark.parametrize("size", [0, 64, 3372, 3374])
def test_a_signature_block_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        Signatures.from_bytes(bytes(size))


def test_site_secrets_are_random_and_kept(tmp_path: Path) -> None:
    one, two = SiteSecrets.load_or_create(tmp_path / "1"), SiteSecrets.load_or_create(tmp_path / "2")
    assert len({one.site_secret, one.site_noise_key, two.site_secret, two.site_noise_key}) == 4
    again = SiteSecrets.load_or_create(tmp_path / "1")
    assert (again.site_secret, again.site_noise_key) == (one.site_secret, one.site_noise_key)


def test_a_derived_site_secret_follows_seed_and_site_but_the_noise_key_is_random(tmp_path: Path) -> None:
    one = SiteSecrets.load_or_create(tmp_path / "1", derived_from=seed_material(0, "north"))
    same = SiteSecrets.load_or_create(tmp_path / "2", derived_from=seed_material(0, "north"))
    other = SiteSecrets.load_or_create(tmp_path / "3", derived_from=seed_material(0, "south"))
    assert one.is_derived
    assert one.site_secret == same.site_secret != other.site_secret
    assert one.site_noise_key != same.site_noise_key


@pytest.mark.parametrize("wanted", [None, seed_material(1, "north")])
def test_a_derived_secret_is_not_used_for_anything_else(tmp_path: Path, wanted: bytes | None) -> None:
    SiteSecrets.load_or_create(tmp_path, derived_from=seed_material(0, "north"))
    with pytest.raises(ConfigError, match="seed of another run"):
        SiteSecrets.load_or_create(tmp_path, derived_from=wanted)


def test_a_random_secret_is_never_replaced_by_a_derived_one(tmp_path: Path) -> None:
    drawn = SiteSecrets.load_or_create(tmp_path)
    kept = SiteSecrets.load_or_create(tmp_path, derived_from=seed_material(0, "north"))
    assert kept.site_secret == drawn.site_secret
    assert not kept.is_derived


def test_damaged_site_secrets_are_refused(tmp_path: Path) -> None:
    SiteSecrets.load_or_create(tmp_path)
    path = tmp_path / "secrets.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps(content | {"site_secret": content["site_noise_key"]}))
    with pytest.raises(ConfigError, match="damaged"):
        SiteSecrets.load_or_create(tmp_path)


def test_under_a_passphrase_nothing_private_stands_in_the_files(tmp_path: Path) -> None:
    folder, word = tmp_path / "keys", "correct horse"
    made = PartyKeys.load_or_create(folder, name="a", role="site", passphrase=word)
    secrets = SiteSecrets.load_or_create(folder, passphrase=word)
    for path in folder.iterdir():
        data = path.read_bytes()
        assert b"ed25519" not in data
        assert encode(secrets.site_secret).encode() not in data
        assert path.stat().st_mode & 0o777 == 0o600
    again = PartyKeys.load_or_create(folder, name="a", role="site", passphrase=word)
    assert again.public == made.public
    assert SiteSecrets.load_or_create(folder, passphrase=word).site_secret == secrets.site_secret
    for wrong, problem in (("wrong", "cannot be opened"), (None, "is under a passphrase")):
        with pytest.raises(ConfigError, match=problem):
            PartyKeys.load_or_create(folder, name="a", role="site", passphrase=wrong)


def test_a_passphrase_for_files_that_are_not_sealed_is_refused(tmp_path: Path) -> None:
    PartyKeys.load_or_create(tmp_path, name="a", role="site")
    with pytest.raises(ConfigError, match="is not under a passphrase"):
        PartyKeys.load_or_create(tmp_path, name="a", role="site", passphrase="correct horse")


def test_a_sealed_file_in_the_place_of_another_or_changed_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        PartyKeys.load_or_create(tmp_path / name, name=name, role="site", passphrase="w")
        SiteSecrets.load_or_create(tmp_path / name, passphrase="w")
    keys, secrets = (tmp_path / "a" / name for name in ("keys.json", "secrets.json"))
    sealed = json.loads(keys.read_bytes())
    secrets.write_bytes(keys.read_bytes())
    with pytest.raises(ConfigError, match="cannot be opened"):
        SiteSecrets.load_or_create(tmp_path / "a", passphrase="w")
    keys.write_text(json.dumps(sealed | {"nonce": encode(bytes(12))}))
    with pytest.raises(ConfigError, match="cannot be opened"):
        PartyKeys.load_or_create(tmp_path / "a", name="a", role="site", passphrase="w")
