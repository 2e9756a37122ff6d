"""Domain and class of every concept of the value-set package, so that a map's target can be checked against its column.

Source: OHDSI standard vocabularies. A concept that is not here is unknown to the package, not wrong.
"""

from dataclasses import dataclass

from fedhealth.vocabulary import concepts
from fedhealth.vocabulary.maps import shipped_codes


@dataclass(frozen=True, slots=True)
class Kind:
    """What a concept is: its OMOP domain and its concept class ("" where none is claimed)."""

    domain: str
    concept_class: str = ""


_EMERGENCY_ROOM, _OUTPATIENT_HOSPITAL, _OFFICE = 8870, 8756, 8940
_PLACES = (
    concepts.DISCHARGED_HOME,
    concepts.DISCHARGED_HOME_CARE,
    concepts.DISCHARGED_NURSING_SKILLED,
    concepts.DISCHARGED_HOSPICE,
    concepts.DISCHARGED_AGAINST_ADVICE,
    concepts.DISCHARGED_EXPIRED,
    concepts.DISCHARGED_ACUTE_TRANSFER,
    concepts.DISCHARGED_REHABILITATION,
    concepts.DISCHARGED_PSYCHIATRIC,
    concepts.DISCHARGED_LONG_TERM,
    concepts.STILL_PATIENT,
    _EMERGENCY_ROOM,
    _OUTPATIENT_HOSPITAL,
    _OFFICE,
)


def _plain() -> dict[int, Kind]:
    return {
        **dict.fromkeys(concepts.UNITS.values(), Kind("Unit", "Unit")),
        **dict.fromkeys(concepts.OPERATORS.values(), Kind("Meas Value Operator")),
        **dict.fromkeys(concepts.RACES.values(), Kind("Race", "Race")),
        **dict.fromkeys(concepts.ETHNICITIES.values(), Kind("Ethnicity", "Ethnicity")),
        **dict.fromkeys(
            (concepts.GENDER_MALE, concepts.GENDER_FEMALE, concepts.GENDER_OTHER), Kind("Gender", "Gender")
        ),
        **dict.fromkeys(
            (concepts.TYPE_EHR, concepts.TYPE_EHR_PRESCRIPTION, concepts.TYPE_EHR_ADMINISTRATION),
            Kind("Type Concept", "Type Concept"),
        ),
        **dict.fromkeys(
            (
                concepts.CONDITION_CONFIRMED,
                concepts.CONDITION_REFUTED,
                concepts.CONDITION_PRELIMINARY,
            ),
            Kind("Condition Status"),
        ),
        concepts.CDM_5_4: Kind("Metadata"),
    }


def package_concepts() -> dict[int, Kind]:
    """Every concept that the package knows, but 0. Conditions are those of the shipped map of diagnoses."""
    visits = dict.fromkeys(
        (
            concepts.VISIT_INPATIENT,
            concepts.VISIT_OUTPATIENT,
            concepts.VISIT_EMERGENCY,
            concepts.VISIT_EMERGENCY_TO_INPATIENT,
        ),
        Kind("Visit", "Visit"),
    )
    stays = dict.fromkeys((concepts.VISIT_INTENSIVE_CARE, concepts.VISIT_HOME), Kind("Visit"))
    return {
        **dict.fromkeys(shipped_codes("condition").values(), Kind("Condition")),
        **dict.fromkeys(_PLACES, Kind("Visit")),
        **stays,
        **visits,
        **dict.fromkeys(concepts.MEASUREMENTS, Kind("Measurement")),
        **_plain(),
    }
