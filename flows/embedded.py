"""embedded_study: both zones on one machine, for the demo, for ad-hoc runs and for `fedhealth study run`.

The launcher knows the sites' folders through ``consortium.yaml`` and holds no keys; each site is a process of its
own, and so is the coordinator, which runs `run_study` and `federated_round` and never learns a site's folder. If it
fails, the message says what to do; logs are in ``WORKDIR/sites/SITE/site.log`` and ``WORKDIR/coordinator/coordinator.log``.
"""

import os

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from fedhealth.config import FhirValidation
from fedhealth.embedded.launch import LaunchSettings, open_launch
from flows.flow_runs import tag_this_run
from tasks.embedded.consortium import await_run, enrol_parties, train_references, verify_log, write_report
from tasks.embedded.sites import build_rows, follow_runs, harmonise_site, validate_site


def _run_name() -> str:
    return f"embedded {runtime.flow_run.parameters.get('label')}"


@flow(
    name="embedded_study",
    flow_run_name=_run_name,
    persist_result=False,
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]  # invariant in Prefect
)
def embedded_study(
    studies: tuple[str, ...] = ("infra/studies/readmission.yaml",),
    consortium: str = os.environ.get("FEDHEALTH_CONSORTIUM", "consortium/consortium.yaml"),
    workdir: str = os.environ.get("FEDHEALTH_WORKDIR", "fedhealth-work"),
    references: bool = False,
    seed: int = 0,
    fhir_validation: FhirValidation = "sample",
    label: str = "study",
) -> State[None]:
    """Run studies over a consortium of folders, from FHIR to the registered models and the report.

    Args:
      studies: study files, run one after the other over the same sites.
      consortium: a ``consortium.yaml``: names, FHIR (or OMOP) folders and map folders of the sites.
      workdir: where everything is kept; keys found there are reused.
      references: also train local-only and centralised models (pools the data on this machine).
      seed: of everything that is not secret.
      fhir_validation: how much fhir.resources checks: ``all``, ``sample`` or ``off``.
      label: shown in the flow run's name.
    """
    settings = LaunchSettings(
        studies=tuple(studies),
        consortium=consortium,
        workdir=workdir,
        references=references,
        seed=seed,
        fhir_validation=fhir_validation,
    )
    tag_this_run("embedded")
    with open_launch(settings) as launch:
        enrol_parties()
        for step in (harmonise_site, validate_site, build_rows):
            step.map(launch.sites).wait()
        launch.open_runs()
        following = follow_runs.map(launch.sites)
        training = [train_references.submit(run) for run in launch.runs if references]
        for run in launch.runs:
            await_run(run)
        for references_of_run in training:
            references_of_run.result()
        following.wait()
        verify_log()
        report = write_report()
    return Completed(message=f"report: {report}")
