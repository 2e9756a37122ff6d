"""What the flows ask of Prefect about their own runs, each for what it saves."""

from contextlib import AbstractContextManager

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings


def tag_this_run(*tags: str) -> None:
    """Add tags to the flow run that calls this, and to none of its tasks.

    ``prefect.tags`` would tag every task too, and Prefect asks its server for a concurrency slot for each tagged
    task: a write, which a SQLite server under load refuses at times, and the client then sleeps two seconds.
    """
    with get_client(sync_client=True) as client:
        client.update_flow_run(runtime.flow_run.id, tags={*runtime.flow_run.tags, *tags})


def no_heartbeats() -> AbstractContextManager[object]:
    """Flow runs inside send no heartbeats, for whose thread each would wait up to a second at its end.

    For embedded runs: their launcher watches its processes itself.
    """
    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
