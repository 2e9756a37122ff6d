"""The concept sets and code prefixes that cohorts and features are made of.

Concepts are those of `fedhealth.vocabulary.concepts`; codes are ICD-10 prefixes without the point (public).
"""

from collections.abc import Iterable

from fedhealth.vocabulary import concepts

INPATIENT_CONCEPTS = concepts.INPATIENT_VISITS
EMERGENCY_CONCEPTS = (concepts.VISIT_EMERGENCY, concepts.VISIT_EMERGENCY_TO_INPATIENT)
EMERGENCY_VISITS = (concepts.VISIT_EMERGENCY,)
"""Emergency visits that are no part of an inpatient stay."""
OUTPATIENT_VISITS = (concepts.VISIT_OUTPATIENT, 581477)
"""Outpatient and office visits."""
INTENSIVE_CARE_CONCEPTS = (concepts.VISIT_INTENSIVE_CARE,)
EXPIRED_CONCEPTS = (concepts.DISCHARGED_EXPIRED, 4216643)
"""Discharge to: patient died; the id of this project's maps, and the standard one of plugged-in databases."""
AGAINST_ADVICE_CONCEPTS = (concepts.DISCHARGED_AGAINST_ADVICE, 4021968)
"""Discharge to: against medical advice; both ids again."""
ACUTE_TRANSFER_CONCEPTS = (concepts.DISCHARGED_ACUTE_TRANSFER, concepts.VISIT_INPATIENT)
"""Discharge to: another acute hospital."""
DISPOSITION_CONCEPTS: dict[str, tuple[int, ...]] = {
    "home": (concepts.DISCHARGED_HOME,),
    "home_care": (concepts.DISCHARGED_HOME_CARE, concepts.VISIT_HOME),
    "facility": (
        concepts.DISCHARGED_NURSING_SKILLED,
        concepts.DISCHARGED_LONG_TERM,
        concepts.DISCHARGED_REHABILITATION,
        concepts.DISCHARGED_PSYCHIATRIC,
        concepts.DISCHARGED_HOSPICE,
        8970,  # inpatient long-term care
        8827,  # custodial care facility
        8615,  # assisted living facility
    ),
    "transfer": ACUTE_TRANSFER_CONCEPTS,
    "died": EXPIRED_CONCEPTS,
}
"""Discharge to, by the classes of the outcome ``disposition``. Who left against advice went nowhere that is known."""

NOT_ESTABLISHED = (concepts.CONDITION_REFUTED, concepts.CONDITION_PRELIMINARY)
"""Status of a condition that nobody has established."""

RACE_OTHER = 8522
RACE_OTHER_CODE = "2131-1"
"""OMOP's concept of another race, and the CDC code that our own maps leave without one."""

SERIES_CONCEPTS: dict[str, tuple[int, ...]] = {
    name: tuple(concept.concept_id for concept in found) for name, found in concepts.SERIES_CONCEPTS.items()
}
"""The concepts of each series feature, by its name in `fedhealth.study.columns.SERIES`."""

ICD_10 = r"icd-?10|urn:oid:2\.16\.840\.1\.113883\.6\.(3|90)$"
"""Regular expression for the code systems of ICD-10 and its national forms."""
ICD_10_PCS = r"icd-10-pcs|Medicare/Coding/ICD10|urn:oid:2\.16\.840\.1\.113883\.6\.4$"
"""Regular expression for the code system of ICD-10-PCS."""

REASON_DIAGNOSES: dict[str, tuple[str, ...]] = {
    "psychiatric": ("F",),
    "rehabilitation": ("Z50", "Z5189"),
    "cancer": ("C", "Z510", "Z511"),
}
"""ICD-10 prefixes of the reasons for which a stay leaves the cohort, after CMS's readmission measure (HWR)."""
REASON_PROCEDURES: dict[str, tuple[str, ...]] = {
    "psychiatric": ("GZ",),
    "rehabilitation": ("F0",),
    "cancer": ("D",),
}
"""ICD-10-PCS prefixes of the same: mental health, physical rehabilitation, radiation therapy."""

END_STAGE_KIDNEY_DIAGNOSES = ("N186", "Z992", "Z49", "Z9115", "I120", "I1311", "I132")
"""ICD-10 prefixes: end-stage kidney disease, dependence on and care involving dialysis."""
END_STAGE_KIDNEY_PROCEDURES = ("5A1D",)
"""ICD-10-PCS prefix: haemodialysis and haemofiltration."""

