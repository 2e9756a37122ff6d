"""The kinds of check: 26 of the OHDSI Data Quality Dashboard's 27, by its names, and our own.

Each kind has a Kahn category, what it asks, what a failure means and the share that may fail. The limits follow
from what a check is about, before any data was scored: nothing is tolerated where a join or a key would break;
1% where times contradict each other, as source systems have some; 5% where more can only be a wrong unit or map.

Not here: ``plausibleGenderUseDescendants``, which needs the SNOMED CT hierarchy, and that may not be shipped.

Source: OHDSI Data Quality Dashboard 2.8; Kahn et al. 2016, doi:10.13063/2327-9214.1244.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["fatal", "convention", "characterisation"]
Category = Literal["conformance", "completeness", "plausibility"]


@dataclass(frozen=True, slots=True)
class CheckType:
    """One kind of check.

    Attributes:
      name: the Dashboard's name, or ours.
      category: of Kahn's framework.
      severity: what a failure means, unless a rule says otherwise.
      max_share: share of the counted rows that may fail, unless a rule says otherwise.
      failing: what a failing row is, for people to read.
      is_dashboard: the Dashboard has a check of this name.
    """

    name: str
    category: Category
    severity: Severity
    max_share: float
    failing: str
    is_dashboard: bool = True


_ALL = (
    CheckType("cdmTable", "conformance", "fatal", 0, "a table is not there, or is not Parquet"),
    CheckType("cdmField", "conformance", "fatal", 0, "a column that OMOP requires is not there"),
    CheckType("cdmDatatype", "conformance", "fatal", 0, "a column has a type of another kind"),
    CheckType("isRequired", "conformance", "fatal", 0, "a required value is absent"),
    CheckType("isPrimaryKey", "conformance", "fatal", 0, "a row shares its key with another"),
    CheckType("isForeignKey", "conformance", "fatal", 0, "a key names no row of its table"),
    CheckType(
        "fkDomain", "conformance", "fatal", 0.01, "a concept of the value-set package is of another domain"
    ),
    CheckType(
        "fkClass", "conformance", "convention", 0.01, "a concept of the package is of another concept class"
    ),
    CheckType(
        "isStandardValidConcept",
        "conformance",
        "convention",
        0.01,
        "a concept is local (from 2,000,000,000 on) or negative",
    ),
    CheckType("measureValueCompleteness", "completeness", "characterisation", 0.5, "a value is absent"),
    CheckType("standardConceptRecordCompleteness", "completeness", "convention", 0.5, "the concept is 0"),
    CheckType(
        "sourceConceptRecordCompleteness",
        "completeness",
        "characterisation",
        0.5,
        "the source concept is 0 or absent; counted where the site fills any",
    ),
    CheckType(
        "sourceValueCompleteness",
        "completeness",
        "characterisation",
        0.9,
        "a distinct source value has concept 0 wherever it occurs",
    ),
    CheckType("plausibleValueLow", "plausibility", "fatal", 0.05, "a value is below its limit"),
    CheckType("plausibleValueHigh", "plausibility", "fatal", 0.05, "a value is above its limit"),
    CheckType(
        "plausibleUnitConceptIds",
        "plausibility",
        "convention",
        0.05,
        "a mapped unit is not the concept's canonical one",
    ),
    CheckType(
        "plausibleGender", "plausibility", "convention", 0.01, "a diagnosis that the other sex alone can have"
    ),
    CheckType("plausibleStartBeforeEnd", "plausibility", "fatal", 0.01, "an event ends before it starts"),
    CheckType(
        "plausibleTemporalAfter",
        "plausibility",
        "convention",
        0.05,
        "an event is before the one it must follow",
    ),
    CheckType("plausibleAfterBirth", "plausibility", "fatal", 0.01, "an event is before its person's birth"),
    CheckType(
        "plausibleBeforeDeath", "plausibility", "fatal", 0.01, "an event is over 60 days after a death"
    ),
    CheckType(
        "plausibleDuringLife",
        "plausibility",
        "convention",
        0.01,
        "an event is before birth or over 60 days after death",
    ),
    CheckType(
        "withinVisitDates", "plausibility", "convention", 0.05, "an event is over 7 days outside its visit"
    ),
    CheckType(
        "measurePersonCompleteness", "completeness", "characterisation", 0.95, "a person has no such record"
    ),
    CheckType(
        "measureObservationPeriodOverlap",
        "plausibility",
        "convention",
        0.01,
        "an observation period starts before another of its person has ended",
    ),
    CheckType(
        "measureConditionEraCompleteness",
        "completeness",
        "characterisation",
        0.5,
        "a person with conditions has none that an era can be built from",
    ),
    CheckType(
        "deidentificationRecord", "conformance", "fatal", 0, "the folder does not say how it was made", False
    ),
    CheckType("isNotEmpty", "completeness", "fatal", 0, "a table has no row", False),
    CheckType("visitOfSamePerson", "conformance", "fatal", 0, "the linked visit is another person's", False),
    CheckType("finite", "conformance", "fatal", 0, "a number is infinite or NaN", False),
    CheckType("unitMapped", "completeness", "convention", 0.1, "a number has no mapped unit", False),
    CheckType(
        "duplicateEvent",
        "plausibility",
        "characterisation",
        0.05,
        "another row has the same person, concept, time and value",
        False,
    ),
    CheckType("timestampPrecision", "plausibility", "characterisation", 0.5, "a time is midnight", False),
    CheckType(
        "visitLinkCoverage", "completeness", "convention", 0.3, "an event is linked to no visit", False
    ),
)

CHECKS: dict[str, CheckType] = {check.name: check for check in _ALL}
"""Every kind of check by name, the Dashboard's first."""
