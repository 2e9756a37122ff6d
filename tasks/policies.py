"""Retry policies, named once. Only transport failures are worth a second try; a lying peer never is."""

from typing import Any, TypedDict

from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from fedhealth.errors import TransportError


class RetryPolicy(TypedDict):
    """What a task passes to ``@task``."""

    retries: int
    retry_delay_seconds: list[float]
    retry_condition_fn: Any
    persist_result: bool
    cache_policy: None


def is_transport_failure(task: object, task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task run is worth another try."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TransportError)


def _policy(delays: list[float]) -> RetryPolicy:
    return RetryPolicy(
        retries=len(delays),
        retry_delay_seconds=delays,
        retry_condition_fn=is_transport_failure,
        persist_result=False,
        cache_policy=None,
    )


TRANSPORT = _policy([1.0, 5.0, 15.0])
ONCE = _policy([])
