"""Steps of the launcher that concern all sites."""

from prefect import task

from fedhealth.embedded.launch import current_launch
from tasks.policies import ONCE


@task(task_run_name="enrol all parties", **ONCE)
def enrol_parties() -> str:
    """Keys in their own processes, a roster signed by the coordinator and pinned; returns its digest."""
    return current_launch().enrol()


@task(task_run_name="wait for {run}", **ONCE)
def await_run(run: str) -> int:
    """Wait until the coordinator has finished a run; returns its number of training rounds."""
    return current_launch().await_run(run)


@task(task_run_name="references of {run}", **ONCE)
def train_references(run: str) -> int:
    """Models without privacy or secrecy, for comparison only; returns the number of rows in the comparison."""
    return current_launch().train_references(run)


@task(task_run_name="verify the log", **ONCE)
def verify_log() -> bool:
    """Check every log entry, object and registered file against each other."""
    return current_launch().verify()


@task(task_run_name="write the report", **ONCE)
def write_report() -> str:
    """report.json and report.html; returns where they are."""
    return current_launch().write_report()
