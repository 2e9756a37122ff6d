"""The OMOP concepts we use: ids with names, domains and canonical units. No licensed vocabulary is needed.

Ids and LOINC codes: OHDSI standard vocabularies as published in their open concept lists. This material contains
content from LOINC (https://loinc.org), copyright Regenstrief Institute, Inc., and available at no cost under the
licence at https://loinc.org/license.
"""

from dataclasses import dataclass
from typing import Literal

Domain = Literal[
    "Measurement", "Unit", "Visit", "Gender", "Type", "Condition Status", "Operator", "Race", "Metadata"
]


@dataclass(frozen=True, slots=True)
class Concept:
    """One OMOP concept; ``unit`` is the UCUM unit in which a measurement's value is kept."""

    concept_id: int
    name: str
    domain: Domain
    unit: str | None = None


def _measurement(concept_id: int, name: str, unit: str) -> Concept:
    return Concept(concept_id, name, "Measurement", unit)


UNMAPPED = 0

SERIES_CONCEPTS: dict[str, tuple[Concept, ...]] = {
    "heart_rate": (_measurement(3027018, "Heart rate", "/min"),),
    "systolic_bp": (
        _measurement(3004249, "Systolic blood pressure", "mm[Hg]"),
        _measurement(21492239, "Systolic blood pressure by cuff", "mm[Hg]"),
    ),
    "diastolic_bp": (
        _measurement(3012888, "Diastolic blood pressure", "mm[Hg]"),
        _measurement(21492240, "Diastolic blood pressure by cuff", "mm[Hg]"),
    ),
    "mean_bp": (
        _measurement(3027598, "Mean blood pressure", "mm[Hg]"),
        _measurement(21492241, "Mean blood pressure by cuff", "mm[Hg]"),
    ),
    "respiratory_rate": (_measurement(3024171, "Respiratory rate", "/min"),),
    "temperature": (_measurement(3020891, "Body temperature", "Cel"),),
    "spo2": (
        _measurement(40762499, "Oxygen saturation in arterial blood by pulse oximetry", "%"),
        _measurement(3016502, "Oxygen saturation in arterial blood", "%"),
    ),
    "glucose": (_measurement(3004501, "Glucose [mass/volume]", "mg/dL"),),
    "creatinine": (_measurement(3016723, "Creatinine [mass/volume]", "mg/dL"),),
    "urea_nitrogen": (_measurement(3013682, "Urea nitrogen [mass/volume]", "mg/dL"),),
    "sodium": (_measurement(3019550, "Sodium [moles/volume]", "mmol/L"),),
    "potassium": (_measurement(3023103, "Potassium [moles/volume]", "mmol/L"),),
    "chloride": (_measurement(3014576, "Chloride [moles/volume]", "mmol/L"),),
    "bicarbonate": (_measurement(3016293, "Bicarbonate [moles/volume]", "mmol/L"),),
    "haemoglobin": (_measurement(3000963, "Hemoglobin [mass/volume]", "g/dL"),),
    "white_blood_cells": (_measurement(3000905, "Leukocytes [#/volume]", "10*3/uL"),),
    "platelets": (_measurement(3024929, "Platelets [#/volume]", "10*3/uL"),),
    "calcium": (_measurement(3006906, "Calcium [mass/volume]", "mg/dL"),),
    "lactate": (_measurement(3047181, "Lactate [moles/volume]", "mmol/L"),),
    "urine_output": (_measurement(3014315, "Urine output", "mL"),),
}
"""The 20 series features in the order of the columns: each is a set of concepts, never one code."""

STATIC_CONCEPTS: dict[str, tuple[Concept, ...]] = {
    "weight": (_measurement(3025315, "Body weight", "kg"),),
    "height": (_measurement(3036277, "Body height", "cm"),),
    "haematocrit": (_measurement(3023314, "Hematocrit [volume fraction]", "%"),),
}

MEASUREMENTS: dict[int, Concept] = {
    concept.concept_id: concept
    for group in (SERIES_CONCEPTS, STATIC_CONCEPTS)
    for concepts in group.values()
    for concept in concepts
}
"""Every measurement concept by id."""

VISIT_INPATIENT = 9201
VISIT_OUTPATIENT = 9202
VISIT_EMERGENCY = 9203
VISIT_EMERGENCY_TO_INPATIENT = 262
VISIT_INTENSIVE_CARE = 32037
VISIT_HOME = 581476
INPATIENT_VISITS = (VISIT_INPATIENT, VISIT_EMERGENCY_TO_INPATIENT)

