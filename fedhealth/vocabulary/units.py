"""Units: aliases to UCUM, conversion to a concept's canonical unit, inference of a missing one.

Molar masses in g/mol: glucose 180.16, creatinine 113.12, urea nitrogen 28.01 (two N per urea), calcium 40.08,
lactate 90.08, haemoglobin monomer 16,114.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedhealth.vocabulary.concepts import MEASUREMENTS, SERIES_CONCEPTS, STATIC_CONCEPTS
from fedhealth.vocabulary.site_map import SiteMap

UCUM = "http://unitsofmeasure.org"

_ALIASES = {
    "mmhg": "mm[Hg]", "mm hg": "mm[Hg]", "millimeter of mercury": "mm[Hg]", "torr": "mm[Hg]",
    "bpm": "/min", "beats/min": "/min", "beats/minute": "/min", "breaths/min": "/min", "breaths/minute": "/min",
    "insp/min": "/min", "1/min": "/min", "per minute": "/min", "min-1": "/min", "/minute": "/min",
    "c": "Cel", "cel": "Cel", "degc": "Cel", "deg c": "Cel", "°c": "Cel", "celsius": "Cel",
    "f": "[degF]", "degf": "[degF]", "deg f": "[degF]", "°f": "[degF]", "[degf]": "[degF]", "fahrenheit": "[degF]",
    "percent": "%", "1": "1", "fraction": "1",
    "mg/dl": "mg/dL", "mg%": "mg/dL", "g/dl": "g/dL", "gm/dl": "g/dL", "g/l": "g/L", "mg/l": "mg/L",
    "mmol/l": "mmol/L", "meq/l": "meq/L", "umol/l": "umol/L", "µmol/l": "umol/L", "μmol/l": "umol/L",
    "micromol/l": "umol/L", "mol/l": "mol/L",
    "k/ul": "10*3/uL", "k/µl": "10*3/uL", "k/mcl": "10*3/uL", "thousand/ul": "10*3/uL", "10^3/ul": "10*3/uL",
    "x10^3/ul": "10*3/uL", "x10e3/ul": "10*3/uL", "10*3/ul": "10*3/uL", "10e3/ul": "10*3/uL", "th/ul": "10*3/uL",
    "10*9/l": "10*9/L", "10^9/l": "10*9/L", "x10^9/l": "10*9/L", "10e9/l": "10*9/L", "giga/l": "10*9/L", "g/l ": "g/L",
    "/ul": "/uL", "cells/ul": "/uL", "/mm3": "/uL", "cells/mm3": "/uL",
    "iu/l": "U/L", "u/l": "U/L", "[iu]/l": "U/L",
    "ml": "mL", "cc": "mL", "l": "L", "ml/(24.h)": "mL", "ml/24h": "mL", "ml/24 h": "mL",
    "kg": "kg", "g": "g", "lb": "[lb_av]", "lbs": "[lb_av]", "[lb_av]": "[lb_av]", "oz": "[oz_av]", "[oz_av]": "[oz_av]",
    "cm": "cm", "m": "m", "in": "[in_i]", "[in_i]": "[in_i]", "[in_us]": "[in_i]", "inches": "[in_i]",
    "kpa": "kPa",
}  # fmt: skip
"""Lower-cased spellings to UCUM codes. UCUM codes themselves are tried first, case kept."""

_FACTORS: dict[str, dict[str, float]] = {
    "/min": {"/min": 1, "Hz": 60},
    "mm[Hg]": {"mm[Hg]": 1, "kPa": 7.500617},
    "%": {"%": 1, "1": 100, "L/L": 100},
    "mg/dL": {"mg/dL": 1, "mg/L": 0.1, "g/L": 100},
    "mmol/L": {"mmol/L": 1, "meq/L": 1, "umol/L": 0.001, "mol/L": 1000},
    "g/dL": {"g/dL": 1, "g/L": 0.1, "mg/dL": 0.001},
    "10*3/uL": {"10*3/uL": 1, "10*9/L": 1, "/uL": 0.001, "10*6/L": 0.001},
    "mL": {"mL": 1, "L": 1000},
    "kg": {"kg": 1, "g": 0.001, "[lb_av]": 0.45359237, "[oz_av]": 0.028349523125},
    "cm": {"cm": 1, "m": 100, "[in_i]": 2.54, "[ft_i]": 30.48},
}
"""By canonical unit: factor from each unit that needs no knowledge of the substance."""

_SUBSTANCE: dict[str, dict[str, float]] = {
    "glucose": {"mmol/L": 18.016},
    "creatinine": {"umol/L": 113.12 / 10_000, "mmol/L": 11.312},
    "urea_nitrogen": {"mmol/L": 2.801},
    "calcium": {"mmol/L": 4.008, "meq/L": 2.004},
    "lactate": {"mg/dL": 1 / 9.008},
    "haemoglobin": {"mmol/L": 1.6114},
}
"""By feature: factor from units that need the molar mass. Equivalents hold for monovalent ions only."""

_MONOVALENT = ("sodium", "potassium", "chloride", "bicarbonate")

_PLAUSIBLE: dict[str, tuple[float, float]] = {
    "heart_rate": (30, 220), "systolic_bp": (50, 250), "diastolic_bp": (20, 160), "mean_bp": (30, 190),
    "respiratory_rate": (4, 60), "temperature": (32, 42), "spo2": (50, 100), "glucose": (30, 800),
    "creatinine": (0.2, 20), "urea_nitrogen": (2, 180), "sodium": (110, 180), "potassium": (1.5, 9),
    "chloride": (70, 140), "bicarbonate": (5, 50), "haemoglobin": (3, 22), "white_blood_cells": (0.1, 100),
    "platelets": (5, 1500), "calcium": (4, 16), "lactate": (0.2, 25), "urine_output": (0, 3000),
    "weight": (2, 300), "height": (40, 230), "haematocrit": (10, 70),
}  # fmt: skip
"""By feature, in the canonical unit: where a value without a unit may lie for a unit to be inferred."""

_INFERABLE: dict[str, tuple[str, ...]] = {
    "Cel": ("Cel", "[degF]"), "mm[Hg]": ("mm[Hg]", "kPa"), "%": ("%", "1"), "g/dL": ("g/dL", "g/L"),
    "mg/dL": ("mg/dL", "mmol/L"), "10*3/uL": ("10*3/uL", "/uL"), "kg": ("kg", "[lb_av]"), "cm": ("cm", "m", "[in_i]"),
}  # fmt: skip
"""By canonical unit: the units in which hospitals report; others only their canonical one."""

_INFERABLE_FOR = {"creatinine": ("mg/dL", "umol/L"), "lactate": ("mmol/L", "mg/dL")}

_FEATURE_OF = {
    concept.concept_id: name
    for group in (SERIES_CONCEPTS, STATIC_CONCEPTS)
    for name, concepts in group.items()
    for concept in concepts
}


_UCUM_CODES = frozenset(_ALIASES.values()) | {unit for factors in _FACTORS.values() for unit in factors}
_COUNTED = frozenset(
    ("{score}", "{#}", "{count}", "{beats}", "{beats}/min", "{breaths}", "{breaths}/min", "{ratio}", "{INR}")
)
"""Annotations of UCUM that are known; any other text could stand in braces."""

_ATOM = (
    r"(10[*^]-?\d{1,2}|%|\[(pH|IU|iU|degF|in_i|ft_i|lb_av|oz_av|CFU)\]|m?m\[Hg\]|(min|mo|wk|Cel|bar|K)"
    r"|(da|[kcdmunpfMG])?(g|[lL]|m|s|h|d|a|mol|eq|osm|Pa|U|\[IU\]|\[iU\]|kat|Hz|J|cal|V|A|N|Bq|Gy|Sv)[23]?)"
)
_UCUM_FORM = re.compile(rf"/?{_ATOM}([./]{_ATOM}){{0,3}}")


@dataclass(frozen=True, slots=True)
class Conversion:
    """``canonical = value * factor + offset``."""

    factor: float
    offset: float = 0.0


IDENTITY = Conversion(1.0)
_TEMPERATURES = {"Cel": IDENTITY, "[degF]": Conversion(5 / 9, -160 / 9), "K": Conversion(1, -273.15)}


@dataclass(frozen=True, slots=True)
class Plausible:
    """A unit that a value between ``low`` and ``high`` (in that unit) could have, and its conversion."""

    unit: str
    low: float
    high: float
    conversion: Conversion


def ucum(unit: str) -> str:
    """A unit's UCUM code: annotations in braces dropped, known spellings replaced, others as they came."""
    bare = re.sub(r"\{[^}]*\}", "", unit).strip()
    if bare in ("", "/min"):
        return bare
    if any(bare in factors for factors in _FACTORS.values()):
        return bare
    return _ALIASES.get(" ".join(bare.lower().split()), bare)


