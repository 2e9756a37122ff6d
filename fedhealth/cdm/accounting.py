"""The exact account of a harmonisation: nothing is lost without a reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedhealth.errors import DataError
from fedhealth.privacy.people import MIN_CELL

Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class ResourceCount(_Strict):
    """What became of the resources of one type: ``read = loaded + excluded + quarantined``, always."""

    read: Count
    loaded: Count
    excluded: dict[str, Count] = {}
    quarantined: dict[str, Count] = {}

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.read != self.loaded + sum(self.excluded.values()) + sum(self.quarantined.values()):
            raise ValueError("read is not loaded + excluded + quarantined")
        return self


class ValueCount(_Strict):
    """What became of the numbers of mapped measurements: ``read = loaded + quarantined``.

    ``converted`` (another unit than the concept's) and ``inferred`` (no unit given) are among the loaded.
    """

    read: Count
    loaded: Count
    converted: Count
    inferred: Count
    quarantined: dict[str, Count] = {}

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.read != self.loaded + sum(self.quarantined.values()):
            raise ValueError("read is not loaded + quarantined")
        return self


class LinkCount(_Strict):
    """How rows found their visit: by the reference, by patient and time, or not at all."""

    reference: Count
    time: Count
    none: Count


class Unmapped(_Strict):
    """A code (with the unit, if any) that no map knows, and how many rows carry it."""

    system: str
    code: str
    unit: str
    n: Count


class Finding(_Strict):
    """A rule of R4 that ``n`` loaded resources of a type break at an element."""

    type: str
    reason: str
    path: str
    n: Count


class Accounting(_Strict):
    """``accounting.json``: exact, and never leaves the site. ``summary`` is what may travel.

    Attributes:
      resources: per FHIR type, and ``unknown`` for what has none.
      values: the numbers of mapped measurements.
      links: per OMOP table, how its rows found their visit.
      notes: counts of what was imputed or disagrees, by code.
      tables: rows per OMOP table.
      findings: rules that were broken by resources that are loaded all the same, most frequent first.
      unmapped: codes without a concept, most frequent first.
      seconds: per stage.
    """

    schema_version: Literal[1] = 1
    site: str
    resources: dict[str, ResourceCount]
    values: ValueCount
    links: dict[str, LinkCount]
    notes: dict[str, Count]
    tables: dict[str, Count]
    findings: list[Finding] = []
    unmapped: list[Unmapped]
    seconds: dict[str, float]

    def to_json(self) -> str:
        """The account as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"

    def summary(self) -> dict[str, dict[str, dict[str, int | None]]]:
        """Counts with those of 1 to 10 hidden (None), fit to leave the site.

        Guarantees: no hidden count follows from the shown ones: where one part of a type is hidden, its
        total is hidden too, and tables and codes, whose counts repeat it, are left out.
        """
        return {"resources": {name: _hide_small(count) for name, count in sorted(self.resources.items())}}


def _hide_small(count: ResourceCount) -> dict[str, int | None]:
    parts: dict[str, int] = {"loaded": count.loaded}
    parts |= {f"excluded:{reason}": n for reason, n in count.excluded.items()}
    parts |= {f"quarantined:{reason}": n for reason, n in count.quarantined.items()}
    shown: dict[str, int | None] = {name: None if 0 < n < MIN_CELL else n for name, n in parts.items()}
    return {"read": None if None in shown.values() else count.read, **shown}


def account_resources(
    read: Mapping[str, int], loaded: Mapping[str, int], left: Mapping[tuple[str, str, str], int]
) -> dict[str, ResourceCount]:
    """Join independent counts per type and check that they add up.

    Args:
      read: input lines and entries per type.
      loaded: resources with a row in the CDM, per type.
      left: resources left out, per (type, "excluded" or "quarantined", reason).

    Raises:
      DataError: the account of a type does not add up; the message names types only.
    """
    counts, wrong = {}, []
    for name in sorted({*read, *loaded, *(key[0] for key in left)}):
        parts = {
            kind: {reason: n for (of, how, reason), n in sorted(left.items()) if of == name and how == kind}
            for kind in ("excluded", "quarantined")
        }
        try:
            counts[name] = ResourceCount(read=read.get(name, 0), loaded=loaded.get(name, 0), **parts)
        except ValidationError:
            wrong.append(name)
    if wrong:
        raise DataError(
            f"the account of {', '.join(wrong)} does not add up (code accounting)", "report this as a defect"
        )
    return counts


def read_accounting(cdm_dir: Path) -> Accounting:
    """Read ``accounting.json`` of a CDM folder.

    Raises:
      DataError: it is missing, damaged, or does not add up.
    """
    try:
        return Accounting.model_validate_json((cdm_dir / "accounting.json").read_bytes())
    except (OSError, ValidationError):
        raise DataError("the CDM has no valid accounting.json", "harmonise the site's data again") from None
