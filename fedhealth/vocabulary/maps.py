"""From a coding to an OMOP concept: site map, then shipped map, then prefix rule, then 0, each step counted.

Order per coding (HL7 FHIR-to-OMOP f2o-032..036, f2o-063): the site's ConceptMap takes it to a standard coding (or
straight to OMOP); the shipped map of the field takes that to a concept. A target outside the field's map is no
match, so a class never becomes a discharge (domain check).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from fedhealth.vocabulary.concepts import UNMAPPED
from fedhealth.vocabulary.site_map import OMOP_SYSTEM, ConceptMap, SiteMap

Field = Literal[
    "measurement",
    "class",
    "disposition",
    "admit_source",
    "condition",
    "drug",
    "procedure",
    "priority",
    "route",
    "value",
]
Served = Literal["site", "shipped", "prefix", "none"]

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACT_PRIORITY = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
STANDARD_SYSTEMS = (
    "http://loinc.org",
    "http://snomed.info/sct",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
)

_SHIPPED: dict[Field, str] = {
    "measurement": "measurements.json",
    "class": "encounter-class.json",
    "disposition": "discharge-disposition.json",
    "admit_source": "admit-source.json",
    "condition": "icd10cm-prefix.json",
}


@dataclass(frozen=True, slots=True)
class Coding:
    """A code of a code system, as it came ("" for what is absent)."""

    system: str
    code: str
    display: str = ""
    is_user_selected: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """The coding chosen from a CodeableConcept, where it stands after the site map, and its concept."""

    coding: Coding
    standard: tuple[str, str]
    concept_id: int
    served: Served

    @property
    def source_value(self) -> str:
        """``system|code`` as it came."""
        return f"{self.coding.system}|{self.coding.code}"


@cache
def shipped_codes(field: Field) -> Mapping[tuple[str, str], int]:
    """The shipped map of a field: (system, code) to concept id; a code ending in ``*`` is a prefix."""
    if field not in _SHIPPED:
        return {}
    text = files("fedhealth.vocabulary").joinpath(_SHIPPED[field]).read_bytes()
    return {source: int(code) for source, (_, code) in ConceptMap.model_validate_json(text).rows()}


@cache
def shipped_codings() -> frozenset[tuple[str, str]]:
    """Every (system, code) that a shipped map names as a source, prefix rules left out."""
    return frozenset(
        source for field in _SHIPPED for source in shipped_codes(field) if not source[1].endswith("*")
    )


@cache
def shipped_systems() -> frozenset[str]:
    """Every code system that a shipped map has codes of."""
    return frozenset(system for field in _SHIPPED for system, _ in shipped_codes(field))


@cache
def shipped_digest() -> str:
    """SHA-256 over the shipped maps."""
    digest = hashlib.sha256()
    for name in sorted(_SHIPPED.values()):
        digest.update(files("fedhealth.vocabulary").joinpath(name).read_bytes())
    return digest.hexdigest()


def maps_digest(site_map: SiteMap) -> str:
    """SHA-256 over the shipped maps and the site's."""
    return hashlib.sha256((shipped_digest() + site_map.digest).encode()).hexdigest()


def match_coding(coding: Coding, *, field: Field, site_map: SiteMap) -> Match:
    """The concept of one coding; concept 0 and ``none`` when no map knows it."""
    source = (coding.system, coding.code)
    standard = site_map.codes.get(source, source)
    is_site = source in site_map.codes
    if is_site and standard[0] == OMOP_SYSTEM and standard[1].isdigit():
        return Match(coding, standard, int(standard[1]), "site")
    shipped = shipped_codes(field)
    if standard in shipped:
        return Match(coding, standard, shipped[standard], "site" if is_site else "shipped")
    if (concept := _by_prefix(standard, shipped)) is not None:
        return Match(coding, standard, concept, "prefix")
    return Match(coding, standard, UNMAPPED, "none")


def _by_prefix(standard: tuple[str, str], shipped: Mapping[tuple[str, str], int]) -> int | None:
    """The longest prefix rule that holds."""
    system, code = standard
    for length in range(len(code), 0, -1):
        if (found := shipped.get((system, code[:length] + "*"))) is not None:
            return found
    return None


def best_match(codings: Iterable[Coding], *, field: Field, site_map: SiteMap) -> Match | None:
    """The coding to keep of a CodeableConcept: mapped before unmapped, then userSelected, standard system, order."""
    matches = [match_coding(coding, field=field, site_map=site_map) for coding in codings if coding.code]
    if not matches:
        return None
    return min(
        matches,
        key=lambda m: (
            m.concept_id == UNMAPPED,
            not m.coding.is_user_selected,
            m.standard[0] not in STANDARD_SYSTEMS,
        ),
    )
