"""What a scan keeps of a resource of each type, as SQL over its parsed fields.

Every staged resource has ``seq`` (unique in the run), ``piece`` and ``line`` (where it came from), ``id``, ``key``
(its keyed id), ``updated`` and ``version`` (which of two is newer) and ``verdict`` (0, or the number of the
first check that it fails). Persons, encounters, organisations and medications keep all their parsed fields besides;
events keep the columns below, narrow and flat, as there are so many. Of these ``REFERENCES`` and ``QUANTITY`` are few
texts on many rows: a keyed number stands for them, and the tables ``refs`` and ``quantities`` say which.
"""

from fedhealth.fhir.checks import bound_code
from fedhealth.fhir.resources import FOREIGN, SHAPES

_PERIOD = 'coalesce({0}Period."end", {0}Period.start)'
TIMES: dict[str, str] = {
    "Condition": "coalesce(onsetDateTime, onsetPeriod.start, recordedDate)",
    "Observation": f"coalesce(effectiveDateTime, {_PERIOD.format('effective')}, effectiveInstant, issued)",
    "MedicationRequest": "authoredOn",
    "MedicationAdministration": "coalesce(effectiveDateTime, effectivePeriod.start)",
    "Procedure": "coalesce(performedDateTime, performedPeriod.start)",
}
"""SQL for the FHIR text of an event's time; without one the start of its encounter is used."""

WHEN = {
    "Condition": "onset[x]",
    "Observation": "effective[x]",
    "MedicationRequest": "authoredOn",
    "MedicationAdministration": "effective[x]",
    "Procedure": "performed[x]",
}
"""The JSON path of that time."""

DRUGS = ("MedicationRequest", "MedicationAdministration")
CODES = {"Condition": "condition", "Procedure": "procedure", "Observation": "measurement"} | dict.fromkeys(
    DRUGS, "drug"
)
"""The field of the vocabulary that an event's code belongs to."""


REFERENCES = ("subject", "encounter", "medication")
QUANTITY = ("code", "unit_system", "unit_code", "unit_text")
"""The columns of a value that together say what was measured in which unit: one number, ``quantity``."""


def _value(of: str) -> dict[str, str]:
    """The value of an observation (``of`` empty) or of a component (``of`` its prefix)."""
    number = f"coalesce({of}valueQuantity.value, {of}valueInteger)"
    return {
        "code": f"{of}code.coding",
        "coding": f"{of}valueCodeableConcept.coding",
        "number": f"CASE WHEN isfinite({number}) THEN {number} END",
        "flag": f"{of}valueBoolean",
        "comparator": f"coalesce({of}valueQuantity.comparator, '')",
        "unit_system": f"coalesce({of}valueQuantity.system, '')",
        "unit_code": f"coalesce({of}valueQuantity.code, '')",
        "unit_text": f"coalesce({of}valueQuantity.unit, '')",
        "low": f"{of}referenceRange[1].low.value",
        "high": f"{of}referenceRange[1].high.value",
    }


COMPONENT = _value("c.")
"""A component that has a code, as a row of its own; ``c`` is the component."""

_CATEGORIES = (
    "list_transform(category, lambda c: list_has_any(list_transform(c.coding, lambda x: x.code), {}))"
)
_INSIDE = "list_filter(contained, lambda c: '#' || c.id = medicationReference.reference)[1].code.coding"
_DRUG = {
    "code": f"coalesce(medicationCodeableConcept.coding, {_INSIDE})",
    "medication": "medicationReference.reference",
}


_WHEN = {"day": "coalesce(time::DATE, day_of(told))", "time": "time", "is_dated": "told IS NOT NULL"}


_OF = {"subject": "subject.reference", "encounter": "encounter.reference"}

_EVENT_COLUMNS: dict[str, dict[str, str]] = {
    "Observation": {
        "subject": "subject.reference",
        "encounter": "coalesce(encounter.reference, context.reference)",  # the context of STU3
        **_value(""),
        "is_clinical": f"coalesce(list_bool_or({_CATEGORIES.format(['laboratory', 'vital-signs'])}), false)",
        "has_components": "len(component) > 0 AND list_bool_or(list_transform(component, lambda x: x.code.coding IS NOT NULL))",
        "panel": "CASE WHEN len(component) > 0 THEN sha256(component::VARCHAR) END",  # tells versions apart
        "is_item": "NOT coalesce(has_components, false) OR valueQuantity IS NOT NULL OR valueInteger IS NOT NULL "
        "OR valueBoolean IS NOT NULL OR valueCodeableConcept IS NOT NULL OR valueString IS NOT NULL",
    },
    "Condition": {
        **_OF,
        "code": "code.coding",
        "verification": bound_code("verificationStatus"),
        "abated": "day_of(abatementDateTime)",
    },
    "Procedure": {**_OF, "code": "code.coding"},
    "MedicationRequest": {
        **_OF,
        **_DRUG,
        "end_day": "NULL::DATE",
        "end_time": "NULL::TIMESTAMP",
        "quantity": "dispenseRequest.quantity.value",
        "dose_unit": "coalesce(dosageInstruction[1].doseAndRate[1].doseQuantity.code, "
        "dosageInstruction[1].doseAndRate[1].doseQuantity.unit)",
        "route": "dosageInstruction[1].route.coding",
    },
    "MedicationAdministration": {
        "subject": "subject.reference",
        "encounter": "context.reference",
        **_DRUG,
        "end_day": 'day_of(effectivePeriod."end")',
        "end_time": 'moment(effectivePeriod."end")',
        "quantity": "dosage.dose.value",
        "dose_unit": "coalesce(dosage.dose.code, dosage.dose.unit)",
        "route": "dosage.route.coding",
    },
}


def staged_columns(name: str) -> dict[str, str]:
    """Name and SQL of the columns that a scan keeps of a type."""
    if name in TIMES:
        return {**_EVENT_COLUMNS[name], **_WHEN}
    left = {"id", "meta", *FOREIGN[name]} - ({"subject"} if name == "Consent" else set())
    return {field: f'"{field}"' for field in SHAPES[name].names if field not in left}


def parsed_fields(name: str, texts: str) -> str:
    """SQL for the rows of ``texts`` with the fields of the type in their column ``text``.

    Of an event also ``told``, the text of its time, and ``time``: read once, whatever asks for them.
    """
    parsed = f"SELECT *, from_json(text, '{SHAPES[name].fields}') AS parsed FROM {texts}"
    fields = f"SELECT * EXCLUDE (parsed), unnest(parsed) FROM ({parsed})"
    if name not in TIMES:
        return fields
    return f"SELECT *, moment(told) AS time FROM (SELECT *, {TIMES[name]} AS told FROM ({fields}))"
