"""Made-up identifiers in every string of every loaded resource type, one resource for each: what must appear nowhere.

The fields are those of the R4B models, followed through all data types, so that no list of ours decides where a name can
hide. Each resource is one that loads, but for its one planted field.

Source: 45 CFR 164.514(b)(2)(i)(A)-(R); HL7 FHIR R4.
"""

import json
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fhir.resources.R4B import get_fhir_model_class

from fedhealth.fhir.resources import SHAPES

IDENTIFIERS: dict[str, str] = {
    "name": "Quillfeather Zinnobertz",
    "geography": "17 Umbrashire Lane, 02139-4307",
    "date": "1931-07-23",
    "phone": "+1-617-555-0142",
    "fax": "+1-617-555-0199",
    "email": "q.zinnobertz@mail.example",
    "social_security": "987-65-4320",
    "record_number": "MRN7700184531",
    "health_plan": "HPB-55120-9934",
    "account": "ACC0088341277",
    "licence": "LIC-MA-449120",
    "vehicle": "1HGCM82633A004352",
    "device": "SN-PUMP-7731902",
    "url": "https://people.example/zinnobertz",
    "ip": "203.0.113.77",
    "biometric": "FPRINT:9f86d081884c",
    "photo": "iVBORw0KGgoAAAANSUhEUg==",
    "other": "BADGE#Zn-4471-Q",
}
"""One made-up value for each class of the Safe Harbor list, A to R."""

_TEXTS = (
    "String",
    "Code",
    "Uri",
    "Url",
    "Canonical",
    "Markdown",
    "Id",
    "Oid",
    "UuidVersion",
    "Base64Binary",
    "Xhtml",
)
_DATES = ("Date", "DateTime", "Instant")
_DEPTH = 6
"""How many names a path to a field has at most: component, valueCodeableConcept, coding, code are 4."""

_ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_PERSON = {"reference": "Patient/planted"}
_LOINC = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
_SNOMED = {"coding": [{"system": "http://snomed.info/sct", "code": "40701008"}]}
_TIME = "2021-05-02T09:00:00Z"

