"""The coordinator's entries in MLflow."""

import os
from functools import lru_cache
from pathlib import Path

from prefect import get_run_logger, task

from fedhealth.refs import ModelRef
from fedhealth.registry import Registry
from fedhealth.registry.record import StudyRecord
from fedhealth.rounds.outcome import RoundClosed
from tasks.coordinator.rounds import coordinator
from tasks.policies import TRANSPORT


@lru_cache(maxsize=2)
def _registry(tracking_uri: str, artifacts: str | None) -> Registry:
    return Registry(tracking_uri, artifact_root=None if artifacts is None else Path(artifacts))


def record(run: str) -> StudyRecord:
    """A run's record, in the MLflow that this process's environment names."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    artifacts = (
        None if uri.startswith("http") else os.environ.get("FEDHEALTH_MLFLOW_ARTIFACTS", "mlflow-artifacts")
    )
    return StudyRecord(node=coordinator(), registry=_registry(uri, artifacts), run=run)


@task(task_run_name="open {run} in MLflow", **TRANSPORT)
def start_record(run: str) -> None:
    """Open the study's run."""
    record(run).open()


@task(task_run_name="record the round in MLflow", **TRANSPORT)
def record_round(closed: RoundClosed) -> None:
    """A nested run, and the metrics by round on the study's run."""
    record(closed.run).record_round(closed)


@task(task_run_name="register the model of {run}", **TRANSPORT)
def register_model(run: str) -> ModelRef:
    """Register, release into the log, tie both by tags."""
    model = record(run).register()
    get_run_logger().info("registered %s version %s", model.name, model.version)
    return model
