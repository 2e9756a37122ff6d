"""Every deployment of prefect.yaml, run once by a process worker against a real Prefect server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from shutil import copy

import httpx
import pytest
import yaml

from fedhealth.config import Workdir
from fedhealth.identity import PartyKeys, Roster
from fedhealth.identity.authority import Authority
from fedhealth.identity.certificates import EnrolmentRequest
from fedhealth.registry import Registry, artifact_folder, store_uri
from fedhealth.rounds.coordinator_environment import coordinator_from_environment
from fedhealth.study import load_study
from fedhealth.synthetic import write_consortium

ROOT = Path(__file__).parents[2]
SITES = ("hospital-01", "hospital-02", "hospital-03")
START_S, RUN_S, STOP_S = 120, 400, 20

pytestmark = pytest.mark.slow


def clean_environment(**changes):
    dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    quiet = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    }
    return kept | quiet | {name: str(value) for name, value in changes.items()}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def prefect(*arguments, env):
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=True)


def small_study(folder):
    """The demo's readmission study with one round of training."""
    document = yaml.safe_load((ROOT / "infra" / "studies" / "demo-readmission.yaml").read_text())
    document["name"], document["training"]["rounds"] = "deployed", 1
    document["cohort"]["min_patients"] = 11
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class Deployed:
    """A server, a worker per zone, keys and a pinned roster; folders are known to the workers' environments."""

    def __init__(self, folder):
        self.folder = folder
        self.study = small_study(folder)
        self.url = f"http://127.0.0.1:{free_port()}/api"
        self.base = clean_environment(
            PREFECT_HOME=folder / "prefect", PREFECT_API_URL=self.url, FEDHEALTH_HOME=ROOT
        )
        self.processes = []
        write_consortium(folder / "data", hospitals=3, patients=160, seed=3)
        self.enrol()

    def site(self, name):
        return self.folder / "sites" / name

    @property
    def coordinator(self):
        return {
            "FEDHEALTH_EXCHANGE": str(self.folder / "exchange"),
            "FEDHEALTH_COORDINATOR": str(self.folder / "coordinator"),
            "MLFLOW_TRACKING_URI": store_uri(self.folder),
            "FEDHEALTH_MLFLOW_ARTIFACTS": str(artifact_folder(self.folder)),
            "FEDHEALTH_SITE_DEPLOYMENTS": json.dumps([f"train_round/{name}" for name in SITES]),
        }

    def enrol(self):
        keys = {
            name: PartyKeys.load_or_create(self.site(name) / "keys", name=name, role="site") for name in SITES
        }
        own = PartyKeys.load_or_create(
            self.folder / "coordinator" / "keys", name="coordinator", role="coordinator"
        )
        signed = own.sign_roster(Roster.of((own.public, *(each.public for each in keys.values()))))
        now = datetime.now(UTC).replace(microsecond=0)
        authority = Authority.create(self.folder / "ca", consortium="Three", passphrase=None, now=now)
        certified = [authority.sign(EnrolmentRequest.of(each), now=now) for each in (own, *keys.values())]
        pems = "".join(each.ed25519 + each.mldsa65 for each in certified).encode()
        for folder in (self.folder / "coordinator", *(self.site(name) for name in SITES)):
            (folder / "roster.json").write_bytes(signed.to_bytes())
            (folder / "certificates.pem").write_bytes(pems)
            for name in ("ca.pem", "crl.pem"):
                copy(authority.folder / name, folder / name)

    def start(self, *arguments, **environment):
        with (self.folder / f"process-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.folder,
                env=self.base | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)

    def start_server(self):
        port = self.url.split(":")[2].split("/")[0]
        self.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.5)
        raise AssertionError("the Prefect server did not start")

    def start_workers(self):
        for pool in ("coordinator", "embedded", *SITES):
            prefect("work-pool", "create", pool, "--type", "process", env=self.base)
        for name in SITES:
            self.start(
                *("prefect", "worker", "start", "--pool", name),
                FEDHEALTH_SITE=name,
                FEDHEALTH_SITE_DIR=str(self.site(name)),
                FEDHEALTH_SITE_FHIR=str(self.folder / "data" / name / "fhir"),
                FEDHEALTH_SITE_MAP=str(self.folder / "data" / name / "site-map"),
                FEDHEALTH_EXCHANGE=str(self.folder / "exchange"),
            )
        self.start("prefect", "worker", "start", "--pool", "coordinator", **self.coordinator)
        self.start(
            *("prefect", "worker", "start", "--pool", "embedded"),
            FEDHEALTH_CONSORTIUM=str(self.folder / "data" / "consortium.yaml"),
            FEDHEALTH_WORKDIR=str(self.folder / "ad-hoc"),
        )

    def post(self, path, body=None):
        """Ask as Prefect's own client does: again while the server's SQLite is locked (503)."""
        for pause in (1, 2, 4, 8, 0):
            answer = httpx.post(f"{self.url}{path}", json=body or {}, timeout=60)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(pause)
        answer.raise_for_status()
        return answer.json()

    def begin(self, deployment, **parameters):
        found = httpx.get(f"{self.url}/deployments/name/{deployment}", timeout=30).json()
        return self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]

    def end_of(self, flow_run):
        """The final state of a flow run: type, name and message."""
        deadline = time.monotonic() + RUN_S
        while time.monotonic() < deadline:
            state = httpx.get(f"{self.url}/flow_runs/{flow_run}", timeout=30).json()["state"]
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                return state
            time.sleep(0.5)
        raise AssertionError(f"the flow run did not end in {RUN_S} s; its state is {state['name']}")

    def runs_of(self, deployment):
        found = httpx.get(f"{self.url}/deployments/name/{deployment}", timeout=30).json()
        return self.post("/flow_runs/filter", {"deployments": {"id": {"any_": [found["id"]]}}})

    def logs(self):
        return "\n".join(
            path.read_text(errors="replace")[-3000:] for path in self.folder.glob("process-*.log")
        )

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in self.processes:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    consortium = Deployed(tmp_path_factory.mktemp("deployed"))
    try:
        consortium.start_server()
        consortium.start_workers()
        prefect("deploy", "--all", env=consortium.base)
        yield consortium
    finally:
        consortium.stop()