_ELIXHAUSER: dict[str, str] = {
    "congestive_heart_failure": "I099 I110 I130 I132 I255 I420 I425 I426 I427 I428 I429 I43 I50 P290",
    "cardiac_arrhythmia": "I441 I442 I443 I456 I459 I47 I48 I49 R000 R001 R008 T821 Z450 Z950",
    "valvular_disease": (
        "A520 I05 I06 I07 I08 I091 I098 I34 I35 I36 I37 I38 I39 Q230 Q231 Q232 Q233 Z952 Z953 Z954"
    ),
    "pulmonary_circulation": "I26 I27 I280 I288 I289",
    "peripheral_vascular": "I70 I71 I731 I738 I739 I771 I790 I792 K551 K558 K559 Z958 Z959",
    "hypertension_uncomplicated": "I10",
    "hypertension_complicated": "I11 I12 I13 I15",
    "paralysis": "G041 G114 G801 G802 G81 G82 G830 G831 G832 G833 G834 G839",
    "other_neurological": (
        "G10 G11 G12 G13 G20 G21 G22 G254 G255 G312 G318 G319 G32 G35 G36 G37 G40 G41 G931 G934 R470 R56"
    ),
    "chronic_pulmonary": (
        "I278 I279 J40 J41 J42 J43 J44 J45 J46 J47 J60 J61 J62 J63 J64 J65 J66 J67 J684 J701 J703"
    ),
    "diabetes_uncomplicated": ("E100 E101 E109 E110 E111 E119 E120 E121 E129 E130 E131 E139 E140 E141 E149"),
    "diabetes_complicated": (
        "E102 E103 E104 E105 E106 E107 E108 E112 E113 E114 E115 E116 E117 E118 E122 E123 E124 E125 "
        "E126 E127 E128 E132 E133 E134 E135 E136 E137 E138 E142 E143 E144 E145 E146 E147 E148"
    ),
    "hypothyroidism": "E00 E01 E02 E03 E890",
    "renal_failure": "I120 I131 N18 N19 N250 Z490 Z491 Z492 Z940 Z992",
    "liver_disease": (
        "B18 I85 I864 I982 K70 K711 K713 K714 K715 K717 K72 K73 K74 K760 K762 K763 K764 K765 K766 "
        "K767 K768 K769 Z944"
    ),
    "peptic_ulcer": "K257 K259 K267 K269 K277 K279 K287 K289",
    "hiv": "B20 B21 B22 B24",
    "lymphoma": "C81 C82 C83 C84 C85 C88 C96 C900 C902",
    "metastatic_cancer": "C77 C78 C79 C80",
    "solid_tumour": (
        "C00 C01 C02 C03 C04 C05 C06 C07 C08 C09 C10 C11 C12 C13 C14 C15 C16 C17 C18 C19 C20 C21 C22 "
        "C23 C24 C25 C26 C30 C31 C32 C33 C34 C37 C38 C39 C40 C41 C43 C45 C46 C47 C48 C49 C50 C51 C52 "
        "C53 C54 C55 C56 C57 C58 C60 C61 C62 C63 C64 C65 C66 C67 C68 C69 C70 C71 C72 C73 C74 C75 C76 "
        "C97"
    ),
    "rheumatoid_arthritis": (
        "L940 L941 L943 M05 M06 M08 M120 M123 M30 M310 M311 M312 M313 M32 M33 M34 M35 M45 M461 M468 M469"
    ),
    "coagulopathy": "D65 D66 D67 D68 D691 D693 D694 D695 D696",
    "obesity": "E66",
    "weight_loss": "E40 E41 E42 E43 E44 E45 E46 R634 R64",
    "fluid_electrolyte": "E222 E86 E87",
    "blood_loss_anaemia": "D500",
    "deficiency_anaemia": "D508 D509 D51 D52 D53",
    "alcohol_abuse": "F10 E52 G621 I426 K292 K700 K703 K709 T51 Z502 Z714 Z721",
    "drug_abuse": "F11 F12 F13 F14 F15 F16 F18 F19 Z715 Z722",
    "psychoses": "F20 F22 F23 F24 F25 F28 F29 F302 F312 F315",
    "depression": "F204 F313 F314 F315 F32 F33 F341 F412 F432",
}
ELIXHAUSER_PREFIXES: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    (name, tuple(codes.split())) for name, codes in _ELIXHAUSER.items()
)
"""The 31 Elixhauser groups. Source: Quan et al. 2005, Med Care 43(11), table 2 (ICD-10)."""


def sql_list(values: Iterable[int]) -> str:
    """Integers as an SQL list, such as ``(1, 2)``."""
    return f"({', '.join(str(int(value)) for value in values)})"
