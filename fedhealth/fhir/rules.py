"""Rules of R4 that need the whole resource: the invariants of its data types, references, contained resources.

The models of fhir.resources know names, cardinalities and primitive formats. Here is what they leave out: required
bindings, JSON types, empty elements, invariants. A rule looks at one node; the walk gives it the path.

Source: FHIR R4 (4.0.1), invariants by their keys; json.html, references.html, narrative.html.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from datetime import datetime

from fedhealth.fhir.code_syntax import is_possible_code
from fedhealth.fhir.narrative import narrative_fault
from fedhealth.fhir.resources import R4_TYPES
from fedhealth.fhir.structure import ANY_RESOURCE, Element, elements_inside, elements_of

Json = object
Node = dict[str, Json]
Broken = tuple[str, str]
"""A reason code and the JSON path, which is made of R4's own names alone."""

_TYPED = re.compile(
    r"(?:^|/)([A-Z][A-Za-z]+)(?:/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?|\?[^=?&]+=[^?]+)$"
)
_NO_URI = re.compile(r"[\s<>\"{}|\\^`]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_MAX_ID = 64
_URI_IDENTIFIERS = "urn:ietf:rfc:3986"
_EMPTY: dict[str, Element] = {}


def broken_rules(resource: Node) -> list[Broken]:
    """The rules that a resource of an R4 type breaks, each with its path; the same pair may come more than once."""
    name = str(resource.get("resourceType"))
    found = list(_walk(resource, elements_of(name), name, name))
    found += _contained(resource, name)
    return found


def _walk(node: Node, elements: dict[str, Element], kind: str, path: str) -> Iterator[Broken]:
    """The faults of a node and of what is inside it."""
    if rule := _OF_TYPE.get(kind):
        yield from ((reason, f"{path}.{inside}" if inside else path) for reason, inside in rule(node))
    for name, value in node.items():
        element = elements.get(name)
        if element is None:  # resourceType, an extended primitive, or a name that the models refuse
            continue
        here = f"{path}.{name}"
        if value is None or value in ({}, []):
            yield "empty_element", here
            continue
        if element.is_list != isinstance(value, list):
            yield "wrong_json_type", here
            continue
        for item in value if isinstance(value, list) else (value,):
            yield from _item(item, element, here)


def _item(item: Json, element: Element, path: str) -> Iterator[Broken]:
    if item is None:  # in a list of primitives: its extension stands beside it
        return
    if element.is_primitive:
        yield from ((reason, path) for reason in _primitive(item, element))
    elif not isinstance(item, dict):
        yield "wrong_json_type", path
    elif element.child == ANY_RESOURCE:
        kind = item.get("resourceType")
        if isinstance(kind, str) and kind in R4_TYPES:
            yield from _walk(item, elements_of(kind), kind, path)
    elif not item:
        yield "empty_element", path
    else:
        yield from _walk(item, elements_inside(element.child), element.child, path)
        if element.child == "Reference" and element.targets:
            yield from ((reason, f"{path}.reference") for reason in _wrong_target(item, element.targets))


def _primitive(value: Json, element: Element) -> Iterator[str]:
    # bool is an int in Python, not in JSON
    if not isinstance(value, element.json_types) or (
        isinstance(value, bool) and bool not in element.json_types
    ):
        yield "wrong_json_type"
        return
    if not isinstance(value, str):
        return
    if element.codes and value not in element.codes:
        yield "invalid_code"
    if element.child == "Id" and len(value) > _MAX_ID:
        yield "invalid_id"
    if not value.strip():
        yield "empty_element"
    if element.child in ("Uri", "Url", "Canonical"):
        if _NO_URI.search(value.split("|")[0] if element.child == "Canonical" else value):
            yield "invalid_uri"
    elif element.child == "Code" and (value != value.strip() or "  " in value):
        yield "invalid_code"
    elif element.child in ("String", "Markdown") and _CONTROL.search(value):
        yield "control_character"


def _wrong_target(reference: Node, targets: frozenset[str]) -> Iterator[str]:
    literal = reference.get("reference")
    match = _TYPED.search(literal) if isinstance(literal, str) else None
    if match is not None and match[1] in R4_TYPES and match[1] not in targets:
        yield "reference_target"


# -- rules of data types: reason, and the element below the node (empty: the node itself)


def _of_reference(node: Node) -> Iterator[Broken]:
    literal, kind = node.get("reference"), node.get("type")
    if not isinstance(literal, str):
        return
    match = _TYPED.search(literal)
    if match is None and not literal.startswith(("#", "urn:", "http://", "https://")):
        yield "reference_syntax", "reference"
    if (
        match is not None
        and match[1] in R4_TYPES
        and isinstance(kind, str)
        and kind in R4_TYPES
        and kind != match[1]
    ):
        yield "reference_type", "type"


def _of_period(node: Node) -> Iterator[Broken]:  # per-1
    start, end = node.get("start"), node.get("end")
    if not isinstance(start, str) or not isinstance(end, str):
        return
    if len(start) > 10 and len(end) > 10:
        if _is_before(end, start):
            yield "end_before_start", ""
        return
    shared = min(len(start), len(end), 10)
    if end[:shared] < start[:shared]:
        yield "end_before_start", ""
    elif end[:shared] == start[:shared] and len(end) != len(start):
        yield "period_precision", ""


def _is_before(one: str, other: str) -> bool:
    try:
        return datetime.fromisoformat(one) < datetime.fromisoformat(other)
    except (ValueError, TypeError):  # unreadable, or only one with an offset: for others to judge
        return False


def _of_quantity(node: Node) -> Iterator[Broken]:  # qty-3
    if "code" in node and "system" not in node:
        yield "unit_without_system", "system"


def _of_extension(node: Node) -> Iterator[Broken]:  # ext-1
    values = [name for name in node if name.lstrip("_").startswith("value")]
    if bool(values) == ("extension" in node):
        yield "extension_value", ""


def _of_coding(node: Node) -> Iterator[Broken]:
    system, code = node.get("system"), node.get("code")
    if isinstance(system, str) and isinstance(code, str) and not is_possible_code(system, code):
        yield "code_syntax", "code"


def _of_identifier(node: Node) -> Iterator[Broken]:
    value = node.get("value")
    if (
        node.get("system") == _URI_IDENTIFIERS
        and isinstance(value, str)
        and (":" not in value or _NO_URI.search(value))
    ):
        yield "invalid_uri", "value"


def _of_contact_point(node: Node) -> Iterator[Broken]:  # cpt-2
    if "value" in node and "system" not in node:
        yield "contact_without_system", "system"


def _of_narrative(node: Node) -> Iterator[Broken]:  # txt-1, txt-2
    div = node.get("div")
    if isinstance(div, str) and (reason := narrative_fault(div)) is not None:
        yield reason, "div"


def _of_attachment(node: Node) -> Iterator[Broken]:  # att-1, and the size that R4 defines as that of the data
    data, size = node.get("data"), node.get("size")
    if not isinstance(data, str):
        return
    if "contentType" not in node:
        yield "attachment_without_type", "contentType"
    try:
        decoded = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        yield "invalid_base64", "data"
        return
    if isinstance(size, int) and size != len(decoded):
        yield "attachment_size", "size"


def _of_range(node: Node) -> Iterator[Broken]:  # rng-2
    low, high = (_number(node.get(side)) for side in ("low", "high"))
    if low is not None and high is not None and low > high:
        yield "range_reversed", ""


def _number(quantity: Json) -> float | None:
    value = quantity.get("value") if isinstance(quantity, dict) else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _of_ratio(node: Node) -> Iterator[Broken]:  # rat-1
    if ("numerator" in node) != ("denominator" in node):
        yield "ratio_of_one", ""


_UNITS = (("duration", "durationUnit"), ("period", "periodUnit"))
_BOUNDS = ("periodMax", "period"), ("durationMax", "duration"), ("countMax", "count")


def _of_repeat(node: Node) -> Iterator[Broken]:  # tim-1, 2, 4 to 10
    for number, unit in _UNITS:
        value = node.get(number)
        if number in node and unit not in node:
            yield "timing_without_unit", unit
        if isinstance(value, (int, float)) and value < 0:
            yield "timing_negative", number
    for upper, lower in _BOUNDS:
        if upper in node and lower not in node:
            yield "timing_bound", upper
    if "offset" in node and "when" not in node:
        yield "timing_bound", "offset"
    if "timeOfDay" in node and "when" in node:
        yield "timing_bound", "timeOfDay"


# -- rules of resources


def _has_value(node: Node) -> bool:
    return any(name.startswith("value") for name in node)


def _codings(concept: Json) -> set[tuple[Json, Json]]:
    codings = concept.get("coding") if isinstance(concept, dict) else None
    if not isinstance(codings, list):
        return set()
    return {
        (str(coding.get("system")), str(coding.get("code")))
        for coding in codings
        if isinstance(coding, dict) and "code" in coding
    }


def _of_observation(node: Node) -> Iterator[Broken]:
    components = node.get("component")
    listed = [part for part in components if isinstance(part, dict)] if isinstance(components, list) else []
    if "dataAbsentReason" in node and _has_value(node):  # obs-6
        yield "value_and_absent_reason", "dataAbsentReason"
    if any("dataAbsentReason" in part and _has_value(part) for part in listed):
        yield "value_and_absent_reason", "component.dataAbsentReason"
    if _has_value(node) and any(
        _codings(node.get("code")) & _codings(part.get("code")) for part in listed
    ):  # obs-7
        yield "component_repeats_code", "component.code"


def _of_reference_range(node: Node) -> Iterator[Broken]:  # obs-3
    if not {"low", "high", "text"} & node.keys():
        yield "empty_reference_range", ""


def _status(concept: Json) -> set[str]:
    return {str(code) for _, code in _codings(concept)}


def _of_condition(node: Node) -> Iterator[Broken]:  # con-4, con-5; con-3 is a best practice, no rule
    abated = any(name.startswith("abatement") for name in node)
    if abated and _status(node.get("clinicalStatus")) & {"active", "recurrence", "relapse"}:
        yield "abated_but_active", "abatement[x]"
    if "entered-in-error" in _status(node.get("verificationStatus")) and "clinicalStatus" in node:
        yield "clinical_status_of_error", "clinicalStatus"


def _of_contact(node: Node) -> Iterator[Broken]:  # pat-1
    if not {"name", "telecom", "address", "organization"} & node.keys():
        yield "empty_contact", ""


def _of_organization(node: Node) -> Iterator[Broken]:  # org-1 to org-3
    if not {"name", "identifier"} & node.keys():
        yield "nameless_organization", ""
    for field in ("telecom", "address"):
        values = node.get(field)
        if isinstance(values, list) and any(
            isinstance(one, dict) and one.get("use") == "home" for one in values
        ):
            yield "home_of_organization", f"{field}.use"


_OF_TYPE: dict[str, Callable[[Node], Iterator[Broken]]] = {
    "Reference": _of_reference,
    "Period": _of_period,
    **dict.fromkeys(("Quantity", "Age", "Duration", "Count", "Distance", "Money"), _of_quantity),
    "Extension": _of_extension,
    "Coding": _of_coding,
    "Identifier": _of_identifier,
    "ContactPoint": _of_contact_point,
    "Narrative": _of_narrative,
    "Attachment": _of_attachment,
    "Range": _of_range,
    "Ratio": _of_ratio,
    "TimingRepeat": _of_repeat,
    "Observation": _of_observation,
    "ObservationReferenceRange": _of_reference_range,
    "Condition": _of_condition,
    "PatientContact": _of_contact,
    "Organization": _of_organization,
}


def _contained(resource: Node, name: str) -> Iterator[Broken]:
    """dom-2 to dom-5, and local references that lead nowhere (ref-1)."""
    listed = resource.get("contained")
    inside = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    path = f"{name}.contained"
    ids = {str(one.get("id")) for one in inside}
    named = {text[1:] for text in _references(resource) if text.startswith("#")}
    local = named | {text[1:] for text in _canonicals(resource)}
    if named - ids - {""}:
        yield "dangling_local_reference", f"{name}.contained.id"
    for one in inside:
        meta = one.get("meta")
        if "contained" in one:
            yield "contained_in_contained", path
        if str(one.get("id")) not in local and "#" not in _references(one):
            yield "contained_unused", path
        if isinstance(meta, dict) and {"versionId", "lastUpdated", "security"} & meta.keys():
            yield "contained_with_meta", f"{path}.meta"


def _references(node: Json) -> Iterator[str]:
    """All literal references inside a node."""
    if isinstance(node, dict):
        for name, value in node.items():
            if isinstance(value, str):
                if name == "reference":
                    yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def _canonicals(node: Json) -> Iterator[str]:
    """All texts inside a node that could be a canonical to what is contained."""
    if isinstance(node, str):
        if node.startswith("#"):
            yield node
    elif isinstance(node, (dict, list)):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _canonicals(value)
