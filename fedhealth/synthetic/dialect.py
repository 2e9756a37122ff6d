"""Fifteen EHR dialects: units, codes, classes, links, packing; all that a site map or the harmoniser undoes."""

from dataclasses import dataclass, field

from fedhealth.synthetic.packing import Packing

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"

Units = dict[str, tuple[str, float, int]]

_US: Units = {"creatinine": ("mg/dL", 1.0, 2), "glucose": ("mg/dL", 1.0, 0)}
_SI: Units = {
    "creatinine": ("umol/L", 88.4016973, 0),
    "glucose": ("mmol/L", 1 / 18.016, 1),
    "urea_nitrogen": ("mmol/L", 1 / 2.801, 1),
    "haemoglobin": ("g/L", 10.0, 0),
    "calcium": ("mmol/L", 1 / 4.008, 2),
}
_OLD: Units = {
    "sodium": ("mEq/L", 1.0, 0),
    "potassium": ("mEq/L", 1.0, 1),
    "chloride": ("mEq/L", 1.0, 0),
    "bicarbonate": ("mEq/L", 1.0, 0),
    "white_blood_cells": ("K/uL", 1.0, 1),
    "platelets": ("K/uL", 1.0, 0),
    "systolic_bp": ("mm Hg", 1.0, 0),
    "diastolic_bp": ("mm Hg", 1.0, 0),
}
_HOUSE: Units = {
    "creatinine": ("Mikromol", 88.4016973, 0),
    "haemoglobin": ("Gramm pro Liter", 10.0, 0),
    "platelets": ("Tsd/Mikroliter", 1.0, 0),
}
HOUSE_UNITS = {"Mikromol": "umol/L", "Gramm pro Liter": "g/L", "Tsd/Mikroliter": "10*3/uL"}
"""Units that no table of aliases knows, and what a site map says they are."""


_HL7: dict[str, tuple[str, str]] = {
    "inpatient": (ACT_CODE, "IMP"),
    "emergency": (ACT_CODE, "EMER"),
    "ambulatory": (ACT_CODE, "AMB"),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a hospital writes things down. The default is the canonical dialect: the clean source.

    Attributes:
      units: by quantity, (unit, factor from the canonical unit, digits).
      fahrenheit: temperatures in degrees Fahrenheit.
      panels: blood pressure as a panel with components.
      classes: encounter class codes for inpatient, emergency and ambulatory, as (system, code); with ``elective``
        if elective admissions have a class of their own.
      local_labs: laboratory codes are the hospital's own.
      local_diagnoses: codes of diagnoses and drugs are the hospital's own.
      local_dispositions: codes of the discharge disposition are the hospital's own.
      unlinked_labs: laboratory results name no encounter.
      unit_lost_every: every n-th observation has lost its unit; 0 is none.
      dotless: codes of diagnoses are written without their point.
      comparators: a value at the limit of what is measured is written as below or above it.
      packing: references, times, contained resources, bundles, compression.
    """

    units: Units = field(default_factory=dict)
    fahrenheit: bool = False
    panels: bool = False
    classes: dict[str, tuple[str, str]] = field(default_factory=lambda: dict(_HL7))
    local_labs: bool = False
    local_diagnoses: bool = False
    local_dispositions: bool = False
    unlinked_labs: bool = False
    unit_lost_every: int = 0
    dotless: bool = False
    comparators: bool = False
    packing: Packing = field(default_factory=Packing)


# As in MIMIC-IV on FHIR, where no encounter is IMP: admissions are observation encounters and short stays.
_NO_INPATIENT = _HL7 | {"inpatient": (ACT_CODE, "OBSENC"), "elective": (ACT_CODE, "SS")}


def _words(name: str, *codes: str) -> dict[str, tuple[str, str]]:
    return {
        kind: (f"urn:{name}:class", code)
        for kind, code in zip(("inpatient", "emergency", "ambulatory"), codes, strict=True)
    }


def dialect_of(index: int, name: str) -> Dialect:
    """One of fifteen dialects, by the hospital's number."""
    english = _words(name, "inpatient", "emergency", "outpatient")
    letters = _words(name, "S", "N", "P")
    german = _words(name, "stationär", "Notfall", "ambulant")
    dialects = (
        Dialect(units=_US, fahrenheit=True),
        Dialect(units=_SI, classes=english, panels=True),
        Dialect(units=_OLD, classes=letters, panels=True, fahrenheit=True, dotless=True),
        Dialect(units=_SI | _OLD, local_labs=True),
        Dialect(units=_US | _OLD, classes=english, fahrenheit=True, comparators=True),
        Dialect(units=_SI, classes=letters, panels=True, local_labs=True),
        Dialect(units=_SI, packing=Packing(bundles="transaction", references="urn")),
        Dialect(units=_US, classes=_NO_INPATIENT, fahrenheit=True, unlinked_labs=True),
        Dialect(units=_OLD, packing=Packing(compressed=True, time_zone="Asia/Kolkata", offset=False)),
        Dialect(units=_SI, panels=True, unit_lost_every=15),
        Dialect(units=_US, classes=english, packing=Packing(bundles="searchset", references="absolute")),
        Dialect(
            units=_US | _OLD,
            fahrenheit=True,
            packing=Packing(bundles="batch", compressed=True, references="conditional", contained=True),
        ),
        Dialect(
            units=_SI | _HOUSE,
            classes=german,
            local_dispositions=True,
            packing=Packing(time_zone="Europe/Berlin", references="absolute"),
        ),
        Dialect(
            units=_US,
            fahrenheit=True,
            local_labs=True,
            local_diagnoses=True,
            packing=Packing(bundles="collection"),
        ),
        Dialect(
            units=_SI | _OLD,
            classes=_NO_INPATIENT,
            panels=True,
            local_labs=True,
            unlinked_labs=True,
            packing=Packing(
                bundles="searchset",
                compressed=True,
                references="absolute",
                time_zone="America/New_York",
                contained=True,
            ),
        ),
    )
    return dialects[index % len(dialects)]


def lab_system(name: str) -> str:
    """The hospital's own code system of laboratory tests."""
    return f"urn:{name}:lab"


def local_system(name: str, kind: str) -> str:
    """The hospital's own code system of a kind: diagnosis, drug, disposition."""
    return f"urn:{name}:{kind}"