def is_known_unit(unit: str) -> bool:
    """Whether a unit is one of ours, a known spelling of one, or made of the atoms of UCUM alone."""
    if unit in _COUNTED:
        return True
    return "{" not in unit and (ucum(unit) in _UCUM_CODES or _UCUM_FORM.fullmatch(unit) is not None)


def site_unit(unit: str, system: str, site_map: SiteMap) -> str:
    """A unit after the site map (which counts whatever system the site gives it) and the aliases."""
    for source in ((system, unit), ("", unit)):
        if (target := site_map.codes.get(source)) and target[0] == UCUM:
            return ucum(target[1])
    for (_, code), (target_system, target_code) in site_map.codes.items():
        if code == unit and target_system == UCUM:
            return ucum(target_code)
    return ucum(unit)


def conversions(concept_id: int) -> dict[str, Conversion]:
    """The units that a measurement concept accepts, each with its conversion to the canonical one.

    Raises:
      KeyError: the concept has no canonical unit.
    """
    canonical = MEASUREMENTS[concept_id].unit or ""
    if canonical == "Cel":
        return dict(_TEMPERATURES)
    feature = _FEATURE_OF[concept_id]
    factors = dict(_FACTORS[canonical])
    if feature not in _MONOVALENT:
        factors.pop("meq/L", None)
    factors |= _SUBSTANCE.get(feature, {})
    return {unit: Conversion(factor) for unit, factor in factors.items()}


