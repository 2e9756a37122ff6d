"""The consortium's authority: what it certifies, what it refuses, and what a party believes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fedhealth.errors import ConfigError, PolicyError, ProtocolError
from fedhealth.identity import PartyKeys, Role, Roster
from fedhealth.identity.authority import LIST_DAYS, SLACK, Authority
from fedhealth.identity.certificates import Certified, EnrolmentRequest, Trust, read_certificates

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES: dict[str, Role] = {"hub": "coordinator", "a": "site", "b": "site", "c": "site"}


def days(n: float) -> datetime:
    return NOW + timedelta(days=n)


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PartyKeys]:
    folder = tmp_path_factory.mktemp("keys")
    return {
        name: PartyKeys.load_or_create(folder / name, name=name, role=role) for name, role in NAMES.items()
    }


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", consortium="Fifteen", passphrase="correct horse", now=NOW)


@pytest.fixture
def certified(authority: Authority, parties: dict[str, PartyKeys]) -> dict[str, Certified]:
    return {name: authority.sign(EnrolmentRequest.of(keys), now=NOW) for name, keys in parties.items()}


def roster_of(parties: dict[str, PartyKeys]) -> Roster:
    return Roster.of(keys.public for keys in parties.values())


def leaves(*certified: Certified) -> list[x509.Certificate]:
    return read_certificates("".join(each.ed25519 + each.mldsa65 for each in certified).encode())


def trust(authority: Authority) -> Trust:
    return Trust.of((authority.folder / "ca.pem").read_bytes(), (authority.folder / "crl.pem").read_bytes())


def test_a_roster_of_certified_parties_is_believed(
    authority: Authority, parties: dict[str, PartyKeys], certified: dict[str, Certified]
) -> None:
    trust(authority).check(roster_of(parties), leaves(*certified.values()), days(1))
    assert [(each.name, each.role) for each in authority.issued] == list(NAMES.items())


def test_its_private_key_is_for_the_owner_and_under_the_passphrase(authority: Authority) -> None:
    key = authority.folder / "ca-key.json"
    assert key.stat().st_mode & 0o777 == 0o600
    assert authority.folder.stat().st_mode & 0o777 == 0o700
    assert b"mldsa87" not in key.read_bytes()
    assert Authority.open(authority.folder, passphrase="correct horse").root == authority.root
    for wrong, problem in (("wrong", "cannot be opened"), (None, "set FEDHEALTH_CA_PASSPHRASE")):
        with pytest.raises(ConfigError, match=problem):
            Authority.open(authority.folder, passphrase=wrong)


def test_an_authority_is_made_once_and_in_a_folder_of_its_own(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        Authority.create(authority.folder, consortium="Other", passphrase=None, now=NOW)
    with pytest.raises(ConfigError, match="holds no authority"):
        Authority.open(tmp_path / "nowhere", passphrase=None)
    (authority.folder / "register.json").write_text("{}{")
    with pytest.raises(ConfigError, match=r"register\.json is missing or damaged"):
        Authority.open(authority.folder, passphrase="correct horse")


def test_a_request_with_keys_of_somebody_else_is_refused(
    authority: Authority, parties: dict[str, PartyKeys]
) -> None:
    mine, theirs = (EnrolmentRequest.of(parties[name]) for name in ("a", "b"))
    swapped_x25519 = mine.identity.model_copy(update={"x25519": theirs.identity.x25519})
    renamed = mine.identity.model_copy(update={"name": "b"})
    for forged in (
        mine.model_copy(update={"ed25519": theirs.ed25519}),
        mine.model_copy(update={"mldsa65": theirs.mldsa65}),
        mine.model_copy(update={"mldsa65": mine.ed25519}),
        mine.model_copy(update={"identity": theirs.identity}),
        mine.model_copy(update={"identity": swapped_x25519}),
        mine.model_copy(update={"identity": renamed}),
        mine.model_copy(update={"ed25519": "no certificate request"}),
    ):
        with pytest.raises(ProtocolError, match="not signed by the keys"):
            authority.sign(forged, now=NOW)
    assert authority.issued == ()


def test_a_name_is_certified_with_other_keys_only_after_it_was_revoked(
    authority: Authority, certified: dict[str, Certified], parties: dict[str, PartyKeys], tmp_path: Path
) -> None:
    new = PartyKeys.load_or_create(tmp_path / "new", name="a", role="site")
    with pytest.raises(PolicyError, match="certified already"):
        authority.sign(EnrolmentRequest.of(new), now=NOW)
    assert authority.revoke("a", reason="key_compromise", now=days(1)) == 2
    again = authority.sign(EnrolmentRequest.of(new), now=days(1))
    with pytest.raises(PolicyError, match="were revoked"):
        authority.sign(EnrolmentRequest.of(parties["a"]), now=days(1))
    other = PartyKeys.load_or_create(tmp_path / "other", name="d", role="site")
    mixed = replace(
        parties["a"], public=parties["a"].public.model_copy(update={"x25519": other.public.x25519})
    )
    with pytest.raises(PolicyError, match="were revoked"):  # revoked keys with another agreement key
        authority.sign(EnrolmentRequest.of(mixed), now=days(1))
    bundle = [*leaves(*certified.values()), *leaves(again)]
    trust(authority).check(roster_of(parties | {"a": new}), bundle, days(2))
    with pytest.raises(ProtocolError, match="a is revoked"):
        trust(authority).check(roster_of(parties), bundle, days(2))


def test_revocations_outlive_the_process(authority: Authority, certified: dict[str, Certified]) -> None:
    authority.revoke("b", reason="superseded", now=days(1))
    reopened = Authority.open(authority.folder, passphrase="correct horse")
    reopened.revoke("c", reason="cessation_of_operation", now=days(2))
    listed = trust(reopened).revoked
    assert len(list(listed)) == 4
    assert trust(reopened).list_number == 3
    assert reopened.revoke("b", reason="superseded", now=days(3)) == 0
    assert trust(reopened).list_number == 3
    with pytest.raises(ConfigError, match="nothing of nobody"):
        reopened.revoke("nobody", reason="superseded", now=days(3))


def test_an_authority_that_waits_does_not_take_back_what_another_process_revoked(
    authority: Authority, certified: dict[str, Certified], parties: dict[str, PartyKeys], tmp_path: Path
) -> None:
    other = Authority.open(authority.folder, passphrase="correct horse")
    other.revoke("a", reason="key_compromise", now=days(1))
    late = PartyKeys.load_or_create(tmp_path / "late", name="late", role="site")
    authority.sign(EnrolmentRequest.of(late), now=days(1))
    authority.publish(days(2))
    assert trust(authority).list_number == 3
    with pytest.raises(ProtocolError, match="a is revoked"):
        trust(authority).check(roster_of(parties), leaves(*certified.values()), days(2))
    assert [each.name for each in other.issued if each.revoked] == ["a"]
    assert {"a", "late"} <= {
        each.name for each in Authority.open(authority.folder, passphrase="correct horse").issued
    }


def test_a_list_that_a_kill_kept_back_is_published_by_whoever_comes_next(
    authority: Authority, certified: dict[str, Certified], parties: dict[str, PartyKeys]
) -> None:
    before = (authority.folder / "crl.pem").read_bytes()
    authority.revoke("a", reason="key_compromise", now=days(1))
    (authority.folder / "crl.pem").write_bytes(before)  # as if killed between register and list
    assert (
        Authority.open(authority.folder, passphrase="correct horse").revoke(
            "a", reason="key_compromise", now=days(1)
        )
        == 0
    )
    with pytest.raises(ProtocolError, match="a is revoked"):
        trust(authority).check(roster_of(parties), leaves(*certified.values()), days(2))


def test_there_is_one_coordinator_and_a_key_is_of_one_party(
    authority: Authority, certified: dict[str, Certified], parties: dict[str, PartyKeys], tmp_path: Path
) -> None:
    second = PartyKeys.load_or_create(tmp_path / "second", name="second", role="coordinator")
    renamed = replace(parties["a"], public=parties["a"].public.model_copy(update={"name": "d"}))
    for keys in (second, renamed):
        with pytest.raises(PolicyError, match="certified already"):
            authority.sign(EnrolmentRequest.of(keys), now=NOW)
    authority.revoke("hub", reason="superseded", now=days(1))
    authority.sign(EnrolmentRequest.of(second), now=days(1))


def test_certificates_and_lists_end(
    authority: Authority, parties: dict[str, PartyKeys], certified: dict[str, Certified]
) -> None:
    roster, bundle = roster_of(parties), leaves(*certified.values())
    with pytest.raises(ProtocolError, match="revocations is out of date"):
        trust(authority).check(roster, bundle, days(LIST_DAYS + 1))
    trust(authority).check(roster, bundle, NOW - SLACK)
    with pytest.raises(ProtocolError, match="is of the future"):
        trust(authority).check(roster, bundle, days(-1))
    authority.publish(days(360))
    trust(authority).check(roster, bundle, days(364))
    with pytest.raises(ProtocolError, match="a is not certified"):
        trust(authority).check(roster, bundle, days(366))
    renewed = {
        name: authority.sign(EnrolmentRequest.of(keys), now=days(360)) for name, keys in parties.items()
    }
    trust(authority).check(roster, leaves(*renewed.values()), days(366))


def test_every_party_that_something_is_wrong_with_is_named(
    authority: Authority, parties: dict[str, PartyKeys], certified: dict[str, Certified]
) -> None:
    first, second, *_ = sorted(parties)
    authority.revoke(first, reason="superseded", now=NOW)
    bundle = leaves(*(each for name, each in certified.items() if name != second))
    with pytest.raises(ProtocolError, match=f"{first} is revoked, {second} is not certified by"):
        trust(authority).check(roster_of(parties), bundle, days(1))
    authority.publish(days(360))
    with pytest.raises(ProtocolError, match=rf"{second} is not certified since \d{{4}}-\d\d-\d\d"):
        trust(authority).check(roster_of(parties), leaves(*certified.values()), days(366))


def test_what_another_authority_certified_is_not_believed(
    authority: Authority, parties: dict[str, PartyKeys], certified: dict[str, Certified], tmp_path: Path
) -> None:
    other = Authority.create(tmp_path / "other", consortium="Fifteen", passphrase=None, now=NOW)
    theirs = other.sign(EnrolmentRequest.of(parties["a"]), now=NOW)
    bundle = [*leaves(*(each for name, each in certified.items() if name != "a")), *leaves(theirs)]
    with pytest.raises(ProtocolError, match="a is not certified"):
        trust(authority).check(roster_of(parties), bundle, days(1))
    with pytest.raises(ConfigError, match="one certificate authority"):
        Trust.of((authority.folder / "ca.pem").read_bytes(), (other.folder / "crl.pem").read_bytes())


def test_one_certificate_of_two_a_leaf_as_root_or_other_agreement_keys_are_not_enough(
    authority: Authority, parties: dict[str, PartyKeys], certified: dict[str, Certified], tmp_path: Path
) -> None:
    everybody = leaves(*certified.values())
    for missing in leaves(certified["a"]):
        with pytest.raises(ProtocolError, match="a is not certified"):
            trust(authority).check(roster_of(parties), [c for c in everybody if c != missing], days(1))
    with pytest.raises(ConfigError, match="one certificate authority"):
        Trust.of(certified["a"].mldsa65.encode(), (authority.folder / "crl.pem").read_bytes())
    stranger = PartyKeys.load_or_create(tmp_path / "stranger", name="a", role="site").public
    swapped = parties["a"].public.model_copy(update={"mlkem768": stranger.mlkem768})
    roster = Roster.of([swapped, *(keys.public for name, keys in parties.items() if name != "a")])
    with pytest.raises(ProtocolError, match="a is not certified"):
        trust(authority).check(roster, everybody, days(1))


def test_files_of_another_kind_are_refused_with_one_line(certified: dict[str, Certified]) -> None:
    assert Certified.from_bytes(certified["a"].to_bytes()) == certified["a"]
    for data in (b"", b"{}", b"[]", b"\xff", certified["a"].to_bytes()[:-1], b"x" * (1 << 21)):
        with pytest.raises(ConfigError, match="this is no"):
            Certified.from_bytes(data)
        with pytest.raises(ConfigError, match="this is no"):
            EnrolmentRequest.from_bytes(data)
    with pytest.raises(ConfigError, match="no file of certificates"):
        read_certificates(b"text")
