"""The demo as a user runs it: three hospitals, one round, everything real."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

FEDHEALTH = Path(sys.executable).parent / "fedhealth"
DEMO = [str(FEDHEALTH), "demo", "--hospitals", "3", "--patients", "80", "--rounds", "1"]


def clean_environment():
    dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def coordinator_of(process):
    """The coordinator's process among the demo's children, once it is there."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if "flows.coordinator.process" in child.cmdline():
                    return child
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    raise AssertionError("the demo ended without a coordinator")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished demo, and what could be seen of its coordinator's process while it ran."""
    workdir = tmp_path_factory.mktemp("demo") / "work"
    log = workdir.parent / "out.txt"
    seen = {"files": set(), "sites": set()}
    with log.open("w") as out:
        process = subprocess.Popen(
            [*DEMO, "--workdir", str(workdir)], stdout=out, stderr=subprocess.STDOUT, env=clean_environment()
        )
        child = coordinator_of(process)
        seen["arguments"], seen["environment"] = child.cmdline(), child.environ()
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                seen["files"] |= {each.path for each in child.open_files()}
            time.sleep(0.02)
    return workdir, log.read_text(), process.returncode, seen


def report_of(workdir):
    return json.loads((workdir / "report.json").read_text())


def test_it_ends_well_with_the_table_on_screen(demo):
    workdir, output, code, _ = demo
    assert code == 0, output
    assert "secure + DP" in output
    assert "centralised" in output
    assert "Not covered by epsilon" in output
    assert (workdir / "report.html").read_text().startswith("<!doctype html>")


def test_the_report_has_the_documented_keys(demo):
    report = report_of(demo[0])
    for key in (
        "schema_version",
        "study",
        "sites",
        "rounds",
        "comparison",
        "privacy",
        "seconds",
        "model",
        "log",
    ):
        assert key in report
    assert {row["model"] for row in report["comparison"]} >= {
        "local_mean",
        "federated_naive",
        "federated",
        "federated_dp",
        "centralised",
    }
    assert [study["privacy"]["mode"] for study in report["studies"]] == ["local", "local"]
    assert report["epsilon_sum"] == pytest.approx(sum(s["privacy"]["epsilon"] for s in report["studies"]))
    assert report["log"]["verified"] is True
    assert report["privacy"]["not_covered"]


def test_the_registered_models_load_and_score(demo, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    from fedhealth.registry import Registry, artifact_folder, store_uri

    workdir = demo[0]
    registry = Registry(store_uri(workdir), artifact_root=artifact_folder(workdir))
    for study in report_of(workdir)["studies"]:
        model = registry.load(study["model"]["name"], int(study["model"]["version"]))
        example = model.input_example
        scores = model.predict(example)
        assert len(scores) == len(example)
        assert ((scores >= 0) & (scores <= 1)).all()


def test_the_coordinator_never_learns_a_sites_folder(demo):
    workdir, _, _, seen = demo
    sites = str(workdir / "sites")
    data = str(workdir / "consortium")
    told = [*seen["arguments"], *seen["environment"].values(), *seen["files"]]
    assert seen["files"]
    assert [each for each in told if sites in each or data in each] == []


def test_no_flow_parameter_of_the_coordinator_names_a_sites_folder(demo):
    import sqlite3

    database = sqlite3.connect(demo[0] / "prefect" / "prefect.db")
    rows = database.execute(
        "select f.name, r.parameters from flow_run r join flow f on f.id = r.flow_id "
        "where f.name in ('run_study', 'federated_round')"
    ).fetchall()
    database.close()
    assert len(rows) == 2 * (1 + 3)
    assert [
        parameters for _, parameters in rows if "/sites" in parameters or "consortium" in parameters
    ] == []


def audit(*arguments):
    command = [str(FEDHEALTH), "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)


def verify(path):
    return audit("verify", path)


def test_a_models_history_goes_into_one_file_that_verifies_by_itself(demo, tmp_path):
    bundle = tmp_path / "history.zip"
    told = report_of(demo[0])["model"]
    exported = audit("export", demo[0], "--out", bundle)
    assert exported.returncode == 0, exported.stderr
    assert f"{told['name']}/{told['version']}" in exported.stdout
    good = audit("verify", bundle, "--replay")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "replayed" in good.stdout
    assert "co-signed by" in good.stdout
    assert f"{told['name']}/{told['version']} of run" in good.stdout
    other = audit("verify", bundle, "--roster", "0" * 64)
    assert other.returncode == 1
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "edited.zip").write_bytes(data)
    assert verify(tmp_path / "edited.zip").returncode != 0
    assert audit("export", demo[0], "--model", "nobody/1", "--out", tmp_path / "n.zip").returncode == 2


def test_the_history_verifies_and_any_edit_is_found(demo):
    workdir = demo[0]
    good = verify(workdir)
    assert good.returncode == 0, good.stderr
    victims = [
        next((workdir / "exchange" / "log" / "entries").iterdir()),
        next((workdir / "exchange" / "runs").rglob("masked/hospital-01")),
        next((workdir / "mlflow" / "artifacts").rglob("weights.safetensors")),
    ]
    for victim in victims:
        original = victim.read_bytes()
        victim.chmod(0o600)
        victim.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        bad = verify(workdir)
        victim.write_bytes(original)
        assert bad.returncode == 1, victim
        assert "history is not proven" in bad.stderr
    assert verify(workdir).returncode == 0


def test_an_edited_digest_tag_of_the_registered_model_is_found(demo):
    import sqlite3

    workdir = demo[0]
    path = workdir / "mlflow" / "mlflow.db"
    with sqlite3.connect(path) as database:
        changed = database.execute(
            "update model_version_tags set value = 'f' || substr(value, 2) where key = 'fedhealth.log_digest'"
        ).rowcount
        changed += database.execute(
            "update model_version_tags set value = 'e' || substr(value, 2) where key = 'fedhealth.log_digest' "
            "and value like 'ff%'"
        ).rowcount
    assert changed
    assert verify(workdir).returncode == 1


def test_the_demo_may_be_repeated_in_the_same_place(demo):
    workdir = demo[0]
    again = subprocess.run(
        [*DEMO, "--workdir", str(workdir)],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert report_of(workdir)["model"]["version"] == "2"
