"""`fedhealth pki` as an authority, a coordinator and two hospitals use it: every step a process, every party a folder."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from shutil import copy, copytree

import pytest
from simulator.network import SITES, Network, make_study

from fedhealth.audit import verify_exchange
from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.exchange import FolderExchange
from fedhealth.identity import PartyKeys
from fedhealth.identity.authority import Authority
from fedhealth.identity.certificates import EnrolmentRequest, Trust, read_certificates
from fedhealth.rounds.pinned_roster import read_roster

FEDHEALTH = str(Path(sys.executable).with_name("fedhealth"))
PARTIES = {"coordinator": "coordinator", "hospital-01": "site", "hospital-02": "site"}
DAY = 86_400.0


def pki(folder, *arguments, answer=None, passphrase="correct horse"):
    """(exit code, what it said)."""
    done = subprocess.run(
        [FEDHEALTH, "pki", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "FEDHEALTH_CA_PASSPHRASE": passphrase},
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def must(folder, *arguments, **options):
    code, said = pki(folder, *arguments, **options)
    assert code == 0, said
    return said


def deliver(consortium, *names):
    """Put files of the coordinator's package into every party's folder."""
    for party in PARTIES:
        for name in names:
            copy(consortium / "package" / name, consortium / party / name)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consortium")
    said = must(folder, "init", "ca", "--consortium", "Fifteen")
    for name, role in PARTIES.items():
        asked = ("enroll", name, "--name", name, "--role", role, "--ca", "ca/ca.pem")
        told = must(folder, *asked, answer="y\n")
        assert f"Fifteen: {said.strip().splitlines()[-1]}" in told
        fingerprint = told.strip().splitlines()[-1]
        signed = must(folder, "sign", "ca", f"{name}.request.json", answer="y\n")
        assert f"{role} {name}: {fingerprint}" in signed
    issued = [f"ca/issued/{name}.json" for name in PARTIES]
    must(folder, "roster", "coordinator", *issued, "--crl", "ca/crl.pem", "--out", "package")
    deliver(folder, "roster.json", "certificates.pem", "crl.pem")
    assert len(said.strip().splitlines()[-1].split()) == 16
    return folder


def test_every_party_believes_the_roster_that_the_authority_certified(consortium):
    rosters = {
        read_roster(consortium / name, expected_digest=None, now=time.time()).digest for name in PARTIES
    }
    assert len(rosters) == 1
    for name in PARTIES:
        for path in (consortium / name / "keys").iterdir():
            assert path.stat().st_mode & 0o077 == 0


def test_a_coordinator_cannot_put_a_hospital_of_its_own_into_the_roster(consortium, tmp_path):
    """An impostor's authority certifies a third hospital; the coordinator signs a roster with it."""
    must(tmp_path, "init", "ca", "--consortium", "Fifteen")
    must(tmp_path, "enroll", "sybil", "--name", "sybil", "--ca", "ca/ca.pem", "--yes")
    must(tmp_path, "sign", "ca", "sybil.request.json", "--yes")
    issued = [consortium / "ca" / "issued" / f"{name}.json" for name in PARTIES]
    package = ["--crl", consortium / "ca" / "crl.pem", "--out", tmp_path / "package"]
    code, said = pki(
        tmp_path, "roster", consortium / "coordinator", *issued, tmp_path / "ca/issued/sybil.json", *package
    )
    assert code != 0
    assert "sybil is not certified" in said
    assert not (tmp_path / "package").exists()


def test_who_is_not_what_was_read_out_is_not_certified(consortium):
    late = ("enroll", "late", "--name", "hospital-09", "--ca")
    code, said = pki(consortium, *late, "ca/ca.pem", answer="n\n")
    assert code == 2
    assert "is not the authority's" in said
    code, said = pki(consortium, *late, "hospital-01.request.json", "--yes")
    assert (code, "no authority's certificate" in said) == (2, True)
    assert not (consortium / "late").exists()
    must(consortium, *late, "ca/ca.pem", "--yes")
    said = must(consortium, "sign", "ca", "hospital-09.request.json", answer="n\n")
    assert "hospital-09 is not certified" in said
    assert not (consortium / "ca" / "issued" / "hospital-09.json").exists()
    code, said = pki(consortium, "sign", "ca", "hospital-09.request.json", passphrase="wrong")
    assert code != 0
    assert "cannot be opened" in said


def test_a_check_says_what_was_checked(consortium, tmp_path):
    said = must(consortium, "check", "hospital-01")
    digest = read_roster(consortium / "hospital-01", expected_digest=None, now=time.time()).digest
    for line in (
        "keys: of the site hospital-01",
        "roster.json: signed by coordinator; 2 sites: hospital-01, hospital-02",
        f"its digest: {digest}",
        "certificates.pem: each of them is certified and not revoked; all certificates until",
        "crl.pem: number 1, good until",
    ):
        assert line in said
    copytree(consortium / "hospital-01", tmp_path / "other")
    (tmp_path / "other" / "keys" / "keys.json").unlink()
    code, said = pki(tmp_path, "check", "other")
    assert (code, "keys.json is missing" in said, "pki enroll" in said) == (2, True, True)
    PartyKeys.load_or_create(tmp_path / "other" / "keys", name="hospital-01", role="site")
    code, said = pki(tmp_path, "check", "other")
    assert (code, "does not list the site hospital-01 with the keys in this folder" in said) == (2, True)


