"""What sites are compared by: each quantity as bins of public bounds, and the SQL that sorts people into them.

A bin counts the people who have something in it, so that one patient moves a bin by at most one and counts of
different sites can be added. A numeric quantity has a bin below and one above its axis.
"""

import math
from dataclasses import dataclass
from typing import Literal

from fedhealth.study.columns import SERIES, SeriesFeature
from fedhealth.vocabulary.concepts import (
    DISCHARGED_EXPIRED,
    DISCHARGED_HOME,
    GENDER_FEMALE,
    GENDER_MALE,
    INPATIENT_VISITS,
    SERIES_CONCEPTS,
    STATIC_CONCEPTS,
    STILL_PATIENT,
    VISIT_EMERGENCY,
    VISIT_OUTPATIENT,
)

Severity = Literal["fatal", "convention"]


@dataclass(frozen=True, slots=True)
class Axis:
    """Equal bins between two bounds, on a linear or a logarithmic scale."""

    low: float
    high: float
    bins: int
    is_log: bool = False

    @property
    def start(self) -> float:
        """The lower bound on the axis's own scale."""
        return math.log(self.low) if self.is_log else self.low

    @property
    def step(self) -> float:
        """The width of a bin on the axis's own scale."""
        return ((math.log(self.high) if self.is_log else self.high) - self.start) / self.bins

    def bin_of(self, value: str) -> str:
        """SQL for the bin of a value: 0 is below the axis, ``bins + 1`` above it."""
        scaled = f"ln(greatest({value}, 1e-9))" if self.is_log else value
        place = f"floor(({scaled} - {self.start!r}) / {self.step!r}) + 1"
        return f"greatest(0, least({place}, {self.bins + 1}))::INTEGER"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that sites are compared by.

    Attributes:
      name: from a closed list, never data.
      table: the OMOP table that a finding is about.
      axis: of a number; None for classes.
      classes: how many classes; of a number 0.
      query: SQL for (person_id, bin).
      is_value: a laboratory value or vital sign: a gross difference is a wrong unit.
    """

    name: str
    table: str
    query: str
    axis: Axis | None = None
    classes: int = 0
    is_value: bool = False

    @property
    def size(self) -> int:
        """How many bins, those below and above the axis included."""
        return self.classes if self.axis is None else self.axis.bins + 2


_LOG_UNITS = ("mg/dL", "g/dL", "10*3/uL", "mL")
_STAY = f"visit_concept_id IN {INPATIENT_VISITS}"
_DAYS = "epoch(ended - began) / 86400"

VIEWS = (
    """
CREATE TEMP TABLE seen AS
SELECT visit_occurrence_id, person_id, visit_concept_id, discharged_to_concept_id AS discharged_to,
       visit_start_datetime::TIMESTAMP AS started_at,
       coalesce(visit_start_datetime::TIMESTAMP, visit_start_date::TIMESTAMP) AS began,
       coalesce(visit_end_datetime::TIMESTAMP, visit_end_date::TIMESTAMP + INTERVAL 1 DAY) AS ended
FROM visit_occurrence
""",
    """
CREATE TEMP TABLE measured AS
SELECT m.person_id, m.visit_occurrence_id, m.measurement_concept_id AS concept, m.value_as_number AS number,
       m.measurement_datetime::TIMESTAMP AS happened
