"""Rules about concepts: which ones a column holds, and, for the measured ones, their values and units."""

from dataclasses import replace

from fedhealth.cdm.tables import Table
from fedhealth.validation.limits import ConceptLimit, concept_limits
from fedhealth.validation.rules import Rule, rule

# Column to the domain of its concepts and, where the package claims one, to their class.
_COLUMNS = {
    "gender_concept_id": ("Gender", "Gender"),
    "race_concept_id": ("Race", "Race"),
    "ethnicity_concept_id": ("Ethnicity", "Ethnicity"),
    "visit_concept_id": ("Visit", "Visit"),
    "visit_detail_concept_id": ("Visit", ""),
    "admitted_from_concept_id": ("Visit", ""),
    "discharged_to_concept_id": ("Visit", ""),
    "place_of_service_concept_id": ("Visit", ""),
    "condition_concept_id": ("Condition", ""),
    "condition_status_concept_id": ("Condition Status", ""),
    "measurement_concept_id": ("Measurement", ""),
    "operator_concept_id": ("Meas Value Operator", ""),
    "unit_concept_id": ("Unit", "Unit"),
    "drug_concept_id": ("Drug", ""),
    "procedure_concept_id": ("Procedure", ""),
    "observation_concept_id": ("Observation", ""),
    "cdm_version_concept_id": ("Metadata", ""),
}
_MAY_BE_LOCAL = ("condition_status_concept_id",)  # OMOP has no concept for a refuted condition
# A study is not possible where these are unknown; race and ethnicity are never features.
_MAPPED = {
    "gender_concept_id": 0.1,
    "visit_concept_id": 0.1,
    "condition_concept_id": None,
    "measurement_concept_id": None,
    "drug_concept_id": None,
    "procedure_concept_id": None,
    "observation_concept_id": None,
}
# No map of these is shipped: studies use their source codes, so that concept 0 is what the design expects.
_BY_CODE = ("drug_concept_id", "procedure_concept_id", "observation_concept_id")


def kind_of_column(name: str) -> tuple[str, str] | None:
    """Domain and class of the concepts of a column; None where any may stand."""
    if name.endswith("_type_concept_id"):
        return ("Type Concept", "Type Concept")
    return _COLUMNS.get(name)


def column_rules(table: Table) -> tuple[Rule, ...]:
    """Rules over the concepts that each column of a table holds, from the counts in ``concepts_used``."""
    rules: list[Rule] = []
    for name in table.column_names:
        if (kind := kind_of_column(name)) is not None:
            rules += _kind_rules(table.name, name, *kind)
        if name in _MAPPED:
            unmapped = _used(table.name, name, counted="true", failing="concept_id = 0")
            found = rule(
                "standardConceptRecordCompleteness",
                table.name,
                name,
                query=unmapped,
                max_share=_MAPPED[name],
            )
            rules.append(replace(found, severity="characterisation") if name in _BY_CODE else found)
        if name.endswith("_source_concept_id"):
            filled = (
                f"(SELECT max(concept_id) FROM concepts_used WHERE omop_table = '{table.name}'"
                f" AND field = '{name}') > 0"
            )
            absent = _used(table.name, name, counted=filled, failing="coalesce(concept_id, 0) = 0")
            rules.append(rule("sourceConceptRecordCompleteness", table.name, name, query=absent))
    return tuple(rules)


def _kind_rules(table: str, name: str, domain: str, concept_class: str) -> list[Rule]:
    known = "domain IS NOT NULL"
    rules = [
        rule(
            "fkDomain",
            table,
            name,
            query=_used(table, name, counted=known, failing=f"domain <> '{domain}'"),
        )
    ]
    if concept_class:
        other = _used(
            table, name, counted="concept_class <> ''", failing=f"concept_class <> '{concept_class}'"
        )
        rules.append(rule("fkClass", table, name, query=other))
    if name not in _MAY_BE_LOCAL:
        local = _used(
            table,
            name,
            counted="concept_id <> 0",
            failing="concept_id < 0 OR concept_id >= 2000000000",
        )
        rules.append(rule("isStandardValidConcept", table, name, query=local))
    return rules


def _used(table: str, name: str, *, counted: str, failing: str) -> str:
    return (
        f"SELECT coalesce(sum(n) FILTER ({counted}), 0), coalesce(sum(n) FILTER (({counted}) AND ({failing})), 0)"
        f" FROM concepts_used WHERE omop_table = '{table}' AND field = '{name}'"
    )


_VALUED = "e.value_as_number IS NOT NULL"


def measured_rules() -> tuple[Rule, ...]:
    """Rules per measured concept; their conditions are the same for all, over the columns of ``concept_limits``."""
    return tuple(found for limit in concept_limits() for found in _rules_of(limit))


def _rules_of(limit: ConceptLimit) -> list[Rule]:
    value = "value_as_number"
    rules = [
        rule("plausibleValueLow", "measurement", value, "e.value_as_number < l.low", _VALUED),
        rule("plausibleValueHigh", "measurement", value, "e.value_as_number > l.high", _VALUED),
        rule(
            "plausibleUnitConceptIds",
            "measurement",
            "unit_concept_id",
            "NOT list_contains(l.units, e.unit_concept_id)",
            f"{_VALUED} AND e.unit_concept_id <> 0",
        ),
        rule(
            "unitMapped",
            "measurement",
            "unit_concept_id",
            "coalesce(e.unit_concept_id, 0) = 0",
            _VALUED,
        ),
    ]
    label = f"{limit.quantity}.{limit.concept}"
    if limit.range.usual is not None:
        low = rule("plausibleValueLow", "measurement", value, "e.value_as_number < l.usual_low", _VALUED)
        high = rule("plausibleValueHigh", "measurement", value, "e.value_as_number > l.usual_high", _VALUED)
        rules += [replace(each, severity="convention", label=f"{label}.usual") for each in (low, high)]
    return [replace(each, concept=limit.concept, label=each.label or label) for each in rules]
