"""Prefect artifacts that make a run worth opening: the table of a round, the links of a study."""

import os

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from fedhealth.refs import ModelRef
from fedhealth.rounds.outcome import RoundClosed
from tasks.policies import TRANSPORT


@task(task_run_name="publish the round", **TRANSPORT)
def publish_round(closed: RoundClosed, states: dict[str, str]) -> None:
    """A table of the round: site, state, in which sums, bytes sent."""
    rows = [
        {
            "site": site,
            "state": state,
            "in sums": ", ".join(name for name, sites in closed.survivors.items() if site in sites),
            "bytes sent": closed.upload_bytes.get(site, 0),
        }
        for site, state in states.items()
    ]
    told = closed.headlines()
    shown = ", ".join(f"{name} {value:.4f}" for name, value in told.items()) or "suppressed or not scored"
    create_table_artifact(
        rows,
        key=f"{closed.run}-round-{closed.round:03d}".lower().replace("_", "-").replace(".", "-"),
        description=f"Round {closed.round}: {shown}; log entry {closed.log_index}, root {closed.log_root}",
    )


@task(task_run_name="publish the study", **TRANSPORT)
def publish_study(run: str, model: ModelRef) -> None:
    """Where the model stands, and how to prove its history."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    key = f"{run}-model".lower().replace("_", "-").replace(".", "-")
    create_markdown_artifact(
        f"# {model.name} version {model.version}\n\nRegistered at `{model.uri}`.\n\n"
        "Prove its history: `fedhealth audit verify WORKDIR`\n",
        key=key,
    )
    if tracking.startswith("http"):
        create_link_artifact(f"{tracking}/#/models/{model.name}/versions/{model.version}", key=f"{key}-link")