FROM measurement m
""",
)
"""Temporary tables that the queries read, made in this order."""


def _value(name: str, concepts: str, axis: Axis) -> Quantity:
    where = f"concept IN ({concepts}) AND number IS NOT NULL AND isfinite(number)"
    query = f"SELECT person_id, {axis.bin_of('number')} FROM measured WHERE {where}"
    return Quantity(f"value:{name}", "measurement", query, axis, is_value=True)


def _axis(feature: SeriesFeature) -> Axis:
    """Over the plausible range; where units differ by factors, on a logarithmic scale."""
    if feature.unit in _LOG_UNITS or feature.name == "lactate":
        return Axis(max(feature.low, feature.high / 2000), feature.high, 128, is_log=True)
    return Axis(feature.low, feature.high, 128)


def _concepts(name: str) -> str:
    return ", ".join(str(each.concept_id) for each in (SERIES_CONCEPTS | STATIC_CONCEPTS)[name])


def _measured(name: str) -> Quantity:
    known = f"SELECT visit_occurrence_id FROM measured WHERE concept IN ({_concepts(name)}) AND number IS NOT NULL"
    query = (
        f"SELECT person_id, (visit_occurrence_id IN ({known} AND visit_occurrence_id IS NOT NULL))::INTEGER "
        f"FROM seen WHERE {_STAY}"
    )
    return Quantity(f"measured:{name}", "measurement", query, classes=2)


def _classes(name: str, table: str, classes: int, query: str) -> Quantity:
    return Quantity(name, table, query, classes=classes)


def _number(name: str, table: str, axis: Axis, value: str, source: str) -> Quantity:
    return Quantity(name, table, f"SELECT person_id, {axis.bin_of(value)} FROM {source}", axis)


_SEX = f"CASE gender_concept_id WHEN {GENDER_FEMALE} THEN 0 WHEN {GENDER_MALE} THEN 1 ELSE 2 END"
_CLASS = (
    f"CASE WHEN {_STAY} THEN 0 WHEN visit_concept_id = {VISIT_EMERGENCY} THEN 1 "
    f"WHEN visit_concept_id = {VISIT_OUTPATIENT} THEN 2 ELSE 3 END"
)
_END = (
    f"CASE discharged_to WHEN {DISCHARGED_HOME} THEN 0 WHEN {DISCHARGED_EXPIRED} THEN 1 "
    f"WHEN {STILL_PATIENT} THEN 2 ELSE 3 END"
)
_BORN = "coalesce(birth_datetime::DATE, make_date(year_of_birth, 7, 1))"
_QUARTER = "least(greatest(date_diff('day', began::DATE, (SELECT max(source_release_date) FROM cdm_source)), 0) // 91, 12)"
_PLACE = "CASE WHEN ended IS NULL THEN 3 WHEN happened < began THEN 0 WHEN happened > ended THEN 2 ELSE 1 END"
_BY_VISIT = "measured m LEFT JOIN seen v USING (visit_occurrence_id) WHERE happened IS NOT NULL"
_FIRST = (
    "(SELECT v.person_id, min(epoch(happened - began)) / 3600 AS hours FROM seen v JOIN measured m USING "
    f"(visit_occurrence_id) WHERE {_STAY} AND happened IS NOT NULL GROUP BY visit_occurrence_id, v.person_id)"
)
_PER_DAY = (
    f"(SELECT v.person_id, count(m.concept) / greatest(any_value({_DAYS}), 1) AS n FROM seen v LEFT JOIN measured m "
    f"USING (visit_occurrence_id) WHERE {_STAY} GROUP BY visit_occurrence_id, v.person_id)"
)


def _events_of(table: str) -> str:
    return (
        f"(SELECT v.person_id, count(e.person_id) AS n FROM seen v LEFT JOIN {table} e USING (visit_occurrence_id) "
        f"WHERE {_STAY} GROUP BY visit_occurrence_id, v.person_id)"
    )


QUANTITIES: tuple[Quantity, ...] = (
    *(_value(feature.name, _concepts(feature.name), _axis(feature)) for feature in SERIES),
    _value("weight", _concepts("weight"), Axis(1, 400, 128, is_log=True)),
    _value("height", _concepts("height"), Axis(30, 250, 110)),
    *(_measured(feature.name) for feature in SERIES),
    _classes("sex", "person", 3, f"SELECT person_id, {_SEX} FROM person"),
    _classes(
        "died",
        "death",
        2,
        "SELECT person_id, (person_id IN (SELECT person_id FROM death))::INTEGER FROM person",
    ),
    _number(
        "age",
        "person",
        Axis(0, 120, 60),
        f"(date_diff('day', {_BORN}, began::DATE) / 365.25)",
        "seen JOIN person USING (person_id)",
    ),
    _classes("visit_class", "visit_occurrence", 4, f"SELECT person_id, {_CLASS} FROM seen"),
    _classes("visit_quarter", "visit_occurrence", 13, f"SELECT person_id, {_QUARTER} FROM seen"),
    _number(
        "stay_days",
        "visit_occurrence",
        Axis(0.05, 500, 80, is_log=True),
        f"({_DAYS})",
        f"seen WHERE {_STAY} AND coalesce(discharged_to <> {STILL_PATIENT}, true)",
    ),
    _classes("stay_end", "visit_occurrence", 4, f"SELECT person_id, {_END} FROM seen WHERE {_STAY}"),
    _classes(
        "admission_hour",
        "visit_occurrence",
        24,
        f"SELECT person_id, hour(started_at) FROM seen WHERE {_STAY} AND started_at IS NOT NULL",
    ),
    _classes(
        "event_hour",
        "measurement",
        24,
        "SELECT person_id, hour(happened) FROM measured WHERE happened IS NOT NULL",
    ),
    _classes("event_place", "measurement", 4, f"SELECT m.person_id, {_PLACE} FROM {_BY_VISIT}"),
    _number("first_event_hours", "measurement", Axis(-48, 48, 96), "hours", _FIRST),
    _number("events_per_day", "measurement", Axis(0.5, 2000, 80, is_log=True), "n", _PER_DAY),
    _classes(
        "event_repeated",
        "measurement",
        2,
        "SELECT person_id, (count(*) OVER (PARTITION BY person_id, concept, happened, number) > 1)::INTEGER "
        "FROM measured WHERE happened IS NOT NULL AND number IS NOT NULL",
    ),
    _number(
        "conditions_per_stay",
        "condition_occurrence",
        Axis(0, 40, 40),
        "n",
        _events_of("condition_occurrence"),
    ),
    _number("drugs_per_stay", "drug_exposure", Axis(0, 40, 40), "n", _events_of("drug_exposure")),
)
"""Every quantity, in the order of a profile's bins."""
