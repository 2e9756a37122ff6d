"""A site's load: FHIR to CDM, then the gate whose verdict decides whether the site takes part."""

import shutil
from collections import Counter
from pathlib import Path

from fedhealth.cdm import Accounting, Crew, Progress, harmonize
from fedhealth.cdm.omop import import_omop
from fedhealth.cdm.record import read_record
from fedhealth.config import FhirValidation
from fedhealth.errors import DataError
from fedhealth.rounds.journal import write_durably
from fedhealth.rounds.objects import Quality, QualitySeverity
from fedhealth.rounds.site_data import SiteDataState, SiteFolder, record_state
from fedhealth.validation import ValidationReport, validate_cdm


def harmonise_site(
    folder: SiteFolder,
    fhir: Path,
    *,
    site: str,
    site_map: Path | None,
    site_secret: bytes,
    validate: FhirValidation = "sample",
    progress: Progress | None = None,
    workers: int = 1,
    crew: Crew | None = None,
) -> Accounting:
    """Convert a site's FHIR data to its CDM; what was derived from an older load is dropped.

    Raises:
      DataError: the data cannot be read; nothing half-written is left.
    """
    _forget_derived(folder)
    if folder.cdm.is_symlink():
        folder.cdm.unlink()
    return harmonize(
        fhir,
        folder.cdm,
        site=site,
        site_map=site_map,
        site_secret=site_secret,
        validate=validate,
        verdicts=folder.path / "verdicts",
        progress=progress,
        workers=workers,
        crew=crew,
    )


def load_omop(
    folder: SiteFolder, source: str, *, site: str, site_map: Path | None, site_secret: bytes
) -> Accounting | None:
    """Take a hospital's own OMOP: a folder that says how it was de-identified is linked, any other source is imported.

    Returns:
      The account of the import; None for a link.

    Raises:
      ConfigError, DataError: the source is wrong or cannot be read.
    """
    try:
        read_record(Path(source))
    except DataError:
        _forget_derived(folder)
        if folder.cdm.is_symlink():
            folder.cdm.unlink()
        return import_omop(source, folder.cdm, site=site, site_map=site_map, site_secret=site_secret)
    link_cdm(folder, Path(source))
    return None


def link_cdm(folder: SiteFolder, cdm: Path) -> None:
    """Take a CDM of ours that lies elsewhere as the site's; what was derived from an older one is dropped.

    Its files are read where they lie; a CDM that was harmonised into the site's folder is removed.
    """
    _forget_derived(folder)
    if folder.cdm.resolve() == cdm.resolve():
        return
    if folder.cdm.is_symlink():
        folder.cdm.unlink()
    elif folder.cdm.exists():
        shutil.rmtree(folder.cdm)
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.cdm.symlink_to(cdm.resolve(), target_is_directory=True)


def validate_site(folder: SiteFolder) -> ValidationReport:
    """Run the gate over the site's CDM and remember the verdict."""
    report = validate_cdm(folder.cdm, docs=folder.path / "data-docs")
    record_state(folder, SiteDataState(report.passed, None if report.passed else report.reason))
    write_durably(folder.path / "validation.json", report.to_json().encode())
    write_durably(folder.quality, quality_of(report).to_bytes())
    return report


def quality_of(report: ValidationReport) -> Quality:
    """What a report tells outside the site: how many checks passed and failed, and which failed."""
    counts = Counter((check.severity, check.passed) for check in report.checks)
    severities: tuple[QualitySeverity, ...] = ("fatal", "convention", "characterisation")
    return Quality(
        passed={each: counts[each, True] for each in severities},
        failed={each: counts[each, False] for each in severities},
        failed_checks=tuple(f"{check.table}/{check.name}" for check in report.checks if not check.passed),
    )


def _forget_derived(folder: SiteFolder) -> None:
    folder.state.unlink(missing_ok=True)
    for path in (folder.path / "rows").glob("*"):
        path.unlink()
