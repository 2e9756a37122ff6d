"""A real ``mlflow server`` on PostgreSQL that proxies its artifacts: record, register, load back."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulator.postgres import start_postgres

from fedhealth.errors import TransportError
from fedhealth.models.inputs import RawInputs
from fedhealth.models.networks import initial_weights
from fedhealth.models.scoring import predict
from fedhealth.models.statistics import Statistics
from fedhealth.registry import Registry
from fedhealth.study import Study, load_study
from fedhealth.study.columns import feature_columns
from fedhealth.synthetic import write_consortium

STUDY_FILE = Path(__file__).parents[2] / "infra" / "studies" / "demo-readmission.yaml"
_START_S = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server with its database and artifacts in a temporary folder."""
    folder = tmp_path_factory.mktemp("mlflow")
    database = _start_postgres(folder / "postgres")
    port = _free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", database, "--serve-artifacts"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}", process, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _start_postgres(folder: Path) -> str:
    postgres = start_postgres(folder)
    postgres.psql("CREATE DATABASE mlflow")
    return str(postgres.get_uri("mlflow")).replace("postgresql://", "postgresql+psycopg2://", 1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"mlflow server did not start: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(STUDY_FILE)


@pytest.mark.slow
def test_an_embedded_run_is_recorded_attached_and_verified_on_a_server(server: str, tmp_path: Path) -> None:
    write_consortium(tmp_path / "data", hospitals=3, patients=60, seed=5)
    text = STUDY_FILE.read_text().replace("rounds: 10", "rounds: 1")
    (tmp_path / "study.yaml").write_text(text.replace("name: demo-readmission-30d", "name: on-a-server"))

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        command = [str(Path(sys.executable).parent / "fedhealth"), *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=kept | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    consortium = ("--consortium", "data/consortium.yaml")
    ran = run("study", "run", "study.yaml", *consortium, "--workdir", "work", MLFLOW_TRACKING_URI=server)
    assert ran.returncode == 0, ran.stderr
    assert server in ran.stdout
    assert not (tmp_path / "work" / "mlflow" / "mlflow.db").exists()
    registry = Registry(server, artifact_root=None)
    assert ("on-a-server", 1) in registry.versions()
    assert json.loads((tmp_path / "work" / "report.json").read_text())["log"]["verified"] is True
    assert run("audit", "verify", "work").returncode == 0
    with urllib.request.urlopen(
        f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name=on-a-server"
    ) as got:
        experiment = json.load(got)["experiment"]["experiment_id"]
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/runs/search",
        data=json.dumps({"experiment_ids": [experiment]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as got:
        runs = json.load(got)["runs"]
    study_runs = [each["info"]["run_id"] for each in runs if "round" not in each["info"]["run_name"]]
    assert len(study_runs) == 1
    with urllib.request.urlopen(f"{server}/api/2.0/mlflow/artifacts/list?run_id={study_runs[0]}") as got:
        assert {"report.html", "report.json"} <= {each["path"] for each in json.load(got)["files"]}


@pytest.mark.slow
def test_a_study_is_recorded_registered_and_loaded_through_a_server(
    server: str, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    columns = feature_columns(study)
    middle = np.array([(column.low + column.high) / 2 for column in columns], dtype=np.float32)
    statistics = Statistics(
        mean=middle, sd=np.ones_like(middle), median=middle, count=np.full(len(columns), 99.0)
    )
    weights = initial_weights(study, inputs=len(columns), seed=3)

    registry = Registry(server, artifact_root=None)
    run = registry.start_study_run(study.name, "run-1", params={"epsilon": 3.0}, tags={"mode": "deployed"})
    for number in range(3):
        run.log_round(
            number,
            {"auroc": 0.7},
            params={"sites": 3},
            digests={"model": "ab"},
            log_index=number,
            duration_s=1.0,
        )
    model = registry.register(run, weights, statistics, study, metrics={"auroc": 0.75}, tags={"log_index": 3})
    run.finish(succeeded=True)

    other = Registry(server, artifact_root=None)
    assert other.model_file_digests(model.name, model.version) == model.file_digests
    assert other.model_tags(model.name, model.version)["study_digest"] == study.digest
    rows = np.tile(middle, (4, 1))
    table = pd.DataFrame(rows.astype(np.float64), columns=pd.Index([c.name for c in columns], dtype=object))
    scores = other.load(model.name, model.version).predict(table)
    np.testing.assert_array_equal(scores, predict(weights, statistics, study, RawInputs(rows))[:, 0])
    [found] = other.search(study.name)
    assert (found.run_id, found.status, found.metrics["auroc"]) == ("run-1", "FINISHED", 0.75)


@pytest.mark.slow
def test_a_server_that_is_gone_is_a_transport_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransportError, match="open the MLflow store"):
        Registry(f"http://127.0.0.1:{_free_port()}", artifact_root=None)
