"""What `fedhealth audit verify` says of a working directory: of a run that was refused in round 0, and of what is no run."""

import json
from dataclasses import replace

import pytest
from simulator.commands import refused, run
from simulator.network import TIMEOUTS, Network, make_study

from fedhealth.embedded.history import verify_workdir
from fedhealth.errors import ConfigError, PolicyError, ProtocolError

pytestmark = pytest.mark.slow


@pytest.fixture
def workdir(tmp_path):
    """That of a run for which no site was ready."""
    folder = tmp_path / "work"
    network = Network(folder, make_study(), timeouts=replace(TIMEOUTS, ready_timeout_s=0.1))
    (folder / "roster.json").write_bytes(network.coordinator_keys.sign_roster(network.roster).to_bytes())
    network.coordinator.start_run(network.study, run="run-1", seed=1)
    network.coordinator.open_round("run-1", 0)
    with pytest.raises(PolicyError, match="0 sites are ready"):
        network.coordinator.wait_for_sites("run-1", 0)
    return folder


def test_a_refused_run_is_said_to_have_released_nothing(workdir, tmp_path):
    digest = verify_workdir(str(workdir))["roster"]
    result = run(tmp_path, "audit", "verify", "work", "--roster", digest, "--replay", "--json", "told.json")
    assert result.returncode == 0, result.stderr
    assert "nothing was released, so no model is proven; what is there checks out" in result.stdout
    assert f"roster {digest}" in result.stdout
    told = json.loads((tmp_path / "told.json").read_bytes())
    assert (told["ok"], told["released"], told["roster"]) == (True, [], digest)


def test_the_roster_that_is_known_from_elsewhere_is_held_against_a_working_directory(workdir, tmp_path):
    digest = verify_workdir(str(workdir))["roster"]
    assert verify_workdir(str(workdir), roster_digest=digest)["ok"]
    assert not verify_workdir(str(workdir), roster_digest="0" * 64)["ok"]
    wrong = run(tmp_path, "audit", "verify", "work", "--roster", "0" * 64)
    refused(wrong, 1, f"is of the roster {digest}", "ask the coordinator")
    assert "verified" not in wrong.stdout
    refused(run(tmp_path, "audit", "verify", "work", "--roster", digest[:16]), 2, "all 64 hexadecimal digits")


def test_an_edit_of_a_refused_run_is_found(workdir):
    entry = workdir / "exchange" / "log" / "entries" / "00000001"
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(data)
    assert not verify_workdir(str(workdir))["ok"]


def test_what_holds_no_run_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("text")
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and no more")
    refused(run(tmp_path, "audit", "verify", "nowhere"), 2, "nowhere does not exist")
    refused(run(tmp_path, "audit", "verify", "empty"), 2, "empty holds no run")
    refused(run(tmp_path, "audit", "verify", "text.zip"), 2, "is no bundle")
    refused(run(tmp_path, "audit", "verify", "cut.zip"), 2, "cut off or damaged", "copy the bundle again")


def test_a_damaged_file_of_a_working_directory_is_named(workdir):
    (workdir / "report.json").write_text('{"log": ')
    with pytest.raises(ConfigError, match=r"report.json is damaged"):
        verify_workdir(str(workdir))
    (workdir / "report.json").unlink()
    (workdir / "roster.json").write_text("{}")
    with pytest.raises(ProtocolError, match=r"roster.json: a signed roster"):
        verify_workdir(str(workdir))


def test_a_working_directory_in_which_no_run_began_holds_none(tmp_path):
    network = Network(tmp_path, make_study())
    (tmp_path / "roster.json").write_bytes(network.coordinator_keys.sign_roster(network.roster).to_bytes())
    with pytest.raises(ConfigError, match="holds no run"):
        verify_workdir(str(tmp_path))