_SOUND: dict[str, dict[str, Any]] = {
    "Organization": {"name": "house"},
    "Patient": {
        "gender": "female",
        "birthDate": "1930-03-04",
        "extension": [
            {
                "url": f"{_US_CORE}race",
                "extension": [{"url": "ombCategory", "valueCoding": {"system": "urn:x", "code": "2106-3"}}],
            }
        ],
    },
    "Encounter": {
        "status": "finished",
        "class": {"system": _ACT, "code": "IMP"},
        "subject": {"reference": "Patient/visiting"},
        "period": {"start": "2021-05-01T08:00:00Z", "end": "2021-05-04T16:00:00Z"},
    },
    "Condition": {"subject": _PERSON, "code": _SNOMED, "onsetDateTime": _TIME},
    "Observation": {
        "status": "final",
        "code": _LOINC,
        "subject": _PERSON,
        "effectiveDateTime": _TIME,
        "valueQuantity": {"value": 80, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
        "component": [{"code": _LOINC, "valueQuantity": {"value": 1, "unit": "/min"}}],
    },
    "Medication": {"code": _SNOMED},
    "MedicationRequest": {
        "status": "active",
        "intent": "order",
        "subject": _PERSON,
        "medicationCodeableConcept": _SNOMED,
        "authoredOn": _TIME,
    },
    "MedicationAdministration": {
        "status": "completed",
        "subject": _PERSON,
        "medicationCodeableConcept": _SNOMED,
        "effectiveDateTime": _TIME,
    },
    "Consent": {
        "status": "active",
        "scope": {"coding": [{"code": "research"}]},
        "category": [_LOINC],
        "policyRule": {"coding": [{"code": "OPTIN"}]},
        "patient": _PERSON,
        "dateTime": _TIME,
    },
    "Procedure": {"status": "completed", "subject": _PERSON, "code": _SNOMED, "performedDateTime": _TIME},
}
"""A resource of each type that loads."""

_CHOICES = (
    "value",
    "effective",
    "onset",
    "abatement",
    "deceased",
    "medication",
    "performed",
    "multipleBirth",
)

Steps = tuple[tuple[str, bool], ...]
"""The names on the way to a field, each with whether it is a list."""


@cache
def string_fields(resource_type: str) -> tuple[tuple[Steps, bool], ...]:
    """The fields of a type that hold text, in a fixed order, each with whether it is a date.

    A data type is not followed into itself (an extension once), so that an identifier's assigner has no identifier's
    assigner; extensions of what is inside a resource are not followed, as nothing of them is read.
    """
    return tuple(_fields(get_fhir_model_class(resource_type), (), ()))


def _fields(model: Any, path: Steps, inside: tuple[str, ...]) -> Iterator[tuple[Steps, bool]]:
    for field in model.model_fields.values():
        name = field.alias
        if name in ("resourceType", "fhir_comments", "contained") or name.startswith("_"):
            continue
        found = _kind(field.annotation)
        if found is None:
            continue
        kind, is_list = found
        here = (*path, (name, is_list))
        if isinstance(kind, str):
            if kind in _TEXTS or kind in _DATES:
                yield here, kind in _DATES
        elif len(here) < _DEPTH and _is_followed(kind.__name__, inside):
            yield from _fields(kind, here, (*inside, kind.__name__))


def _is_followed(name: str, inside: tuple[str, ...]) -> bool:
    if name == "Extension":
        return inside in ((), ("Extension",))
    return name not in inside


def _kind(annotation: Any) -> tuple[Any, bool] | None:
    """The model, or the name of the primitive type, that an annotation means, and whether it is a list."""
    if hasattr(annotation, "get_model_klass"):
        return annotation.get_model_klass(), False
    if hasattr(annotation, "__metadata__"):
        return type(annotation.__metadata__[-1]).__name__, False
    found = next((kind for each in typing.get_args(annotation) if (kind := _kind(each))), None)
    return found and (found[0], found[1] or typing.get_origin(annotation) is list)


def planted_lines(resource_type: str) -> Iterator[bytes]:
    """Resources of a type as NDJSON lines: every field that holds text, with every identifier in it once.

    A date is planted in every field of a date; ids stay unique, and the identifier is part of the id where it can be one.
    """
    number = 0
    for path, is_date in string_fields(resource_type):
        for name, text in IDENTIFIERS.items():
            if is_date and name != "date":
                continue
            number += 1
            resource = json.loads(json.dumps(_SOUND[resource_type]))
            resource = {"resourceType": resource_type, "id": f"n{number}"} | resource
            _plant(resource, path, f"{text}T10:11:12Z" if is_date and _has_time(path) else text)
            yield json.dumps(resource).encode()


def _has_time(path: Steps) -> bool:
    return path[-1][0] in ("issued", "lastUpdated")


def _plant(resource: dict[str, Any], path: Steps, text: str) -> None:
    """Put a text at a path, making what is not there; another choice of the same element makes room."""
    here: Any = resource
    for depth, (name, is_list) in enumerate(path):
        is_last = depth == len(path) - 1
        for stem in _CHOICES:
            if name.startswith(stem) and name[len(stem) : len(stem) + 1].isupper():
                for other in [key for key in here if key.startswith(stem) and key != name]:
                    del here[other]
        if is_last:
            here[name] = [text] if is_list else text
            return
        if is_list:
            held = here.setdefault(name, [{}])
            here = held[0]
        else:
            here = here.setdefault(name, {})


def write_planted(folder: Path) -> int:
    """Write the planted resources as NDJSON: a file a loaded type, and two patients, of whom visits and events are.

    Returns:
      How many resources there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for name in SHAPES:
        lines = list(planted_lines(name))
        (folder / f"{name}.ndjson").write_bytes(b"\n".join(lines) + b"\n")
        written += len(lines)
    people = [
        {"resourceType": "Patient", "id": name, **_SOUND["Patient"]} for name in ("planted", "visiting")
    ]
    (folder / "people.ndjson").write_text("".join(json.dumps(person) + "\n" for person in people))
    return written + len(people)


def find_leaks(folder: Path) -> list[tuple[str, str]]:
    """(file, class) of every planted identifier that stands in a file below a folder, ``private/`` left out.

    Parquet files are read value by value, all others as text; case counts for nothing.
    """
    leaks = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_dir() or "private" in inside.parts:
            continue
        found = _in_parquet(path) if path.suffix == ".parquet" else _in_text(path.read_text(errors="replace"))
        leaks += [(str(inside), name) for name in found]
    return leaks


def _in_text(text: str) -> list[str]:
    lower = text.lower()
    return [name for name, planted in IDENTIFIERS.items() if planted.lower() in lower]


def _in_parquet(path: Path) -> list[str]:
    table = pq.read_table(path)
    plain = [column if pa.types.is_nested(column.type) else column.unique() for column in table.itercolumns()]
    distinct = {str(value) for column in plain for value in column.to_pylist()}
    return _in_text("\n".join(distinct))