def test_keys_under_a_passphrase_ask_for_it(consortium, tmp_path):
    copytree(consortium / "hospital-01", tmp_path / "sealed")
    (tmp_path / "sealed" / "keys" / "keys.json").unlink()
    PartyKeys.load_or_create(tmp_path / "sealed" / "keys", name="hospital-01", role="site", passphrase="open")
    enroll = ("enroll", "sealed", "--name", "hospital-01", "--ca", consortium / "ca" / "ca.pem", "--yes")
    for arguments in (("check", "sealed"), enroll):
        code, said = pki(tmp_path, *arguments)
        assert code == 2
        assert "keys.json is under a passphrase. Fix: set FEDHEALTH_KEY_PASSPHRASE" in said
        assert "Traceback" not in said


def test_an_unknown_reason_is_told_the_known_ones(consortium):
    code, said = pki(consortium, "revoke", "ca", "hospital-02", "--reason", "stolen")
    assert code == 2
    assert "--reason stolen is not known. Fix: use key_compromise or cessation_of_operation or" in said
    assert not json.loads((consortium / "ca" / "issued" / "hospital-02.json").read_text()).get("revoked")
    assert "privilege_withdrawn" in must(consortium, "revoke", "--help")


def test_a_revoked_hospital_stops_the_roster_and_an_old_list_does_not_bring_it_back(consortium):
    folder, before = consortium / "hospital-01", (consortium / "ca" / "crl.pem").read_bytes()
    must(consortium, "revoke", "ca", "hospital-02")
    copy(consortium / "ca" / "crl.pem", folder / "crl.pem")
    with pytest.raises(ProtocolError, match="hospital-02 is revoked"):
        read_roster(folder, expected_digest=None, now=time.time())
    (folder / "crl.pem").write_bytes(before)  # the list has done its work, and is not forgotten
    with pytest.raises(ProtocolError, match="number 2 was here before"):
        read_roster(folder, expected_digest=None, now=time.time())
    assert not (consortium / "ca" / "issued" / "hospital-02.json").exists()
    must(consortium, "show", "ca", "--publish", "--json", "listed.json")
    listed = json.loads((consortium / "listed.json").read_text())["issued"]
    assert [each["name"] for each in listed if each["revoked"]] == ["hospital-02"]
    package = ["--crl", "ca/crl.pem", "--out", "package"]
    left = [f"ca/issued/{name}.json" for name in PARTIES if name != "hospital-02"]
    must(consortium, "roster", "coordinator", *left, *package)
    deliver(consortium, "roster.json", "certificates.pem", "crl.pem")
    assert read_roster(folder, expected_digest=None, now=time.time()).sites == ("hospital-01",)
    (folder / "crl.pem").write_bytes(before)
    with pytest.raises(ProtocolError, match="number 3 was here before"):
        read_roster(folder, expected_digest=None, now=time.time())
    deliver(consortium, "crl.pem")
    with pytest.raises(ProtocolError, match="out of date"):
        read_roster(folder, expected_digest=None, now=time.time() + 31 * DAY)
    assert "all certificates until" in must(consortium, "check", "hospital-01")
    for name in ("certificates.pem", "ca.pem"):  # what was pinned once is needed for ever
        (folder / name).rename(folder / f"{name}.away")
        with pytest.raises(ConfigError, match=f"{name} is missing"):
            read_roster(folder, expected_digest=None, now=time.time())
        code, said = pki(consortium, "check", "hospital-01")
        assert (code, f"{name} is missing" in said) == (2, True)
        (folder / f"{name}.away").rename(folder / name)


def test_who_pins_nothing_believes_nothing(tmp_path):
    network = Network(tmp_path, make_study())
    hub = PartyKeys.load_or_create(tmp_path / "coordinator" / "keys", name="coordinator", role="coordinator")
    folder = tmp_path / SITES[0]
    (folder / "roster.json").write_bytes(hub.sign_roster(network.roster).to_bytes())
    with pytest.raises(ConfigError, match="pins neither"):
        read_roster(folder, expected_digest=None, now=0.0)
    assert read_roster(folder, expected_digest=network.roster.digest, now=0.0) == network.roster


def test_another_authority_does_not_replace_the_pinned_one(consortium, tmp_path):
    must(tmp_path, "init", "ca", "--consortium", "Fifteen")
    code, said = pki(
        consortium, "enroll", "hospital-01", "--name", "hospital-01", "--ca", tmp_path / "ca" / "ca.pem"
    )
    assert code == 2
    assert "another authority's" in said


def test_a_run_logs_who_was_certified_and_who_was_revoked(tmp_path):
    study = make_study()
    network = Network(tmp_path / "network", study)
    now = datetime.now(UTC).replace(microsecond=0)
    authority = Authority.create(tmp_path / "ca", consortium="Three", passphrase=None, now=now)
    hub = PartyKeys.load_or_create(
        network.folder / "coordinator" / "keys", name="coordinator", role="coordinator"
    )
    parties = [hub, *network.keys.values()]
    certified = [authority.sign(EnrolmentRequest.of(keys), now=now) for keys in parties]
    pems = "".join(each.ed25519 + each.mldsa65 for each in certified)
    (network.folder / "coordinator" / "certificates.pem").write_text(pems)
    for name in ("ca.pem", "crl.pem"):
        copy(authority.folder / name, network.folder / "coordinator" / name)
    network.coordinator.start_run(study, run="run-1", seed=7)
    network.coordinator.log.checkpoint()
    board, roster = network.coordinator.board, network.roster
    (key,) = board.list(f"epochs/{roster.digest}/certificates/1-")
    told = json.loads(board.read(key, kind="certificates", sender="coordinator", role="coordinator").payload)
    trust = Trust.of(told["authority"].encode(), told["revoked"].encode())
    trust.check(roster, read_certificates(told["certificates"].encode()), now)
    exchange, signed = FolderExchange(network.folder / "exchange"), hub.sign_roster(roster)
    assert verify_exchange(exchange, signed).ok
    (network.folder / "exchange" / key).unlink()
    assert not verify_exchange(exchange, signed).ok
