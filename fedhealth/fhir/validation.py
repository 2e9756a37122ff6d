"""Check whole resources: the R4B models of fhir.resources, which read R4 data, then the rules that they leave out.

A model is imported only when it is used. What comes out are reason codes and JSON paths made of R4's own names; no
value is kept or shown, also not in an exception.
"""

import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from pydantic import ValidationError

from fedhealth.fhir.checks import STU3_READ
from fedhealth.fhir.rules import broken_rules
from fedhealth.fhir.structure import ANY_RESOURCE, elements_inside, elements_of, resource_model

RULES = 2
"""Raised when a rule changes, as verdicts are remembered."""

_NO_OFFSET = re.compile(r'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)"')


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What a resource was found to be: refused by the models (quarantined), or breaking a rule (noted)."""

    kind: Literal["quarantined", "noted"]
    reason: str
    path: str


class _DuplicateNameError(ValueError):
    """A JSON object names an element twice."""


def verdict_version() -> str:
    """What verdicts depend on besides the text: the models' version and our rules'."""
    return f"{version('fhir.resources')}-{RULES}"


def faults_of(resource_type: str, text: str) -> tuple[Fault, ...]:
    """The faults of a resource by itself, none for a valid one; each reason and path once.

    A time without its offset, which R4 forbids, is not held against a resource: the site map says its zone. Nor
    is the element of STU3 that a scan reads.

    Args:
      resource_type: an R4 type.
      text: its JSON.
    """
    faults = _faults(resource_type, text)
    if any(fault.reason == "r4b_invalid" for fault in faults):
        amended = _amended(resource_type, text)
        return faults if amended == text else _faults(resource_type, amended)
    return faults


def _amended(resource_type: str, text: str) -> str:
    """The text without what a scan reads although R4 has it not."""
    dated = _NO_OFFSET.sub(r'"\1Z"', text)
    element = STU3_READ.get(resource_type)
    if element is None or f'"{element}"' not in text:
        return dated
    try:
        resource = json.loads(dated, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return text
    resource.pop(element, None)
    return json.dumps(resource)


def _faults(resource_type: str, text: str) -> tuple[Fault, ...]:
    try:
        resource_model(resource_type).model_validate_json(text)
        resource = json.loads(text, object_pairs_hook=_unique)
        found = {Fault("noted", reason, path) for reason, path in broken_rules(resource)}
    except ValidationError as error:
        return (Fault("quarantined", "r4b_invalid", _path(resource_type, error)),)
    except _DuplicateNameError:
        return (Fault("quarantined", "duplicate_name", resource_type),)
    # whatever else hostile data makes the models raise quotes the data, and must stop no run
    except Exception:  # noqa: BLE001
        return (Fault("quarantined", "r4b_invalid", resource_type),)
    return tuple(sorted(found))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    node = dict(pairs)
    if len(node) != len(pairs):
        raise _DuplicateNameError
    return node


def _path(resource_type: str, error: ValidationError) -> str:
    """The element of the first fault, down to the last name that R4 has: others come from the data."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path, elements = resource_type, elements_of(resource_type)
    for name in first["loc"]:
        if isinstance(name, str):
            element = elements.get(name)
            if element is None:
                break
            path = f"{path}.{name}"
            known = not element.is_primitive and element.child != ANY_RESOURCE
            elements = elements_inside(element.child) if known else {}
    return path
