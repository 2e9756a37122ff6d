"""prepare_data: a hospital's nightly load, FHIR to validated CDM.

Runs on the site's own worker, whose environment names the folders (FEDHEALTH_SITE, FEDHEALTH_SITE_DIR,
FEDHEALTH_SITE_FHIR or FEDHEALTH_SITE_OMOP, FEDHEALTH_SITE_MAP). When it fails, read site.log in the site's folder: no
detail that could hold a patient value leaves it. A site whose data fail the gate abstains from rounds until a load passes.

Its parts are mapped tasks: one after the other, or on FEDHEALTH_WORKERS processes of this machine, or on the Dask cluster
whose scheduler FEDHEALTH_DASK names. A cluster's workers have the same environment and see the same folders.
"""

import os
from collections.abc import Mapping
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from fedhealth.config import FhirValidation
from fedhealth.errors import ConfigError
from tasks.site.data import harmonise, validate


def data_runner(environ: Mapping[str, str]) -> TaskRunner[Any]:
    """Where the parts of a load run, by the worker's environment.

    Raises:
      ConfigError: FEDHEALTH_WORKERS is no number of processes.
    """
    if scheduler := environ.get("FEDHEALTH_DASK"):
        return DaskTaskRunner(address=scheduler)
    workers = environ.get("FEDHEALTH_WORKERS", "1")
    if not workers.isdecimal() or int(workers) < 1:
        raise ConfigError("FEDHEALTH_WORKERS is no number of processes", "set it to 1 or more")
    if int(workers) == 1:
        return ThreadPoolTaskRunner(max_workers=1)
    return DaskTaskRunner(
        cluster_kwargs={"n_workers": int(workers), "threads_per_worker": 1, "dashboard_address": None}
    )


@flow(name="prepare_data", persist_result=False, task_runner=data_runner(os.environ))
def prepare_data(fhir_validation: FhirValidation = "sample") -> State[None]:
    """Harmonise and validate this worker's site.

    Args:
      fhir_validation: how much fhir.resources checks: ``all``, ``sample`` or ``off``.
    """
    harmonise(fhir_validation)
    verdict = validate()
    return Completed(name="Passed" if verdict == "passed" else "Abstains", message=f"validation: {verdict}")
