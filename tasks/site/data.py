"""A site's data steps; folders come from the worker's environment, results are counts and codes."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from prefect import get_run_logger, task, unmapped

from fedhealth.cdm import Part, run_part
from fedhealth.config import FhirValidation
from fedhealth.rounds.boundary import at_the_boundary
from fedhealth.rounds.site_environment import (
    folder_from_environment,
    omop_from_environment,
    secrets_from_environment,
    source_from_environment,
)
from fedhealth.rounds.site_load import harmonise_site, load_omop, validate_site
from tasks.policies import ONCE


@task(task_run_name="{stage} {part}", **ONCE)
@at_the_boundary
def harmonise_part(stage: str, work: str, part: Part) -> int:
    """One part of a harmonisation, wherever the flow's task runner puts it: there, too, the environment names the site."""
    return run_part(stage, Path(work), part, site_secret=secrets_from_environment(os.environ).site_secret)


def _mapped(stage: str, work: Path, parts: Sequence[Part]) -> Iterator[int]:
    """A crew: the parts as mapped tasks of the flow."""
    futures = harmonise_part.map(unmapped(stage), unmapped(str(work)), list(parts))
    return (future.result() for future in futures)


@task(task_run_name="harmonise", **ONCE)
@at_the_boundary
def harmonise(validate: FhirValidation) -> int:
    """FHIR, or the site's own OMOP, to CDM; returns the number of resource types (tables) read."""
    site, fhir, site_map = source_from_environment(os.environ)
    folder, secret = folder_from_environment(os.environ), secrets_from_environment(os.environ).site_secret
    if fhir is None:
        omop = omop_from_environment(os.environ) or ""
        read = load_omop(folder, omop, site=site, site_map=site_map, site_secret=secret)
        return len(read.resources) if read else 0
    accounting = harmonise_site(
        folder,
        fhir,
        site=site,
        site_map=site_map,
        site_secret=secret,
        validate=validate,
        crew=_mapped,
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
