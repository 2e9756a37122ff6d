"""The checks that every resource gets: SQL over the fields that a scan reads, from rules of the R4 specification.

A check that finds something either quarantines the resource (what it says cannot be trusted) or notes it (it breaks
a rule, and what is loaded of it does not depend on that). Each has a stable reason and the JSON path of the fault.
What needs the whole resource is checked by ``fedhealth.fhir.rules``. Conditions that cost more than a
comparison stand inside a CASE, which DuckDB evaluates for the rows that need it alone.

Source: FHIR R4 (4.0.1), required bindings and invariants; the key of an invariant stands behind its check.
"""

from dataclasses import dataclass
from typing import Literal

Decision = Literal["excluded", "quarantined", "noted"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a resource when ``sql`` over its fields is true; ``path`` is the JSON path of the fault."""

    kind: Decision
    reason: str
    path: str
    sql: str


GENDERS = ("male", "female", "other", "unknown")
COMPARATORS = ("<", "<=", ">=", ">")
INTENTS = (
    *("proposal", "plan", "order", "original-order", "reflex-order", "filler-order", "instance-order"),
    "option",
)
VERIFICATIONS = ("unconfirmed", "provisional", "differential", "confirmed", "refuted", "entered-in-error")
CLINICAL = ("active", "recurrence", "relapse", "inactive", "remission", "resolved")
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_BOUND = {
    "verificationStatus": ("condition-ver-status", VERIFICATIONS),
    "clinicalStatus": ("condition-clinical", CLINICAL),
}
"""The system and codes of the bound concepts of a Condition."""
_CODES = 'from_json({}, \'[{{"system":"VARCHAR","code":"VARCHAR"}}]\')'

SUBJECTS = {
    "Encounter": ("Patient", "Group"),
    "Condition": ("Patient", "Group"),
    "Observation": ("Patient", "Group", "Device", "Location"),
    "Procedure": ("Patient", "Group"),
    "MedicationRequest": ("Patient", "Group"),
    "MedicationAdministration": ("Patient", "Group"),
}
"""The types that ``subject`` may point to."""

_TIMES = {
    "Patient": ("deceasedDateTime",),
    "Condition": ("onsetDateTime", "abatementDateTime", "recordedDate"),
    "Observation": ("effectiveDateTime", "issued"),
    "MedicationRequest": ("authoredOn",),
    "MedicationAdministration": ("effectiveDateTime",),
    "Procedure": ("performedDateTime",),
}
_OPTIONAL_DATES = {
    "Patient": {"deceasedDateTime": "deceasedDateTime"},
    "Condition": {"abatementDateTime": "abatementDateTime"},
    "MedicationAdministration": {"effectivePeriod.end": 'effectivePeriod."end"'},
}
"""Dates that are loaded if they can be read; the row stands without them."""
_PERIODS = {
    "Encounter": "period",
    "Condition": "onsetPeriod",
    "Observation": "effectivePeriod",
    "MedicationAdministration": "effectivePeriod",
    "Procedure": "performedPeriod",
}
_MEDICATED = ("MedicationRequest", "MedicationAdministration")


def checks(name: str) -> tuple[Verdict, ...]:
    """The checks of a resource type, those that quarantine first."""
    found = [*_required(name), *_coded(name), *_subject(name), *_timed(name), *_special(name)]
    return tuple(sorted(found, key=lambda check: check.kind != "quarantined"))


def _listed(codes: tuple[str, ...]) -> str:
    return ", ".join(f"'{code}'" for code in codes)


def _required(name: str) -> list[Verdict]:
    """Elements of cardinality 1..1; those that later steps ask for are judged there."""
    if name == "Encounter":  # a visit of no class is still a visit: its concept is 0
        return [Verdict("noted", "missing_element", "Encounter.class", "class IS NULL")]
    if name not in _MEDICATED:
        return []
    without = "medicationCodeableConcept IS NULL AND medicationReference IS NULL"
    found = [Verdict("quarantined", "missing_element", f"{name}.medication[x]", without)]
    if name == "MedicationRequest":
        found.append(Verdict("noted", "missing_element", f"{name}.intent", "intent IS NULL"))
    return found


def _coded(name: str) -> list[Verdict]:
    """Required bindings."""
    found = []
    if name == "Patient":
        # a person of unmapped gender is still a person
        found.append(
            Verdict("noted", "invalid_code", "Patient.gender", f"gender NOT IN ({_listed(GENDERS)})")
        )
    if name == "MedicationRequest":
        sql = f"intent NOT IN ({_listed(INTENTS)})"
        found.append(Verdict("quarantined", "invalid_code", "MedicationRequest.intent", sql))
    if name == "Condition":
        found += _condition_codes()
    return found


def _of_system(field: str, system: str) -> str:
    """SQL for the first code of one of HL7's systems in a concept, wherever it stands."""
    codings = _CODES.format(f"json_extract({field}, '$.coding')")
    return f"list_filter({codings}, lambda c: c.system = '{_TERMINOLOGY}{system}')[1].code"


def bound_code(field: str) -> str:
    """SQL for the code of a bound concept of a Condition: of its bound system, else the first that is one of its codes."""
    system, codes = _BOUND[field]
    codings = _CODES.format(f"json_extract({field}, '$.coding')")
    other = f"list_filter({codings}, lambda c: c.code IN ({_listed(codes)}))[1].code"
    return f"CASE WHEN {field} IS NOT NULL THEN coalesce({_of_system(field, system)}, {other}) END"


def _condition_codes() -> list[Verdict]:
    """Of the two bound concepts: an unknown code of the bound system, or no coding of it at all."""
    found = []
    decisions: dict[str, Decision] = {"verificationStatus": "quarantined", "clinicalStatus": "noted"}
    for field, decision in decisions.items():
        system, codes = _BOUND[field]
        path = f"Condition.{field}.coding"
        bound = _of_system(field, system)
        wrong = f"CASE WHEN {field} IS NOT NULL THEN {bound} NOT IN ({_listed(codes)}) END"
        found.append(Verdict(decision, "invalid_code", f"{path}.code", wrong))
        strange = (
            f"CASE WHEN {field} IS NOT NULL THEN NOT contains({field}::VARCHAR, '{_TERMINOLOGY}{system}') END"
        )
        found.append(Verdict("noted", "unbound_system", f"{path}.system", strange))
    return found


def _subject(name: str) -> list[Verdict]:
    """Who it is about: a reference that can be one, to a type that the element allows."""
    if name not in SUBJECTS:
        return []
    value, path = "subject.reference", f"{name}.subject.reference"
    # the two common spellings are let through at once
    unusual = (
        f"CASE WHEN NOT (starts_with({value}, 'Patient/') OR starts_with({value}, 'urn:')) THEN {{}} END"
    )
    typed = f"regexp_matches({value}, '{_TYPED}')"
    allowed = f"regexp_matches({value}, '(^|/)({'|'.join(SUBJECTS[name])})[/?]')"
    other = f"regexp_matches({value}, '^(#|https?://)')"
    return [
        Verdict("quarantined", "reference_target", path, unusual.format(f"{typed} AND NOT {allowed}")),
        Verdict("quarantined", "reference_syntax", path, unusual.format(f"NOT ({typed} OR {other})")),
    ]


def _timed(name: str) -> list[Verdict]:
    """Dates and times that are spelt as R4 has them, and periods that end after they start."""
    texts = {field: field for field in _TIMES.get(name, ())}
    if (period := _PERIODS.get(name)) is not None:
        texts |= {f"{period}.start": f"{period}.start", f"{period}.end": f'{period}."end"'}
    found = [
        Verdict("noted", "date_format", f"{name}.{field}", _ODD.format(text)) for field, text in texts.items()
    ]
    found += [
        Verdict(
            "noted",
            "invalid_date",
            f"{name}.{field}",
            f"CASE WHEN {text} IS NOT NULL THEN day_of({text}) IS NULL END",
        )
        for field, text in _OPTIONAL_DATES.get(name, {}).items()
    ]
    if name == "Patient":  # a date, never a time
        found.append(Verdict("noted", "date_format", "Patient.birthDate", "length(birthDate) > 10"))
    return [*found, *(_ordered(f"{name}.{period}", period, apart=name == "Encounter") if period else ())]


_TYPED = "(^|/)[A-Z][A-Za-z]+(/[A-Za-z0-9.-]{1,64}(/_history/[A-Za-z0-9.-]{1,64})?|[?][^=]+=.+)$"
"""A reference that names a type: relative, absolute, versioned or conditional."""
_ODD = (
    "CASE WHEN NOT (length({0}) IN (4, 7, 10) OR ({0} LIKE '__________T%Z' AND length({0}) >= 20)) "
    "THEN length({0}) < 20 OR {0}[11] <> 'T' OR ({0}[-1] <> 'Z' AND {0}[-6] NOT IN ('+', '-')) END"
)
"""No R4 dateTime: a time needs seconds and an offset. What is no time is found where it is needed, or as ``invalid_date``."""


def _ordered(path: str, period: str, *, apart: bool) -> list[Verdict]:
    """per-1: the start is not after the end, and the two can be compared.

    Where one is a date and the other a time, the days are compared; encounters are judged with their visits
    (``apart``).
    """
    start, end = f"{period}.start", f'{period}."end"'
    timed = f"length({start}) > 10 AND length({end}) > 10"
    zoned = "moment({})"  # a time without an offset is in the site's zone
    common = f"least(length({start}), length({end}), 10)"
    first, last = f"left({start}, {common})", f"left({end}, {common})"
    present = f"CASE WHEN {start} IS NOT NULL AND {end} IS NOT NULL THEN {{}} END"
    late = present.format(
        f"CASE WHEN {timed} THEN {zoned.format(end)} < {zoned.format(start)} ELSE {last} < {first} END"
    )
    vague = present.format(f"NOT ({timed}) AND length({start}) <> length({end}) AND {first} = {last}")
    found = [Verdict("noted", "period_precision", path, vague)]
    return found if apart else [Verdict("quarantined", "end_before_start", path, late), *found]


_VALUED = (
    "valueQuantity IS NOT NULL OR valueInteger IS NOT NULL OR valueBoolean IS NOT NULL "
    "OR valueCodeableConcept IS NOT NULL OR valueString IS NOT NULL"
)


STU3_READ = {"Observation": "context", "Encounter": "reason"}
"""Elements of STU3 that are read as what R4 has in their place."""


def _special(name: str) -> list[Verdict]:
    """Invariants of a type by itself, and what is mapped from STU3."""
    mapped = [
        Verdict("noted", "stu3_mapped", f"{name}.{field}", f"{field} IS NOT NULL")
        for of, field in STU3_READ.items()
        if of == name
    ]
    return [*mapped, *_invariants(name)]


def _invariants(name: str) -> list[Verdict]:
    if name == "Condition":
        return _of_condition()
    if name == "Observation":
        return _of_observation()
    return []


def _of_condition() -> list[Verdict]:
    clinical = bound_code("clinicalStatus")
    abated = (
        f"CASE WHEN abatementDateTime IS NOT NULL THEN {clinical} IN ('active', 'recurrence', 'relapse') END"
    )
    return [
        Verdict("noted", "abated_but_active", "Condition.abatement[x]", abated),  # con-4
    ]


def _of_observation() -> list[Verdict]:
    path = "Observation.valueQuantity"
    inside = "Observation.component.valueQuantity"
    comparator = f"{{}}.comparator NOT IN ({_listed(COMPARATORS)})"
    systemless = "{0}.code IS NOT NULL AND {0}.system IS NULL"
    of_components = (
        "CASE WHEN len(component) > 0 THEN list_bool_or(list_transform(component, lambda x: {})) END"
    )
    both = f"CASE WHEN dataAbsentReason IS NOT NULL THEN {_VALUED} END"
    codes = f"{_CODES.format('code.coding')}"
    repeated = (
        f"CASE WHEN len(component) > 0 THEN CASE WHEN {_VALUED} THEN "
        f"list_has_any({codes}, flatten(list_transform(component, lambda x: {_CODES.format('x.code.coding')}))) END END"
    )
    codeless = "coalesce(NOT contains(x.code.coding::VARCHAR, '\"code\"'), true)"
    empty = (
        "x.dataAbsentReason IS NOT NULL AND (x.valueQuantity IS NOT NULL OR x.valueInteger IS NOT NULL "
        "OR x.valueBoolean IS NOT NULL OR x.valueCodeableConcept IS NOT NULL OR x.valueString IS NOT NULL)"
    )
    return [
        Verdict("quarantined", "invalid_code", f"{path}.comparator", comparator.format("valueQuantity")),
        Verdict(
            "quarantined",
            "invalid_code",
            f"{inside}.comparator",
            of_components.format(comparator.format("x.valueQuantity")),
        ),
        Verdict("quarantined", "value_and_absent_reason", "Observation.dataAbsentReason", both),  # obs-6
        Verdict(
            "quarantined",
            "value_and_absent_reason",
            "Observation.component.dataAbsentReason",
            of_components.format(empty),
        ),
        Verdict("noted", "component_repeats_code", "Observation.component.code", repeated),  # obs-7
        Verdict(
            "noted", "unit_without_system", f"{path}.system", systemless.format("valueQuantity")
        ),  # qty-3
        Verdict(
            "noted",
            "unit_without_system",
            f"{inside}.system",
            of_components.format(systemless.format("x.valueQuantity")),
        ),
        Verdict("noted", "missing_code", "Observation.component.code", of_components.format(codeless)),
        *_lost_values(of_components),
    ]


OTHER_VALUES = ("String", "Range", "Ratio", "SampledData", "Time", "DateTime", "Period")
"""The values of an Observation that neither a number, a flag nor a concept can hold."""


def _lost_values(of_components: str) -> list[Verdict]:
    """Values that are there and of which nothing is loaded."""
    whole, inside = "Observation.value[x]", "Observation.component.value[x]"
    read = "len(list_filter(component, lambda x: x.{0} IS NOT NULL))"
    given = "len(list_filter(json_type(text, '{0}{1}'), lambda t: t <> 'NULL'))"
    plain = " OR ".join(
        f"{given.format('$.component[*].', name)} > {read.format(name)}"
        for name in ("valueInteger", "valueBoolean")
    )
    unread = (
        f"{of_components.format(_is_empty('x.'))} AND ({of_components.format(_is_unread('x.'))} OR {plain})"
    )
    listed = "len(list_filter(json_type(text, ['$.valueInteger', '$.valueBoolean']), lambda t: t <> 'NULL'))"
    return [
        Verdict(
            "noted",
            "value_unreadable",
            whole,
            f"CASE WHEN {_is_empty('')} THEN {_is_unread('')} OR {listed} > 0 END",
        ),
        Verdict("noted", "value_unreadable", inside, f"CASE WHEN len(component) > 0 THEN {unread} END"),
        Verdict("noted", "value_not_loaded", whole, _has_no_place("")),
        Verdict("noted", "value_not_loaded", inside, of_components.format(_has_no_place("x."))),
    ]


def _is_empty(of: str) -> str:
    """SQL for no number, no flag and no concept; ``of`` is the prefix of a component."""
    number = f"isfinite(coalesce({of}valueQuantity.value, {of}valueInteger))"
    return (
        f"({of}valueBoolean IS NULL AND {of}valueCodeableConcept IS NULL AND NOT coalesce({number}, false))"
    )


def _is_unread(of: str) -> str:
    return f"({_is_empty(of)} AND coalesce({of}valueQuantity IS NOT NULL OR {of}valueInteger IS NOT NULL, false))"


def _has_no_place(of: str) -> str:
    """SQL for a value of another kind, or a concept without a code."""
    others = " OR ".join(f"{of}value{kind} IS NOT NULL" for kind in OTHER_VALUES)
    concept = f"{of}valueCodeableConcept"
    codes = f"list_filter(json_extract({concept}.coding, '$[*].code'), lambda t: t::VARCHAR LIKE '\"_%\"')"
    return f"({others} OR CASE WHEN {concept} IS NOT NULL THEN coalesce(len({codes}), 0) = 0 END)"
