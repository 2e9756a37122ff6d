"""What the gate asks of a CDM: every rule as data, named after the check of the OHDSI Data Quality Dashboard.

A rule is a share of rows that may fail. ``fatal`` stops the site's round, ``convention`` warns,
``characterisation`` is only reported. Plausible ranges are physiological limits, outside of which a value is
no measurement of a living patient, in the unit that the vocabulary makes canonical.
"""

from dataclasses import dataclass
from typing import Literal

from fedhealth.cdm.tables import Table

Severity = Literal["fatal", "convention", "characterisation"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One check over the rows of one table.

    Attributes:
      name: the check, e.g. ``isPrimaryKey:person_id``; from a closed list, never data.
      table: the OMOP table that it counts.
      severity: what a failure means.
      failing: SQL condition over the table's view (``e``) that is true for a row that fails.
      counted: SQL condition for the rows that the check is about.
      max_share: share of the counted rows that may fail.
    """

    name: str
    table: str
    severity: Severity
    failing: str
    counted: str = "true"
    max_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Range:
    """Physiological limits of one measured quantity, both included, in its canonical unit."""

    name: str
    concepts: tuple[int, ...]
    low: float
    high: float


RANGES = (
    Range("heart_rate", (3027018,), 0, 300),
    Range("systolic_pressure", (3004249, 21492239), 0, 300),
    Range("diastolic_pressure", (3012888, 21492240), 0, 300),
    Range("mean_pressure", (3027598, 21492241), 0, 250),
    Range("respiratory_rate", (3024171,), 0, 80),
    Range("temperature", (3020891,), 25, 45),
    Range("oxygen_saturation", (40762499, 3016502), 0, 100),
    Range("glucose", (3004501,), 10, 2000),
    Range("creatinine", (3016723,), 0.1, 30),
    Range("urea_nitrogen", (3013682,), 1, 250),
    Range("sodium", (3019550,), 90, 200),
    Range("potassium", (3023103,), 1, 12),
    Range("chloride", (3014576,), 60, 160),
    Range("bicarbonate", (3016293,), 2, 60),
    Range("haemoglobin", (3000963,), 1, 25),
    Range("white_cells", (3000905,), 0, 500),
    Range("platelets", (3024929,), 0, 2500),
    Range("calcium", (3006906,), 2, 20),
    Range("lactate", (3047181,), 0.1, 40),
)

# Per table: the column with the event's first day, and the one with its last.
EVENT_DAYS = {
    "observation_period": ("observation_period_start_date", "observation_period_end_date"),
    "visit_occurrence": ("visit_start_date", "visit_end_date"),
    "visit_detail": ("visit_detail_start_date", "visit_detail_end_date"),
    "condition_occurrence": ("condition_start_date", "condition_end_date"),
    "measurement": ("measurement_date", None),
    "drug_exposure": ("drug_exposure_start_date", "drug_exposure_end_date"),
    "procedure_occurrence": ("procedure_date", None),
    "observation": ("observation_date", None),
}
_EVENT_CONCEPTS = {
    "condition_occurrence": "condition_concept_id",
    "measurement": "measurement_concept_id",
    "drug_exposure": "drug_concept_id",
    "procedure_occurrence": "procedure_concept_id",
    "observation": "observation_concept_id",
}
_TOLERATED = 0.01  # of rows whose times contradict each other; source systems have some
_OUT_OF_RANGE = 0.05  # of one quantity's values: more means a wrong unit, not typing errors


def rules_for(table: Table) -> tuple[Rule, ...]:
    """All row rules of one table, in a fixed order."""
    return (
        *_key_rules(table),
        *_time_rules(table.name),
        *_concept_rules(table.name),
        *(_measurement_rules() if table.name == "measurement" else ()),
        *(_person_rules() if table.name == "person" else ()),
    )


def primary_key(table: Table) -> str | None:
    """What may not repeat in a table: its key, and in ``death`` the person; ``cdm_source`` has nothing."""
    return "person_id" if table.name == "death" else table.key


def _key_rules(contract: Table) -> list[Rule]:
    table, columns = contract.name, contract.column_names
    rules = [Rule(f"isRequired:{name}", table, "fatal", f"e.{name} IS NULL") for name in contract.required]
    if (key := primary_key(contract)) is not None:
        rules.append(Rule(f"isPrimaryKey:{key}", table, "fatal", "e.copies > 1"))
    if "person_id" in columns and table != "person":
        missing = "e.person_id IS NOT NULL AND NOT e.person_known"
        rules.append(Rule("isForeignKey:person_id", table, "fatal", missing))
    if "visit_occurrence_id" in columns and table != "visit_occurrence":
        linked = "e.visit_occurrence_id IS NOT NULL"
        rules.append(Rule("isForeignKey:visit_occurrence_id", table, "fatal", "NOT e.visit_known", linked))
        other = "e.visit_person IS DISTINCT FROM e.person_id"
        known = f"{linked} AND e.visit_known"
        rules.append(Rule("visitOfSamePerson:visit_occurrence_id", table, "fatal", other, known))
    return rules


def _time_rules(table: str) -> list[Rule]:
    if table not in EVENT_DAYS:
        return []
    start, end = EVENT_DAYS[table]
    after_birth = Rule(
        f"plausibleAfterBirth:{start}",
        table,
        "fatal",
        f"e.{start} < e.born",
        "e.born IS NOT NULL",
        _TOLERATED,
    )
    last = end or start
    # The Data Quality Dashboard grants 60 days: results and claims are signed after a death.
    late = f"e.{start} > e.died + INTERVAL 60 DAY"
    before_death = Rule(
        f"plausibleBeforeDeath:{start}", table, "fatal", late, "e.died IS NOT NULL", _TOLERATED
    )
    rules = [after_birth, before_death]
    if end is not None:
        rules.append(
            Rule(
                f"plausibleStartBeforeEnd:{start}",
                table,
                "fatal",
                f"e.{end} < e.{start}",
                f"e.{last} IS NOT NULL",
                _TOLERATED,
            )
        )
    if table not in {"observation_period", "visit_occurrence"}:
        outside = f"e.{start} < e.visit_start - INTERVAL 7 DAY OR e.{start} > e.visit_end + INTERVAL 7 DAY"
        rules.append(Rule(f"withinVisitDates:{start}", table, "convention", outside, "e.visit_known", 0.05))
    return rules


def _concept_rules(table: str) -> list[Rule]:
    if table not in _EVENT_CONCEPTS:
        return []
    column = _EVENT_CONCEPTS[table]
    return [
        Rule(
            f"standardConceptRecordCompleteness:{column}",
            table,
            "convention",
            f"e.{column} = 0",
            max_share=0.5,
        )
    ]


def _measurement_rules() -> list[Rule]:
    return [
        *(_range_rule(each) for each in RANGES),
        Rule(
            "unitMapped:unit_concept_id",
            "measurement",
            "convention",
            "coalesce(e.unit_concept_id, 0) = 0",
            "e.value_as_number IS NOT NULL",
            0.1,
        ),
        Rule(
            "finite:value_as_number",
            "measurement",
            "fatal",
            "NOT isfinite(e.value_as_number)",
            "e.value_as_number IS NOT NULL",
        ),
        Rule(
            "timestampPrecision:measurement_datetime",
            "measurement",
            "characterisation",
            "e.measurement_datetime = date_trunc('day', e.measurement_datetime)",
            "e.measurement_datetime IS NOT NULL",
            0.5,
        ),
        Rule(
            "duplicateEvent:measurement_id",
            "measurement",
            "characterisation",
            "e.same_events > 1",
            max_share=0.05,
        ),
    ]


def _range_rule(each: Range) -> Rule:
    concepts = ", ".join(str(concept) for concept in each.concepts)
    return Rule(
        f"plausibleValue:{each.name}",
        "measurement",
        "fatal",
        f"e.value_as_number < {each.low} OR e.value_as_number > {each.high}",
        f"e.measurement_concept_id IN ({concepts}) AND e.value_as_number IS NOT NULL",
        _OUT_OF_RANGE,
    )


def _person_rules() -> list[Rule]:
    return [
        Rule(
            "plausibleValue:year_of_birth",
            "person",
            "fatal",
            "e.year_of_birth NOT BETWEEN 1850 AND 2200",
            max_share=_TOLERATED,
        ),
        Rule(
            "plausibleGender:gender_concept_id",
            "person",
            "convention",
            "e.gender_concept_id NOT IN (8507, 8532)",
            max_share=0.1,
        ),
        Rule(
            "measurePersonCompleteness:visit_occurrence",
            "person",
            "characterisation",
            "NOT e.has_visit",
            max_share=0.5,
        ),
    ]
