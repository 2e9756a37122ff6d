"""run_study: a whole study, from the signed protocol to the registered model.

Runs on the coordinator. Started again with the same run id it goes on with the first round that is not closed. The
model is registered in MLflow under the study's name; the run's log entries and digests stand in its tags.
"""

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.coordinator.federated_round import federated_round
from flows.flow_runs import tag_this_run
from tasks.coordinator.artifacts import publish_study
from tasks.coordinator.registry import record_evaluation, register_model, start_record
from tasks.coordinator.rounds import find_open_round, start_run

DEFAULT_STUDY = "infra/studies/readmission.yaml"


def _run_name() -> str:
    parameters = runtime.flow_run.parameters
    return f"{parameters.get('run') or parameters.get('study')}"


@flow(name="run_study", flow_run_name=_run_name, persist_result=False)
def run_study(study: str = DEFAULT_STUDY, run: str | None = None, seed: int = 0) -> State[None]:
    """Run every round of a study and register its model.

    Args:
      study: path of the study file, as the coordinator's worker sees it.
      run: run id; by default one made from the flow run's own id.
      seed: of everything that is not secret.
    """
    run_id = run or f"run-{str(runtime.flow_run.id)[:8]}"
    tag_this_run("coordinator", run_id)
    last = start_run(study, run_id, seed)
    start_record(run_id)
    for number in range(last + 1):
        federated_round(run_id, number)
        if find_open_round(run_id) is None:
            break  # the last round, or it stopped early
    record_evaluation(run_id)
    model = register_model(run_id)
    publish_study(run_id, model)
    return Completed(message=f"registered {model.name} version {model.version}")
