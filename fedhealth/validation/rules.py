"""What the gate asks of a CDM: the kinds of `fedhealth.validation.checks` over tables and columns, as data.

A rule is a share of rows that may fail. Most are two SQL conditions over a table's view (``e``), counted in one
pass; those over groups of rows, persons or concepts are a query of their own; those over measured concepts are in
`fedhealth.validation.concept_rules`.
"""

from dataclasses import dataclass

from fedhealth.cdm.tables import Table
from fedhealth.validation.checks import CHECKS, CheckType, Severity
from fedhealth.vocabulary.concepts import GENDER_FEMALE, GENDER_MALE


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One check over the rows of one table.

    Attributes:
      check: name of its kind.
      table: the OMOP table that it counts.
      field: the column it is about, or "" for the table as a whole.
      severity: what a failure means.
      max_share: share of the counted rows that may fail.
      failing: SQL condition that is true for a row that fails.
      counted: SQL condition for the rows that the check is about.
      query: instead of both, SQL for the numbers of rows counted and of those that fail.
      concept: the OMOP concept it is about, or None.
      label: what tells it from its like, where table and field do not.
    """

    check: str
    table: str
    field: str
    severity: Severity
    max_share: float
    failing: str = ""
    counted: str = "true"
    query: str = ""
    concept: int | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """The check, e.g. ``isPrimaryKey:person_id``; from a closed list, never data."""
        subject = self.label or self.field
        return f"{self.check}:{subject}" if subject else self.check

    @property
    def kind(self) -> CheckType:
        """Its kind of check."""
        return CHECKS[self.check]


def rule(
    check: str,
    table: str,
    field: str,
    failing: str = "",
    counted: str = "true",
    *,
    query: str = "",
    max_share: float | None = None,
) -> Rule:
    """A rule with the severity of its kind, and its limit unless another is given."""
    kind = CHECKS[check]
    return Rule(
        check=check,
        table=table,
        field=field,
        severity=kind.severity,
        max_share=kind.max_share if max_share is None else max_share,
        failing=failing,
        counted=counted,
        query=query,
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
# Per table of coded events: its concept, its time, and its source value.
CODED = {
    "condition_occurrence": ("condition_concept_id", "condition_start_datetime", "condition_source_value"),
    "measurement": ("measurement_concept_id", "measurement_datetime", "measurement_source_value"),
    "drug_exposure": ("drug_concept_id", "drug_exposure_start_datetime", "drug_source_value"),
    "procedure_occurrence": ("procedure_concept_id", "procedure_datetime", "procedure_source_value"),
    "observation": ("observation_concept_id", "observation_datetime", "observation_source_value"),
}
_VALUES = {
    "measurement": ("value_as_number", "value_as_concept_id", "value_source_value"),
    "observation": ("value_as_number", "value_as_string", "value_as_concept_id"),
    "drug_exposure": ("quantity",),
}
_KEYS = {
    "visit_occurrence_id": "visit_occurrence",
    "visit_detail_id": "visit_detail",
    "care_site_id": "care_site",
    "preceding_visit_occurrence_id": "visit_occurrence",
}
# OMOP grants 60 days: results and claims are signed after a death.
_AFTER_DEATH = "e.died + INTERVAL 60 DAY"
_ICD10 = "http://hl7.org/fhir/sid/icd-10-cm|"


def rules_for(table: Table) -> tuple[Rule, ...]:
    """All rules of one table but those of measured concepts, in a fixed order."""
    return (
        *_key_rules(table),
        *_time_rules(table),
        *_completeness_rules(table),
        *_event_rules(table.name),
        *(_person_rules() if table.name == "person" else ()),
        *(_period_rules() if table.name == "observation_period" else ()),
        *(_condition_rules() if table.name == "condition_occurrence" else ()),
    )


def primary_key(table: Table) -> str | None:
    """What may not repeat in a table: its key, and in ``death`` the person; ``cdm_source`` has nothing."""
    return "person_id" if table.name == "death" else table.key


def foreign_keys(table: Table) -> dict[str, str]:
    """Columns that name a row of another table, or another row of this one, and that table."""
    return {
        name: parent for name, parent in _KEYS.items() if name in table.column_names and name != table.key
    }


def _key_rules(contract: Table) -> list[Rule]:
    table = contract.name
    rules = [rule("isRequired", table, name, f"e.{name} IS NULL") for name in contract.required]
    if (key := primary_key(contract)) is not None:
        repeated = (
            f"SELECT coalesce(sum(n), 0), coalesce(sum(n) FILTER (n > 1), 0) FROM"
            f" (SELECT count(*) AS n FROM {table} WHERE {key} IS NOT NULL GROUP BY {key})"
        )
        rules.append(rule("isPrimaryKey", table, key, query=repeated))
    if "person_id" in contract.column_names and table != "person":
        missing = "e.person_id IS NOT NULL AND NOT e.person_known"
        rules.append(rule("isForeignKey", table, "person_id", missing))
    for name, parent in foreign_keys(contract).items():
        rules.append(rule("isForeignKey", table, name, query=_orphans(table, name, parent)))
    if "visit_occurrence_id" in contract.column_names and table != "visit_occurrence":
        other = "e.visit_person IS DISTINCT FROM e.person_id"
        rules.append(rule("visitOfSamePerson", table, "visit_occurrence_id", other, "e.visit_known"))
    return rules


def _orphans(table: str, name: str, parent: str) -> str:
    key = f"{parent}_id"
    return (
        f"SELECT count(*), count_if(p.{key} IS NULL) FROM {table} t"
        f" LEFT JOIN (SELECT DISTINCT {key} FROM {parent}) p ON t.{name} = p.{key} WHERE t.{name} IS NOT NULL"
    )


def _time_rules(contract: Table) -> list[Rule]:
    table = contract.name
    if table == "death":
        return [
            rule("plausibleAfterBirth", table, "death_date", "e.death_date < e.born", "e.born IS NOT NULL")
        ]
    if table not in EVENT_DAYS:
        return []
    start, end = EVENT_DAYS[table]
    early, late = f"e.{start} < e.born", f"e.{start} > {_AFTER_DEATH}"
    outside_life = f"coalesce({early}, false) OR coalesce({late}, false)"
    rules = [
        rule("plausibleAfterBirth", table, start, early, "e.born IS NOT NULL"),
        rule("plausibleBeforeDeath", table, start, late, "e.died IS NOT NULL"),
        rule("plausibleDuringLife", table, start, outside_life, "e.person_known"),
    ]
    rules += [
        rule("plausibleStartBeforeEnd", table, start, f"e.{end} < e.{start}", f"e.{end} IS NOT NULL")
    ] * (end is not None)
    if table not in {"observation_period", "visit_occurrence"}:
        outside = f"e.{start} < e.visit_start - INTERVAL 7 DAY OR e.{start} > e.visit_end + INTERVAL 7 DAY"
        rules.append(rule("withinVisitDates", table, start, outside, "e.visit_known"))
    if table == "visit_detail":
        rules.append(
            rule("plausibleTemporalAfter", table, start, f"e.{start} < e.visit_start", "e.visit_known")
        )
    if table == "visit_occurrence":
        rules.append(rule("plausibleTemporalAfter", table, "preceding_visit_occurrence_id", query=_PRECEDING))
    return rules


_PRECEDING = (
    "SELECT count(*), count_if(before.visit_start > v.visit_start_date) FROM visit_occurrence v"
    " JOIN visits before ON v.preceding_visit_occurrence_id = before.known_visit"
)


def _completeness_rules(contract: Table) -> list[Rule]:
    """Values that OMOP lets be absent and that cohorts, outcomes or features use."""
    table = contract.name
    times = [
        name for name in contract.column_names if name.endswith("_datetime") and name != "birth_datetime"
    ]
    wanted = (*times, *(("value_as_number",) if table == "measurement" else ()))
    if table == "death":
        wanted = ()
    rules = [rule("measureValueCompleteness", table, name, f"e.{name} IS NULL") for name in wanted]
    rules += [
        rule(
            "timestampPrecision",
            table,
            name,
            f"e.{name} = date_trunc('day', e.{name})",
            f"e.{name} IS NOT NULL",
        )
        for name in times
    ]
    return rules


def _event_rules(table: str) -> list[Rule]:
    """Rules of a table of coded events."""
    if table not in CODED:
        return []
    concept, time, source = CODED[table]
    unlinked = "e.visit_occurrence_id IS NULL"
    rules = [
        rule("visitLinkCoverage", table, "visit_occurrence_id", unlinked),
        rule("sourceValueCompleteness", table, source, query=_unmapped_sources(table, concept, source)),
        rule("duplicateEvent", table, f"{table}_id", query=_duplicates(table, concept, time)),
    ]
    for name in _VALUES.get(table, ()):
        if name in ("value_as_number", "quantity"):
            rules.append(rule("finite", table, name, f"NOT isfinite(e.{name})", f"e.{name} IS NOT NULL"))
    if table == "drug_exposure":
        rules.append(rule("plausibleValueLow", table, "quantity", "e.quantity < 0", "e.quantity IS NOT NULL"))
    return rules


def _unmapped_sources(table: str, concept: str, source: str) -> str:
    return (
        f"SELECT count(*), count_if(unmapped) FROM (SELECT coalesce(max({concept}), 0) = 0 AS unmapped"
        f" FROM {table} WHERE {source} IS NOT NULL GROUP BY {source})"
    )


def _duplicates(table: str, concept: str, time: str) -> str:
    """Groups by a hash of 64 bits, which keeps ten million groups small; two events alike in it are the same."""
    # An event that no map knows is told apart by its source code.
    same = ", ".join(("person_id", concept, time, CODED[table][2], *_VALUES.get(table, ())))
    return (
        f"SELECT coalesce(sum(n), 0), coalesce(sum(n) FILTER (n > 1), 0) FROM"
        f" (SELECT count(*) AS n FROM {table} WHERE {time} IS NOT NULL GROUP BY hash({same}))"
    )


def _person_rules() -> list[Rule]:
    year = "year_of_birth"
    return [
        rule("plausibleValueLow", "person", year, f"e.{year} < 1850", max_share=0.01),
        rule("plausibleValueHigh", "person", year, f"e.{year} > 2200", max_share=0.01),
        *(_records_rule(table) for table in ("observation_period", "visit_occurrence", *CODED)),
    ]


def _records_rule(table: str) -> Rule:
    """A person need not have every kind of record, but a study is made of periods and visits."""
    missing = (
        f"SELECT count(*), count_if(known_person NOT IN (SELECT person_id FROM {table}"
        " WHERE person_id IS NOT NULL)) FROM people"
    )
    limit = 0.5 if table in ("observation_period", "visit_occurrence") else None
    return rule("measurePersonCompleteness", "person", table, query=missing, max_share=limit)


def _period_rules() -> list[Rule]:
    before = "max(observation_period_end_date) OVER (PARTITION BY person_id ORDER BY"
    overlapping = (
        "SELECT count(*), count_if(observation_period_start_date <= latest) FROM (SELECT"
        f" observation_period_start_date, {before} observation_period_start_date, observation_period_id"
        " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS latest FROM observation_period)"
    )
    return [rule("measureObservationPeriodOverlap", "observation_period", "person_id", query=overlapping)]


def _condition_rules() -> list[Rule]:
    source = "e.condition_source_value"
    male = rf"regexp_matches({source}, '^\Q{_ICD10}\E(C6[0-3]|N4[0-9]|N5[01])')"
    female = rf"regexp_matches({source}, '^\Q{_ICD10}\E(O|Z3[4-79]|C5[1-8]|N7[0-7]|N8|N9[0-8])')"
    wrong = f"e.person_gender = CASE WHEN {male} THEN {GENDER_FEMALE} ELSE {GENDER_MALE} END"
    told = f"e.person_gender IN ({GENDER_MALE}, {GENDER_FEMALE})"
    era = "condition_concept_id > 0 AND coalesce(condition_end_date >= condition_start_date, true)"
    no_era = (
        "SELECT count(*), count_if(NOT possible) FROM (SELECT bool_or(coalesce("
        f"{era}, false)) AS possible FROM condition_occurrence GROUP BY person_id)"
    )
    return [
        rule(
            "plausibleGender",
            "condition_occurrence",
            "condition_source_value",
            wrong,
            f"{told} AND ({male} OR {female})",
        ),
        rule("measureConditionEraCompleteness", "condition_occurrence", "person_id", query=no_era),
    ]
