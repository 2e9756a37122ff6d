"""A site's own folder: keys, CDM, rows, journal; and what it derives from its data for a study.

Nothing here leaves the site. ``state.json`` says whether the data passed validation, or the reason code with
which the site abstains.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from fedhealth.features import build_rows
from fedhealth.features.rows import Rows, load_rows, save_rows
from fedhealth.rounds.journal import write_durably
from fedhealth.study.policy import SitePolicy
from fedhealth.study.spec import Study


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

    @property
    def quality(self) -> Path:
        """What the gate tells the coordinator, as it is posted."""
        return self.path / "quality.json"

    def rows(self, study: Study) -> Path:
        """The rows of a study, as safetensors."""
        return self.path / "rows" / f"{study.name}-{study.digest[:16]}.safetensors"

    def memory(self, run: str) -> Path:
        """What the site remembers of a run from round to round."""
        return self.path / "memory" / run

    def policy(self) -> SitePolicy:
        """The site's own policy: ``policy.yaml`` if it is there, else the defaults."""
        return SitePolicy.load(self.path / "policy.yaml")


@dataclass(frozen=True, slots=True)
class SiteDataState:
    """Whether a site's data may be trained on."""

    passed: bool
    reason: str | None


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
