"""Limits of the measured quantities: physiological ranges, usual ranges, and the units that mean the canonical one.

Outside the physiological range a value is no measurement of a living patient; outside the usual one it is rare.
Both include their ends and are in the canonical unit of `fedhealth.vocabulary.concepts`. They were fixed with the
design of the checks, before any scored data.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from fedhealth.vocabulary.concepts import SERIES_CONCEPTS, UNITS


@dataclass(frozen=True, slots=True)
class Range:
    """Physiological limits of one quantity, and its usual ones where they are known."""

    low: float
    high: float
    usual: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ConceptLimit:
    """One measured concept: its quantity, range and the unit concepts that its values may carry."""

    quantity: str
    concept: int
    range: Range
    units: tuple[int, ...]


RANGES: dict[str, Range] = {
    "heart_rate": Range(0, 300, (30, 220)),
    "systolic_bp": Range(0, 300, (50, 250)),
    "diastolic_bp": Range(0, 300),
    "mean_bp": Range(0, 250),
    "respiratory_rate": Range(0, 80, (4, 60)),
    "temperature": Range(25, 45, (32, 42)),
    "spo2": Range(0, 100, (50, 100)),
    "glucose": Range(10, 2000),
    "creatinine": Range(0.1, 30),
    "urea_nitrogen": Range(1, 250),
    "sodium": Range(90, 200),
    "potassium": Range(1, 12),
    "chloride": Range(60, 160),
    "bicarbonate": Range(2, 60),
    "haemoglobin": Range(1, 25),
    "white_blood_cells": Range(0, 500),
    "platelets": Range(0, 2500),
    "calcium": Range(2, 20),
    "lactate": Range(0.1, 40),
    "urine_output": Range(0, 5000),
}

# OMOP unit concepts of the same size as the canonical one, for hospitals whose data are OMOP already.
_SAME_UNIT: dict[str, tuple[int, ...]] = {
    "/min": (8483,),  # counts per minute
    "Cel": (8653,),  # degree Celsius before UCUM's concept
    "10*3/uL": (8961, 9444),  # thousand per cubic millimetre, billion per litre
}
_MONOVALENT = ("sodium", "potassium", "chloride", "bicarbonate")
_MILLIEQUIVALENT_PER_LITRE = 9557


def concept_limits() -> Iterator[ConceptLimit]:
    """Every concept of the 20 series features with its limits, in the order of the features."""
    for quantity, concepts in SERIES_CONCEPTS.items():
        for concept in concepts:
            unit = concept.unit or ""
            same = (UNITS[unit], *_SAME_UNIT.get(unit, ()))
            units = (*same, _MILLIEQUIVALENT_PER_LITRE) if quantity in _MONOVALENT else same
            yield ConceptLimit(quantity, concept.concept_id, RANGES[quantity], units)