def convert(concept_id: int, unit: str) -> Conversion | None:
    """The conversion from a UCUM unit to the concept's canonical one, or None when there is none."""
    return conversions(concept_id).get(unit)


def conversion(unit: str, target: str, *, concept_ids: Iterable[int] = ()) -> Conversion | None:
    """The conversion from one unit to another, or None when there is none.

    Annotations in braces count as the unit 1. A unit that needs the molar mass, or that depends on the ion's valence,
    is converted by what is known of the measured concepts, and only if they agree.

    Args:
      unit, target: UCUM codes, or spellings of them.
      concept_ids: OMOP concepts that the value may be of; those without a canonical unit say nothing.
    """
    source, wanted = ucum(unit) or "1", ucum(target) or "1"
    if source == wanted:
        return IDENTITY
    known = [conversions(concept_id) for concept_id in concept_ids if concept_id in MEASUREMENTS]
    of_substance = {_through(units, source, wanted) for units in known} or {None}
    if of_substance != {None}:
        return of_substance.pop() if len(of_substance) == 1 else None
    plain = [{u: Conversion(f) for u, f in factors.items() if u != "meq/L"} for factors in _FACTORS.values()]
    found = (_through(units, source, wanted) for units in (*plain, _TEMPERATURES))
    return next((each for each in found if each is not None), None)


def _through(units: Mapping[str, Conversion], source: str, wanted: str) -> Conversion | None:
    """From one unit to another of which both have a conversion to the same one."""
    if source not in units or wanted not in units:
        return None
    there, back = units[source], units[wanted]
    return Conversion(there.factor / back.factor, (there.offset - back.offset) / back.factor)


def plausible_units(concept_id: int) -> tuple[Plausible, ...]:
    """For each unit in which hospitals report a concept, where its values lie in that unit."""
    feature, canonical = _FEATURE_OF[concept_id], MEASUREMENTS[concept_id].unit or ""
    low, high = _PLAUSIBLE[feature]
    known = conversions(concept_id)
    found = []
    for unit in _INFERABLE_FOR.get(feature, _INFERABLE.get(canonical, (canonical,))):
        conversion = known[unit]
        ends = [(end - conversion.offset) / conversion.factor for end in (low, high)]
        found.append(Plausible(unit, ends[0], ends[1], conversion))
    return tuple(found)
