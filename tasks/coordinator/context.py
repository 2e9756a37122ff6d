"""What the coordinator's tasks act on, as the process environment names it: never a flow parameter."""

import os
from functools import lru_cache
from pathlib import Path

from fedhealth.registry import Registry
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.coordinator_environment import coordinator_from_environment


def coordinator() -> CoordinatorNode:
    """The coordinator of this process."""
    return coordinator_from_environment(os.environ)


def registry() -> Registry:
    """The MLflow of this process."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    artifacts = (
        None if uri.startswith("http") else os.environ.get("FEDHEALTH_MLFLOW_ARTIFACTS", "mlflow-artifacts")
    )
    return _registry(uri, artifacts)


@lru_cache(maxsize=2)
def _registry(tracking_uri: str, artifacts: str | None) -> Registry:
    return Registry(tracking_uri, artifact_root=None if artifacts is None else Path(artifacts))
