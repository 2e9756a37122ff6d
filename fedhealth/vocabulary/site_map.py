"""A site's own map: a folder of FHIR R4 ConceptMaps and an optional ``site.yaml``."""

import hashlib
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fedhealth.config import Profile
from fedhealth.errors import ConfigError

OMOP_SYSTEM = "https://fhir-terminology.ohdsi.org"
MAX_CONCEPT_ID = 2**31 - 1
"""OMOP's concept ids are 32-bit integers."""
_REFUSED = ("unmatched", "disjoint")


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError("unknown time zone") from None
    return name


class SiteSettings(BaseModel):
    """``site.yaml``.

    Attributes:
      time_zone: IANA name, for times without an offset.
      extract_date: the last day that the extract covers (else: the latest time in it).
      admission_classes: ``system|code`` of encounter classes that are admissions, whatever the maps say.
      unit_inference: whether a missing unit may be inferred when exactly one unit is plausible.
      default_class_system: system of encounter classes that name none.
      organizations: ids of the Organizations that are this site (empty: all).
      intensive_care_locations: ids of the Locations that are intensive care, or references to them as Encounters write them.
      profile: how the CDM is de-identified.
      keep_weekday: whether dates move by whole weeks (``limited-dataset``).
      anonymizer: name of a configuration of Microsoft's FHIR anonymizer in the folder, to be followed as well.
      consent_default: whether a patient of whom no consent speaks is left out (``opt-in``) or in (``opt-out``).
      consent_codes: ``system|code`` of the provisions that are about this use (empty: codes of provisions permit nothing).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    time_zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    extract_date: date | None = None
    admission_classes: tuple[str, ...] = ()
    unit_inference: bool = False
    default_class_system: str = ""
    organizations: tuple[str, ...] = ()
    intensive_care_locations: tuple[str, ...] = ()
    profile: Profile = "local-only"
    keep_weekday: bool = False
    anonymizer: str | None = None
    consent_default: Literal["opt-in", "opt-out"] = "opt-out"
    consent_codes: tuple[str, ...] = ()


class Target(BaseModel):
    """What a code is mapped to."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    code: str = ""
    equivalence: str = "equivalent"


class Element(BaseModel):
    """One code of a ConceptMap group. ``prefix`` (our extension in shipped maps) lets it stand for all it begins."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    code: str
    target: tuple[Target, ...] = ()


class Group(BaseModel):
    """A group of a ConceptMap: from one code system to another."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    source: str = ""
    target: str = ""
    element: tuple[Element, ...] = ()


class ConceptMap(BaseModel):
    """The part of a FHIR R4 ConceptMap that maps codes."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    resourceType: Annotated[str, Field(pattern="^ConceptMap$")]
    group: tuple[Group, ...] = ()

    def rows(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """((system, code), (target system, target code)) of every element that has a usable target."""
        return [
            ((group.source, element.code), (group.target, target.code))
            for group in self.group
            for element in group.element
            for target in element.target
            if target.code and target.equivalence not in _REFUSED
        ]


class SiteMap(BaseModel):
    """A site's settings and its codings in terms of standard ones; empty when the site gives none."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    settings: SiteSettings = SiteSettings()
    codes: dict[tuple[str, str], tuple[str, str]] = {}
    anonymizer: bytes | None = None
    digest: str = hashlib.sha256(b"").hexdigest()

    @cached_property
    def named(self) -> frozenset[tuple[str, str]]:
        """Every (system, code) that the maps name, on either side."""
        return frozenset(self.codes) | frozenset(self.codes.values())

    @cached_property
    def systems(self) -> frozenset[str]:
        """Every code system that the maps name, on either side."""
        return frozenset(system for system, _ in self.named if system)


def read_site_map(folder: Path | None) -> SiteMap:
    """Read a site map; None gives the empty one.

    Raises:
      ConfigError: the folder or a file is unusable, two maps take a code to different targets, or one to a number
        that is no concept id.
    """
    if folder is None:
        return SiteMap()
    if not folder.is_dir():
        raise ConfigError(
            f"the site map folder {folder} does not exist", "give a folder of ConceptMap JSON files"
        )
    digest = hashlib.sha256()
    settings, anonymizer = SiteSettings(), None
    if (folder / "site.yml").exists():
        raise ConfigError(f"{folder / 'site.yml'} is not read", "call it site.yaml")
    if (path := folder / "site.yaml").exists():
        settings = _settings(path.read_bytes())
    codes: dict[tuple[str, str], tuple[str, str]] = {}
    for path in sorted(folder.glob("*.json")):
        data = path.read_bytes()
        digest.update(data)
        if path.name == settings.anonymizer:
            anonymizer = data
            continue
        for source, target in _concept_map(path.name, data).rows():
            if target[0] == OMOP_SYSTEM and target[1].isdigit() and not _is_concept_id(target[1]):
                raise ConfigError(
                    f"{path.name} maps a code to a number that is no concept id",
                    f"name a concept of OMOP, from 0 to {MAX_CONCEPT_ID}",
                )
            if codes.setdefault(source, target) != target:
                raise ConfigError(
                    f"{path.name} maps a code in two ways", "keep one target for each system and code"
                )
    if settings.anonymizer is not None and anonymizer is None:
        raise ConfigError(
            "site.yaml names an anonymizer configuration that is not there",
            "put the .json file into the folder of the site map",
        )
    if (path := folder / "site.yaml").exists():
        digest.update(path.read_bytes())
    return SiteMap(settings=settings, codes=codes, anonymizer=anonymizer, digest=digest.hexdigest())


def _is_concept_id(code: str) -> bool:
    return code.isascii() and len(code) <= len(str(MAX_CONCEPT_ID)) and int(code) <= MAX_CONCEPT_ID


def _concept_map(name: str, data: bytes) -> ConceptMap:
    try:
        return ConceptMap.model_validate_json(data)
    except ValidationError:
        raise ConfigError(
            f"{name} is not a FHIR R4 ConceptMap", "write ConceptMap JSON, or move the file away"
        ) from None


def _settings(data: bytes) -> SiteSettings:
    try:
        return SiteSettings.model_validate(yaml.safe_load(data) or {})
    except (yaml.YAMLError, ValidationError) as error:
        wrong = (
            sorted({str(e["loc"][0]) for e in error.errors() if e["loc"]})
            if isinstance(error, ValidationError)
            else []
        )
    raise ConfigError(
        f"site.yaml is wrong ({', '.join(wrong) or 'no YAML mapping'})", "see docs/reference/harmonisation.md"
    )
