"""What R4 says of the elements of a type: read once per type from the models of fhir.resources."""

import typing
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import UnionType
from typing import Any

_JSON_TYPES: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,)}
_NUMBERS = ("Decimal",)
_FREE = (int, float)
ANY_RESOURCE = "Resource"


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a type.

    Attributes:
      child: the type of its value; a primitive's name (Code, DateTime ...) where ``is_primitive``.
      is_primitive: whether the value is no object.
      json_types: the Python types that a primitive has when it is read from JSON.
      is_list: whether it repeats.
      codes: its required binding, empty when it has none or the model does not list it whole.
      targets: the resource types that it may refer to, empty for any and for what is no reference.
    """

    child: str
    is_primitive: bool
    json_types: tuple[type, ...]
    is_list: bool
    codes: frozenset[str]
    targets: frozenset[str]


def resource_model(resource_type: str) -> Any:
    """The R4B model of a resource type. The first call for a type builds its classes, which takes up to a second."""
    return getattr(import_module(f"fhir.resources.R4B.{resource_type.lower()}"), resource_type)


@cache
def elements_of(type_name: str) -> dict[str, Element]:
    """The elements of a resource type, by their JSON name; extensions of primitives (``_name``) are left out."""
    return _elements(resource_model(type_name))


@cache
def elements_inside(type_name: str) -> dict[str, Element]:
    """The elements of a data type or backbone element that ``elements_of`` has met."""
    return _elements(_MODELS[type_name])


_MODELS: dict[str, Any] = {}


def _elements(model: Any) -> dict[str, Element]:
    found = {}
    for name, field in model.model_fields.items():
        if not name.endswith("__ext") and name not in ("resource_type", "fhir_comments"):
            extra = field.json_schema_extra or {}
            found[field.alias or name] = _element(field.annotation, extra)
    return found


def _element(annotation: Any, extra: dict[str, Any]) -> Element:
    is_list = False
    while True:
        origin = typing.get_origin(annotation)
        if origin in (typing.Union, UnionType):
            annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
        elif origin is list:
            is_list, annotation = True, typing.get_args(annotation)[0]
        else:
            break
    codes = extra.get("enum_values") or []
    targets = extra.get("enum_reference_types") or []
    listed = frozenset(codes) if "+" not in codes else frozenset[str]()  # "+": the list goes on
    if hasattr(annotation, "get_model_klass"):
        model = annotation.get_model_klass()
        _MODELS[model.__name__] = model
        return Element(model.__name__, False, (), is_list, listed, frozenset(targets) - {ANY_RESOURCE})
    name, json_types = _primitive(annotation)
    return Element(name, True, json_types, is_list, listed, frozenset())


def _primitive(annotation: Any) -> tuple[str, tuple[type, ...]]:
    if typing.get_origin(annotation) is typing.Annotated:
        base, *rest = typing.get_args(annotation)
        name = type(rest[0]).__name__
    else:
        base, name = annotation, annotation.__name__
    if name in _NUMBERS:
        return name, _FREE
    return name, _JSON_TYPES.get(base, (str,))
