"""A site's own folder: keys, CDM, rows, journal; and what it derives from its data for a study.

Nothing here leaves the site. ``state.json`` says whether the data passed validation, or the reason code with
which the site abstains.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedhealth.cdm import Accounting, harmonize
from fedhealth.errors import DataError
from fedhealth.features import build_rows
from fedhealth.features.rows import Rows, load_rows, save_rows
from fedhealth.rounds.journal import write_durably
from fedhealth.study.policy import SitePolicy
from fedhealth.study.spec import Study
from fedhealth.validation import ValidationReport, validate_cdm

Validate = Literal["all", "sample", "off"]


@dataclass(frozen=True, slots=True)
class SiteFolder:
    """Where one site keeps everything; readable by the site alone."""

    path: Path

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def cdm(self) -> Path:
        return self.path / "cdm"

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def log(self) -> Path:
        return self.path / "site.log"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    def rows(self, study: Study) -> Path:
        """The rows of a study, as safetensors."""
        return self.path / "rows" / f"{study.name}-{study.digest[:16]}.safetensors"

    def policy(self) -> SitePolicy:
        """The site's own policy: ``policy.yaml`` if it is there, else the defaults."""
        return SitePolicy.load(self.path / "policy.yaml")


@dataclass(frozen=True, slots=True)
class SiteDataState:
    """Whether a site's data may be trained on."""

    passed: bool
    reason: str | None


def harmonise_site(
    folder: SiteFolder,
    fhir: Path,
    *,
    site: str,
    site_map: Path | None,
    site_secret: bytes,
    validate: Validate = "sample",
    progress: Callable[[str], None] | None = None,
) -> Accounting:
    """Convert a site's FHIR data to its CDM; what was derived from an older load is dropped.

    Raises:
      DataError: the data cannot be read; nothing half-written is left.
    """
    _forget_derived(folder)
    return harmonize(
        fhir,
        folder.cdm,
        site=site,
        site_map=site_map,
        site_secret=site_secret,
        validate=validate,
        progress=progress,
    )


def validate_site(folder: SiteFolder) -> ValidationReport:
    """Run the gate over the site's CDM and remember the verdict."""
    report = validate_cdm(folder.cdm)
    record_state(folder, SiteDataState(report.passed, None if report.passed else report.reason))
    write_durably(folder.path / "validation.json", report.to_json().encode())
    return report


def record_state(folder: SiteFolder, state: SiteDataState) -> None:
    """Keep the verdict over the data, durably."""
    write_durably(
        folder.state, json.dumps({"passed": state.passed, "reason": state.reason}, sort_keys=True).encode()
    )


def data_state(folder: SiteFolder) -> SiteDataState:
    """The verdict over the data; a site that never validated has not passed."""
    if not folder.state.exists():
        return SiteDataState(passed=False, reason="not_prepared")
    stored = json.loads(folder.state.read_bytes())
    return SiteDataState(passed=stored["passed"] is True, reason=stored["reason"])


def rows_of(folder: SiteFolder, study: Study, *, site_secret: bytes) -> Rows:
    """The site's rows for a study: built once, then read from the site's folder.

    Raises:
      DataError: the cohort cannot be built.
    """
    path = folder.rows(study)
    if path.exists():
        return load_rows(path)
    rows, attrition = build_rows(folder.cdm, study, site_secret=site_secret)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(path.with_suffix(".attrition.json"), json.dumps(attrition.public()).encode())
    save_rows(path, rows)
    return rows


def policy_digest(policy: SitePolicy) -> str:
    """What the site's approval commits to."""
    return hashlib.sha256(policy.model_dump_json().encode()).hexdigest()


def _forget_derived(folder: SiteFolder) -> None:
    folder.state.unlink(missing_ok=True)
    for path in (folder.path / "rows").glob("*"):
        path.unlink()


def abstain_reason(error: DataError) -> str:
    """A reason code that may travel: never the error's text."""
    return f"data_{type(error).__name__.lower()}"
