"""What may stay of a source's codes and units on its face: what a map names, and what its system's own form proves.

A code field can hold anything: a record number, a name. So a code stays if a shipped or the site's map names it, or
if it has the form of its system (LOINC and SNOMED CT carry check digits, ICD-10 shapes of their own). Whatever else is
there must be carried by enough patients (``source_codes``).

Source: LOINC Users' Guide (Luhn check digit); SNOMED CT identifiers (Verhoeff check digit, partition 00 or 10 of
concepts); ICD-10-CM and ICD-10-PCS official guidelines (7 characters without I and O; we ask for two letters and a
digit).
"""

import re
from functools import cache

from fedhealth.vocabulary.maps import STANDARD_SYSTEMS, shipped_codings, shipped_systems
from fedhealth.vocabulary.site_map import SiteMap
from fedhealth.vocabulary.units import is_known_unit

_LOINC = "http://loinc.org"
_SNOMED = "http://snomed.info/sct"
_ICD10 = (
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://hl7.org/fhir/sid/icd-10",
    "http://hl7.org/fhir/sid/icd-10-gm",
    "http://fhir.de/CodeSystem/bfarm/icd-10-gm",
    "http://fhir.de/CodeSystem/dimdi/icd-10-gm",
    "urn:oid:2.16.840.1.113883.6.3",
    "urn:oid:2.16.840.1.113883.6.90",
)
_ICD10_PCS = (
    "http://www.cms.gov/Medicare/Coding/ICD10",
    "http://hl7.org/fhir/sid/icd-10-pcs",
    "urn:oid:2.16.840.1.113883.6.4",
)

_ICD10_DOTTED = re.compile(r"[A-Z]\d[\dAB](\.[\dA-Z]{1,4})?")
_ICD10_UNDOTTED = re.compile(r"[A-Z]\d[\dAB]([\dX]{1,3}|[\dX]{3}[A-Z])")
_ICD10_PCS_FORM = re.compile(r"(?=(.*[A-Z]){2})(?=.*\d)[0-9BCDFGHX][0-9A-HJ-NP-Z]{6}")
_CODE_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/^:*-]{0,31}")
_SYSTEM_FORM = re.compile(r"(https?://|urn:)[A-Za-z0-9._:/-]{1,120}")
_UNIT_FORM = re.compile(r"[A-Za-z0-9%/*^.µμ°\[\]{}()'_+ -]{1,24}")


def is_plain_code(system: str, code: str, site_map: SiteMap) -> bool:
    """Whether a code tells nothing of a person on its face: it is in a map, or has its system's form."""
    if (system, code) in site_map.named or (system, code) in shipped_codings():
        return True
    if system == _LOINC:
        return _has_loinc_check_digit(code)
    if system == _SNOMED:
        return _is_snomed_concept(code)
    if system in _ICD10_PCS:
        return _ICD10_PCS_FORM.fullmatch(code) is not None
    has_form = _ICD10_DOTTED.fullmatch(code) or _ICD10_UNDOTTED.fullmatch(code)
    return system in _ICD10 and has_form is not None


def is_plain_bare(code: str, site_map: SiteMap) -> bool:
    """Whether a code without its system is named by the site's map, or has a form that few other texts have.

    Those are LOINC and SNOMED CT with their check digits, and ICD-10 with its dot.
    """
    if any(code == named for _, named in site_map.named):
        return True
    is_icd10 = "." in code and _ICD10_DOTTED.fullmatch(code) is not None
    return is_icd10 or _has_loinc_check_digit(code) or _is_snomed_concept(code)


def is_plain_system(system: str, site_map: SiteMap) -> bool:
    """Whether a code system is named by a map or is a standard one."""
    return (
        system in STANDARD_SYSTEMS
        or system in (*_ICD10, *_ICD10_PCS)
        or system in shipped_systems()
        or system in site_map.systems
    )


def is_plain_unit(unit: str, site_map: SiteMap) -> bool:
    """Whether a unit is known, or named by the site's map."""
    return is_known_unit(unit) or any(code == unit for _, code in site_map.named)


def looks_like_code(code: str) -> bool:
    """Whether a text has the form of a code: short, and no words."""
    return _CODE_FORM.fullmatch(code) is not None


def looks_like_system(system: str) -> bool:
    """Whether a text has the form of a code system's URI."""
    return _SYSTEM_FORM.fullmatch(system) is not None


def looks_like_unit(unit: str) -> bool:
    """Whether a text has the form of a unit."""
    return _UNIT_FORM.fullmatch(unit) is not None


def _has_loinc_check_digit(code: str) -> bool:
    if re.fullmatch(r"\d{1,6}-\d", code) is None:
        return False
    total = 0
    for place, digit in enumerate(reversed(code[:-2])):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return (10 - total % 10) % 10 == int(code[-1])


def _is_snomed_concept(code: str) -> bool:
    if re.fullmatch(r"[1-9]\d{5,17}", code) is None or code[-3:-1] not in ("00", "10"):
        return False
    multiply, permute = _verhoeff()
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = multiply[check][permute[place % 8][int(digit)]]
    return check == 0


@cache
def _verhoeff() -> tuple[list[list[int]], list[list[int]]]:
    """The product of the dihedral group of order 10, and the powers of Verhoeff's permutation."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    powers = [list(range(10))]
    for _ in range(7):
        powers.append([(1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit] for digit in powers[-1]])
    return [[times(a, b) for b in range(10)] for a in range(10)], powers
