"""The coordinator's entries in MLflow."""

from prefect import get_run_logger, task

from fedhealth.refs import ModelRef
from fedhealth.registry.record import StudyRecord
from fedhealth.reporting.recorded import record_evaluation as log_evaluation
from fedhealth.rounds.outcome import RoundClosed
from tasks.coordinator.context import coordinator, registry
from tasks.policies import TRANSPORT


def record(run: str) -> StudyRecord:
    """A run's record."""
    return StudyRecord(node=coordinator(), registry=registry(), run=run)


@task(task_run_name="open {run} in MLflow", **TRANSPORT)
def start_record(run: str) -> None:
    """Open the study's run, and record what a run that was killed left out."""
    started = record(run)
    started.open()
    started.record_rounds()


@task(task_run_name="record the round in MLflow", **TRANSPORT)
def record_round(closed: RoundClosed) -> None:
    """A nested run, and the metrics by round on the study's run."""
    record(closed.run).record_rounds()


@task(task_run_name="record the evaluation of {run} in MLflow", **TRANSPORT)
def record_evaluation(run: str) -> None:
    """Plots and tables of the final model."""
    files = log_evaluation(record(run))
    get_run_logger().info("evaluation: %s", ", ".join(files))


@task(task_run_name="register the model of {run}", **TRANSPORT)
def register_model(run: str) -> ModelRef:
    """Register, release into the log, tie both by tags."""
    model = record(run).register()
    get_run_logger().info("registered %s version %s", model.name, model.version)
    return model