def test_every_deployment_is_there_and_the_nightly_load_is_scheduled_at_two(deployed):
    found = {each["name"]: each for each in deployed.post("/deployments/filter")}
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert len(deployed.post("/deployments/filter")) == len(declared)
    nightly = [each for each in deployed.post("/deployments/filter") if each["schedules"]]
    assert sorted(each["name"] for each in nightly) == list(SITES)
    assert {each["schedules"][0]["schedule"]["cron"] for each in nightly} == {"0 2 * * *"}
    assert "ad-hoc" in found


def test_each_hospitals_worker_loads_its_data(deployed):
    runs = [deployed.begin(f"prepare_data/{name}") for name in SITES]
    for name, run in zip(SITES, runs, strict=True):
        state = deployed.end_of(run)
        assert (state["type"], state["name"]) == ("COMPLETED", "Passed"), (state, deployed.logs())
        assert (deployed.site(name) / "cdm" / "accounting.json").exists()


def test_a_site_with_nothing_to_answer_says_so(deployed):
    run = deployed.begin("train_round/hospital-01")
    assert deployed.end_of(run)["message"] == "nothing open"


def test_an_open_round_is_closed_by_three_site_deployments_and_the_study_goes_on_to_a_model(deployed):
    node = coordinator_from_environment(deployed.coordinator)
    node.start_run(load_study(deployed.study), run="deployed-run", seed=0)
    before = {name: len(deployed.runs_of(f"train_round/{name}")) for name in SITES}
    state = deployed.end_of(deployed.begin("federated_round/coordinator"))
    assert (state["type"], state["message"]) == ("COMPLETED", "round 0 closed with 3 sites"), deployed.logs()
    for name in SITES:
        assert len(deployed.runs_of(f"train_round/{name}")) == before[name] + 1

    study = deployed.begin("run_study/coordinator", study=str(deployed.study), run="deployed-run")
    state = deployed.end_of(study)
    assert state["type"] == "COMPLETED", (state, deployed.logs())
    assert state["message"] == "registered deployed version 1"
    registry = Registry(store_uri(deployed.folder), artifact_root=artifact_folder(deployed.folder))
    assert registry.versions() == (("deployed", 1),)


def test_an_ad_hoc_run_of_a_small_study_ends_in_a_registered_model_and_a_verified_log(deployed):
    state = deployed.end_of(deployed.begin("embedded_study/ad-hoc", studies=[str(deployed.study)]))
    assert state["type"] == "COMPLETED", (state, deployed.logs())
    place = Workdir(deployed.folder / "ad-hoc")
    report = json.loads(place.report_json.read_text())
    assert report["model"]["name"] == "deployed"
    assert report["log"]["verified"] is True
    rounds = deployed.post("/flow_runs/filter", {"flows": {"name": {"any_": ["federated_round"]}}})
    assert any(each["name"].startswith("deployed-") for each in rounds)


def test_no_flow_parameter_names_a_folder_of_a_site(deployed):
    runs = deployed.post("/flow_runs/filter")
    told = json.dumps([run["parameters"] for run in runs])
    assert len(runs) >= 12
    for name in SITES:
        assert str(deployed.site(name)) not in told
        assert str(deployed.folder / "data" / name) not in told
