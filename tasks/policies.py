"""Retry policies, named once. Only transport failures are worth a second try; a lying peer never is."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun

from fedhealth.errors import TransportError


def is_transport_failure(task: object, task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task run is worth another try."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransportError)


def _policy(delays: list[float]) -> dict[str, Any]:
    """What a task passes to ``@task``: no result is stored, nothing is cached."""
    return {
        "retries": len(delays),
        "retry_delay_seconds": delays,
        "retry_condition_fn": is_transport_failure,
        "persist_result": False,
        "cache_policy": None,
    }


TRANSPORT = _policy([1.0, 5.0, 15.0])
ONCE = _policy([])
