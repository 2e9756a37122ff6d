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


@task(task_run_name="{site} follows {run}", **ONCE)
def follow_run(site: str, run: str) -> str:
    """The site answers every round of a run; returns how often it was in, left out or abstained."""
    summary = current_launch().follow(site, run)
    get_run_logger().info("%s: %s", site, summary)
    return summary
