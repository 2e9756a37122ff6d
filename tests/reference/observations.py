"""Observations and their components as rows: measurement, and observation for what is no measurement."""

import math

from reference.resources import VALUES, first, keyed_id
from reference.units import conversion
from reference.visits import EHR

OPERATORS = {"<": 4171756, "<=": 4171754, ">=": 4171755, ">": 4172704}
CLINICAL = ("laboratory", "vital-signs")


def items(event, secret):
    """(part, key, reference) of what of an Observation is a row of its own.

    Each component that has a code; and the Observation itself, unless it has no value and such components.
    """
    resource = event.resource
    parts = [
        (n, part)
        for n, part in enumerate(resource.get("component", []), 1)
        if part.get("code", {}).get("coding") is not None
    ]
    found = [
        (part, keyed_id(f"{event.reference}#{n}", secret), f"{event.reference}#{n}") for n, part in parts
    ]
    if not parts or resource.keys() & set(VALUES):
        found.append((resource, event.key, event.reference))
    return found


def is_clinical(resource):
    """Whether one of its categories is laboratory or vital signs."""
    return any(
        coding.get("code") in CLINICAL
        for category in resource.get("category", [])
        for coding in category.get("coding", [])
    )


def item_row(event, item, codes, infer):
    """(table, row, state of its number) of one item."""
    part, key, reference = item
    match = codes.match("measurement", part.get("code", {}).get("coding"))
    coded = codes.match("value", part.get("valueCodeableConcept", {}).get("coding"))
    quantity = part.get("valueQuantity", {})
    number = quantity.get("value", part.get("valueInteger"))
    concept_id = match.concept_id if match else 0
    shared = {
        "key": key,
        "person_id": event.person,
        "concept_id": concept_id,
        "source_value": match.source_value if match else "|",
        "coded": coded,
        "flag": {True: "true", False: "false"}.get(part.get("valueBoolean")),
        "reference": reference,
    }
    if concept_id == 0 and number is None and not is_clinical(event.resource):
        return "observation", _observation(event, shared), None
    state, row = _measurement(event, shared, part, quantity, number, codes, infer)
    return "measurement", row, state


def _observation(event, shared):
    coded = shared["coded"]
    return {
        "observation_id": shared["key"],
        "person_id": event.person,
        "observation_concept_id": shared["concept_id"],
        "observation_date": event.day,
        "observation_datetime": event.time,
        "observation_type_concept_id": EHR,
        "value_as_number": None,
        "value_as_string": coded.source_value if coded else shared["flag"],
        "value_as_concept_id": coded.concept_id if coded else None,
        "visit_occurrence_id": event.visit,
        "observation_source_value": shared["source_value"],
        "reference": shared["reference"],
    }


def _measurement(event, shared, part, quantity, number, codes, infer):
    state, factor, shift, unit_concept = conversion(
        shared["concept_id"], number or 0, quantity, site_map=codes.site, infer=infer
    )
    is_kept = (
        number is not None
        and state not in ("unit", "unit_missing")
        and math.isfinite(number * factor + shift)
    )

    def converted(value):
        if not is_kept or value is None or not math.isfinite(value * factor + shift):
            return None
        return value * factor + shift

    limits = first(part.get("referenceRange"))
    coded = shared["coded"]
    written = None if number is None else repr(float(number))
    row = {
        "measurement_id": shared["key"],
        "person_id": event.person,
        "measurement_concept_id": shared["concept_id"],
        "measurement_date": event.day,
        "measurement_datetime": event.time,
        "measurement_type_concept_id": EHR,
        "operator_concept_id": OPERATORS.get(quantity.get("comparator")),
        "value_as_number": converted(number),
        "value_as_concept_id": coded.concept_id if coded else None,
        "unit_concept_id": None if number is None else unit_concept if is_kept else 0,
        "range_low": converted(limits.get("low", {}).get("value")),
        "range_high": converted(limits.get("high", {}).get("value")),
        "visit_occurrence_id": event.visit,
        "visit_detail_id": event.detail,
        "measurement_source_value": shared["source_value"],
        "unit_source_value": quantity.get("code") or quantity.get("unit") or None,
        "value_source_value": coded.source_value if coded else written or shared["flag"],
        "reference": shared["reference"],
    }
    return (None if number is None else state), row
