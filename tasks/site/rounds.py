"""A site's steps in a round."""

import os

from prefect import get_run_logger, task

from fedhealth.rounds.boundary import at_the_boundary
from fedhealth.rounds.site_environment import site_from_environment
from tasks.policies import ONCE


@task(task_run_name="find open manifests", **ONCE)
@at_the_boundary
def find_open_manifests() -> tuple[tuple[str, int], ...]:
    """Open rounds of every run this site is rostered for, as (run, round)."""
    return site_from_environment(os.environ).open_manifests()


@task(task_run_name="answer {run} round {number}", **ONCE)
@at_the_boundary
def answer(run: str, number: int) -> str:
    """Answer one open round: ``done``, ``abstained`` or ``left_out``."""
    outcome = site_from_environment(os.environ).answer(run, number)
    get_run_logger().info("%s round %s: %s", run, number, outcome)
    return outcome