DISCHARGED_HOME = 8536
DISCHARGED_HOME_CARE = 38004519
DISCHARGED_NURSING_SKILLED = 8863
DISCHARGED_HOSPICE = 8546
DISCHARGED_AGAINST_ADVICE = 32216
DISCHARGED_EXPIRED = 32218
DISCHARGED_ACUTE_TRANSFER = 8717
DISCHARGED_REHABILITATION = 8920
DISCHARGED_PSYCHIATRIC = 8971
DISCHARGED_LONG_TERM = 8676

STILL_PATIENT = 32220

GENDER_MALE = 8507
GENDER_FEMALE = 8532
GENDER_OTHER = 8521

TYPE_EHR = 32817
TYPE_EHR_PRESCRIPTION = 32838
TYPE_EHR_ADMINISTRATION = 32818
CONDITION_CONFIRMED = 32893
CONDITION_REFUTED = 2_000_000_001  # OMOP has none; ids above 2e9 are for local concepts
CONDITION_PRELIMINARY = 32899

OPERATORS: dict[str, int] = {"<": 4171756, "<=": 4171754, "=": 4172703, ">=": 4171755, ">": 4172704}
"""OMOP operator concepts by FHIR comparator."""

UNITS: dict[str, int] = {
    "/min": 8541,
    "mm[Hg]": 8876,
    "Cel": 586323,
    "[degF]": 9289,
    "%": 8554,
    "mg/dL": 8840,
    "mmol/L": 8753,
    "umol/L": 8749,
    "g/dL": 8713,
    "g/L": 8636,
    "10*3/uL": 8848,
    "mL": 8587,
    "kg": 9529,
    "cm": 8582,
    "U/L": 8645,
    "kg/m2": 9531,
}
"""OMOP unit concepts by UCUM code."""

UNITS_OF: dict[int, str] = {concept: unit for unit, concept in UNITS.items()} | {
    8653: "Cel", 8519: "L", 8504: "g", 8739: "[lb_av]", 9373: "[oz_av]", 9546: "m", 9327: "[in_i]", 9330: "[in_i]",
    9557: "meq/L", 8751: "mg/L", 9444: "10*9/L", 8647: "/uL",
}  # fmt: skip
"""UCUM codes by OMOP unit concept, as a hospital's own OMOP may have them."""

RACES: dict[str, int] = {"2106-3": 8527, "2054-5": 8516, "2028-9": 8515, "1002-5": 8657, "2076-8": 8557}
"""OMOP race concepts by CDC race code (urn:oid:2.16.840.1.113883.6.238)."""

ETHNICITIES: dict[str, int] = {"2135-2": 38003563, "2186-5": 38003564}
"""OMOP ethnicity concepts by CDC code."""

NOT_STATED = ("2131-1", "UNK", "ASKU")
"""Codes of US Core's OMB categories that say another race, unknown, or asked and not told."""

CDM_5_4 = 756265
"""The concept of the CDM version."""

NAMES: dict[int, str] = {
    UNMAPPED: "No matching concept",
    VISIT_INPATIENT: "Inpatient visit",
    VISIT_OUTPATIENT: "Outpatient visit",
    VISIT_EMERGENCY: "Emergency room visit",
    VISIT_EMERGENCY_TO_INPATIENT: "Emergency room and inpatient visit",
    VISIT_INTENSIVE_CARE: "Intensive care",
    VISIT_HOME: "Home visit",
    DISCHARGED_HOME: "Home",
    DISCHARGED_HOME_CARE: "Home Health Agency",
    DISCHARGED_NURSING_SKILLED: "Skilled nursing facility",
    DISCHARGED_HOSPICE: "Hospice",
    DISCHARGED_AGAINST_ADVICE: "Left against medical advice",
    DISCHARGED_EXPIRED: "Expired",
    DISCHARGED_ACUTE_TRANSFER: "Inpatient hospital",
    DISCHARGED_REHABILITATION: "Inpatient rehabilitation facility",
    DISCHARGED_PSYCHIATRIC: "Inpatient psychiatric facility",
    DISCHARGED_LONG_TERM: "Nursing facility",
    GENDER_MALE: "MALE",
    GENDER_FEMALE: "FEMALE",
    GENDER_OTHER: "OTHER",
    TYPE_EHR: "EHR",
    TYPE_EHR_PRESCRIPTION: "EHR prescription",
    TYPE_EHR_ADMINISTRATION: "EHR administration record",
    STILL_PATIENT: "Still patient",
    CONDITION_CONFIRMED: "Confirmed diagnosis",
    CONDITION_REFUTED: "Refuted condition (local)",
    CONDITION_PRELIMINARY: "Preliminary diagnosis",
    **{concept.concept_id: concept.name for concept in MEASUREMENTS.values()},
}
"""Names of the concepts above, for people to read."""
