"""The de-identification record of a CDM: what was done to it, and with what. No training takes a CDM without one."""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedhealth import __version__
from fedhealth.cdm.profiles import OLDEST, Deidentification
from fedhealth.config import Profile
from fedhealth.errors import DataError
from fedhealth.privacy.people import MIN_CELL

RECORD = "deidentification.json"
_NOT_LOADED = ("names", "contacts", "addresses", "identifiers", "narrative", "notes", "free text")


class Record(BaseModel):
    """``deidentification.json``.

    Attributes:
      site: the site's name.
      profile: what became of dates and births; ``dates`` and ``births`` say it in words.
      keys: how ids are keyed.
      rare_source_values: what stands for source codes and units that few patients carry.
      not_loaded: what is in no table.
      dropped: ``table.column`` that an imported configuration empties.
      warnings: what that configuration says, and was done otherwise.
      map_digest: SHA-256 over the maps that were used.
      software_version: of FedHealth.
      recorded: the day of the extract; its year under a profile that moves dates.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    schema_version: Literal[1] = 1
    site: str
    profile: Profile
    keys: str = "BLAKE2b, 63 bits, per-site secret"
    dates: str
    births: str
    rare_source_values: str = f"other, if fewer than {MIN_CELL} patients carry what no map names"
    not_loaded: list[str] = list(_NOT_LOADED)
    dropped: list[str] = []
    warnings: list[str] = []
    map_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    software_version: Annotated[str, Field(min_length=1)]
    recorded: str


def describe(how: Deidentification, *, site: str, map_digest: str, extract: date) -> Record:
    """The record of a way to de-identify; where dates move, the year of the extract stands for its day."""
    weeks = "whole weeks" if how.keep_weekday else "days"
    dates: dict[Profile, str] = {
        "local-only": "as they are",
        "limited-dataset": f"one secret offset a person, {weeks} within a year",
        "safe-harbor": "years, and times relative to the first event",
    }
    is_moved = how.profile != "local-only"
    return Record(
        site=site,
        profile=how.profile,
        dates=dates[how.profile],
        births=f"year alone, at most {OLDEST} years before the last date" if is_moved else "as they are",
        dropped=sorted(f"{table}.{column}" for table, column in how.dropped),
        warnings=list(how.warnings),
        map_digest=map_digest,
        software_version=__version__,
        recorded=str(extract.year) if is_moved else extract.isoformat(),
    )


def write_record(folder: Path, record: Record) -> None:
    """Write the record into a CDM folder."""
    (folder / RECORD).write_text(record.model_dump_json(indent=2) + "\n")


def read_record(cdm_dir: Path) -> Record:
    """Read the record of a CDM folder.

    Raises:
      DataError: it is missing or damaged; the message holds nothing of it.
    """
    try:
        return Record.model_validate_json((cdm_dir / RECORD).read_bytes())
    except (OSError, ValidationError):
        raise DataError(
            "the CDM has no valid deidentification.json (code deidentification)",
            "harmonise the site's data again",
        ) from None
