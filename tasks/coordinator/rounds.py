"""The coordinator's steps of a round. What they act on comes from the process environment."""

from prefect import get_run_logger, task

from fedhealth.refs import RoundRef
from fedhealth.registry.transfer import start_study
from fedhealth.rounds.outcome import RoundClosed
from fedhealth.study.spec import load_study
from fedhealth.study.words import rounds_text
from tasks.coordinator.context import coordinator, registry
from tasks.policies import ONCE, TRANSPORT


@task(task_run_name="start {run}", **TRANSPORT)
def start_run(study: str, run: str, seed: int) -> int:
    """Sign the study, open round 0; returns the number of the last round."""
    last = start_study(coordinator(), registry(), load_study(study), run=run, seed=seed)
    get_run_logger().info("run %s started: %s", run, rounds_text(last - 1))
    return last


@task(task_run_name="find what is open", **TRANSPORT)
def find_open_round(run: str | None) -> RoundRef | None:
    """The first round that is not closed, of one run or of the oldest open run."""
    return coordinator().find_open_round(run)


@task(task_run_name="open {run} round {number}", **TRANSPORT)
def open_round(run: str, number: int) -> tuple[str, ...]:
    """Post model and manifest; returns the purposes of the round's secure sums."""
    return coordinator().open_round(run, number).purposes


@task(task_run_name="wait for the sites, {run} round {number}", **ONCE)
def wait_for_sites(run: str, number: int) -> dict[str, str]:
    """Wait until the quorum is ready; returns each site's state or reason code."""
    states = coordinator().wait_for_sites(run, number).states()
    ready = sum(state == "ready" for state in states.values())
    get_run_logger().info("round %s: %s of %s sites are ready", number, ready, len(states))
    return states


@task(task_run_name="sum {purpose}, {run} round {number}", **ONCE)
def secure_sum(run: str, number: int, purpose: str, cohort: tuple[str, ...]) -> tuple[str, ...]:
    """One secure sum; returns the survivors. The opened sum stays in the coordinator's folder."""
    survivors = coordinator().secure_sum(run, number, purpose, cohort=cohort)
    get_run_logger().info("sum %s of round %s: %s sites in it", purpose, number, len(survivors))
    return survivors


@task(task_run_name="close {run} round {number}", **TRANSPORT)
def close_round(run: str, number: int) -> RoundClosed:
    """Publish the aggregate, write the log, sign the checkpoint."""
    return coordinator().close_round(run, number)
