"""One command to one site's process. The site does the work; back come counts and reason codes."""

from prefect import get_run_logger, task

from fedhealth.embedded.launch import current_launch
from tasks.policies import ONCE


@task(task_run_name="harmonise {site}", **ONCE)
def harmonise_site(site: str) -> str:
    """FHIR to CDM in the site's process; returns ``harmonised`` or ``failed``."""
    state = current_launch().harmonise(site)
    get_run_logger().info("%s: %s", site, state)
    return state


@task(task_run_name="validate {site}", **ONCE)
def validate_site(site: str) -> str:
    """The Great Expectations gate in the site's process; returns ``passed`` or the reason code."""
    verdict = current_launch().validate(site)
    get_run_logger().info("%s: validation %s", site, verdict)
    return verdict


@task(task_run_name="features {site}", **ONCE)
def build_rows(site: str) -> str:
    """Cohort and features of every study in the site's process; returns a state."""
    return current_launch().build_rows(site)


@task(task_run_name="{site} answers", **ONCE)
def follow_runs(site: str) -> int:
    """The site answers every round of every run, one run after the other; returns the number of runs."""
    launch = current_launch()
    for run in launch.runs:
        get_run_logger().info("%s in %s: %s", site, run, launch.follow(site, run))
    return len(launch.runs)
