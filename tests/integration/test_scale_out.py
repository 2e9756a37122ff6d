"""A load's parts as mapped tasks: on two processes, on a Dask cluster and one after the other, with the same bytes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedhealth.cdm import harmonize
from fedhealth.identity import SiteSecrets
from fedhealth.synthetic.consortium import write_hospital

ROOT = Path(__file__).parents[2]
LOADS = """
import os
from distributed import LocalCluster
from prefect.client.orchestration import get_client
from fedhealth.fhir import files
from flows.site.prepare_data import data_runner, prepare_data

files.PART_BYTES = 16 * files.MEBI  # several parts of a small hospital

def load(cdm, **environ):
    flow = prepare_data.with_options(task_runner=data_runner(environ))
    print(cdm, flow(return_state=True).name)
    if os.path.exists("site/cdm"):
        os.rename("site/cdm", cdm)

if __name__ == "__main__":
    load("two", FEDHEALTH_WORKERS="2")
    with get_client(sync_client=True) as client:
        print(sorted(run.name for run in client.read_task_runs(limit=200)))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        load("cluster", FEDHEALTH_DASK=cluster.scheduler_address)
    os.environ["FEDHEALTH_SITE_FHIR"] = "unreadable"
    load("none")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """After a load by two processes, one by a cluster, and one of a file that cannot be read."""
    folder = tmp_path_factory.mktemp("loads")
    name, *_ = write_hospital(folder, 3, patients=700, seed=4)
    (folder / "large").symlink_to(folder / name)
    (folder / "unreadable").mkdir()
    (folder / "unreadable" / "Smith-1931-04-02.ndjson.gz").write_bytes(b"\x1f\x8b not gzip")
    (folder / "loads.py").write_text(LOADS)
    environ = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PYTHONPATH": str(ROOT),
        "FEDHEALTH_SITE": "large",
        "FEDHEALTH_SITE_DIR": "site",
        "FEDHEALTH_SITE_FHIR": "large/fhir",
        "FEDHEALTH_SITE_MAP": "large/site-map",
    }
    with (folder / "printed").open("w") as printed:
        subprocess.run(
            [sys.executable, "loads.py"],
            env=os.environ | environ,
            cwd=folder,
            stdout=printed,
            stderr=printed,
            timeout=400,
            check=True,
        )
    return folder


def digests(cdm):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in cdm.glob("*.parquet")}


def test_two_processes_and_a_cluster_give_the_bytes_of_one(place):
    printed = (place / "printed").read_text()
    assert "two Passed" in printed
    assert "cluster Passed" in printed
    secret = SiteSecrets.load_or_create(place / "site" / "keys").site_secret
    fhir, site_map = place / "large" / "fhir", place / "large" / "site-map"
    harmonize(fhir, place / "one", site="large", site_map=site_map, site_secret=secret)
    assert digests(place / "two") == digests(place / "cluster") == digests(place / "one") != {}


def test_every_part_is_a_task_run_of_the_flow(place):
    printed = (place / "printed").read_text()
    for part in ("harmonise", "read 0", "read 1", "validate sample", "map 000000-0000", "validate"):
        assert f"'{part}'" in printed


def test_a_part_that_cannot_be_read_fails_the_load_without_its_name(place):
    printed = (place / "printed").read_text()
    assert "none Failed" in printed
    assert "code unreadable_file" in printed
    assert "Smith" not in printed
    assert "Smith" in (place / "site" / "site.log").read_text()
