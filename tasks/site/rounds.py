"""A site's steps in a round."""

import os

from prefect import get_run_logger, task

from fedhealth.rounds.boundary import at_the_boundary
from fedhealth.rounds.site_environment import site_from_environment
from tasks.policies import ONCE


@task(task_run_name="find open manifests", **ONCE)
@at_the_boundary
def find_open_manifests() -> tuple[tuple[str, int], ...]:
    """Open rounds of every run this site is rostered for, as (run, round); the log's end is co-signed on the way."""
    site = site_from_environment(os.environ)
    site.witness()
    return site.open_manifests()


@task(task_run_name="answer {run} round {number}", **ONCE)
@at_the_boundary
def answer(run: str, number: int) -> str:
    """Answer one open round, ``done``, ``abstained``, ``left_out`` or ``closed``, and see it closed."""
    site = site_from_environment(os.environ)
    outcome = site.answer(run, number)
    site.close(run, number)
    get_run_logger().info("%s round %s: %s", run, number, outcome)
    return outcome
