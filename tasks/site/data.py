"""A site's data steps; folders come from the worker's environment, results are counts and codes."""

import os

from prefect import get_run_logger, task

from fedhealth.config import FhirValidation
from fedhealth.rounds.boundary import at_the_boundary
from fedhealth.rounds.site_environment import (
    folder_from_environment,
    secrets_from_environment,
    source_from_environment,
)
from fedhealth.rounds.site_load import harmonise_site, validate_site
from tasks.policies import ONCE


@task(task_run_name="harmonise", **ONCE)
@at_the_boundary
def harmonise(validate: FhirValidation) -> int:
    """FHIR to CDM; returns the number of resource types read."""
    site, fhir, site_map = source_from_environment(os.environ)
    accounting = harmonise_site(
        folder_from_environment(os.environ),
        fhir,
        site=site,
        site_map=site_map,
        site_secret=secrets_from_environment(os.environ).site_secret,
        validate=validate,
    )
    get_run_logger().info("harmonised %s resource types", len(accounting.resources))
    return len(accounting.resources)


@task(task_run_name="validate", **ONCE)
@at_the_boundary
def validate() -> str:
    """The gate; returns ``passed`` or the reason code with which the site abstains."""
    report = validate_site(folder_from_environment(os.environ))
    verdict = "passed" if report.passed else str(report.reason)
    get_run_logger().info("validation: %s", verdict)
    return verdict
