"""federated_round: one round from the signed manifest to the signed checkpoint.

Runs on the coordinator (FEDHEALTH_EXCHANGE, FEDHEALTH_COORDINATOR, MLFLOW_TRACKING_URI). Without parameters it goes on with the
oldest open run. A round that was interrupted ends with the same bytes when it is run again: everything is read back
from the exchange. If the quorum is missed, the reasons stand in the task log and in the round's artifact.
"""

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.flow_runs import tag_this_run
from tasks.coordinator.artifacts import publish_round
from tasks.coordinator.registry import record_round
from tasks.coordinator.rounds import close_round, find_open_round, open_round, secure_sum, wait_for_sites
from tasks.coordinator.site_flows import site_deployments, start_site_flow


def _run_name() -> str:
    parameters = runtime.flow_run.parameters
    return f"{parameters.get('run') or 'open run'} round {parameters.get('number', 'next')}"


@flow(name="federated_round", flow_run_name=_run_name, persist_result=False)
def federated_round(run: str | None = None, number: int | None = None) -> State[None]:
    """Run one round.

    Args:
      run: run id; by default the oldest run that is open.
      number: the round; by default the first that is not closed.
    """
    opened = find_open_round(run)
    if opened is None:
        return Completed(name="NothingOpen", message="nothing open")
    if number is not None and number < opened.number:
        return Completed(name="AlreadyClosed", message=f"round {number} is closed")
    tag_this_run("coordinator", opened.run)
    purposes = open_round(opened.run, opened.number)
    for deployment in site_deployments():
        start_site_flow(deployment)
    states = wait_for_sites(opened.run, opened.number)
    cohort = tuple(site for site, state in states.items() if state == "ready")
    for purpose in purposes:
        secure_sum(opened.run, opened.number, purpose, cohort)
    closed = close_round(opened.run, opened.number)
    record_round(closed)
    publish_round(closed, states)
    return Completed(message=f"round {opened.number} closed with {len(cohort)} sites")
