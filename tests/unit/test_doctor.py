"""What the doctor says about rooms, ports and servers."""

import socket

from fedhealth.doctor import run_checks


def by_name(results):
    return {result.name: result for result in results}


def test_a_port_in_use_is_found_with_a_fix(tmp_path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        result = by_name(run_checks(workdir=tmp_path, ports={"MLflow": port}))[f"port {port} (MLflow UI)"]
    assert not result.ok
    assert str(port) in result.fix


def test_a_server_that_does_not_answer_is_found(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    result = by_name(run_checks(workdir=tmp_path, ports={}))["PREFECT_API_URL"]
    assert not result.ok
    assert "PREFECT_API_URL" in result.fix


def test_this_installation_is_healthy(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results = run_checks(workdir=tmp_path / "not" / "yet", ports={})
    assert [result.name for result in results if not result.ok] == []
