"""Starting the sites' flows, where sites are deployments; embedded sites watch the exchange by themselves."""

import json
import os
from typing import Any

from prefect import get_run_logger, task
from prefect.deployments import run_deployment

from tasks.policies import TRANSPORT


def site_deployments() -> tuple[str, ...]:
    """Names of the sites' ``train_round`` deployments, from FEDHEALTH_SITE_DEPLOYMENTS (a JSON list)."""
    return tuple(json.loads(os.environ.get("FEDHEALTH_SITE_DEPLOYMENTS", "[]")))


@task(task_run_name="start {deployment}", **TRANSPORT)
def start_site_flow(deployment: str) -> str:
    """Ask a site's worker to answer what is open; returns the flow run's name."""
    flow_run: Any = run_deployment(deployment, timeout=0, as_subflow=False)
    get_run_logger().info("started %s as %s", deployment, flow_run.name)
    return str(flow_run.name)
