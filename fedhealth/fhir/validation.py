"""Check resources against the R4B models of fhir.resources, which read R4 data; imported only when used."""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from pydantic import ValidationError

_NO_OFFSET = re.compile(r'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)"')


def resource_model(resource_type: str) -> Any:
    """The R4B model of a resource type. The first call for a type builds its classes, which takes up to a second."""
    return getattr(import_module(f"fhir.resources.R4B.{resource_type.lower()}"), resource_type)


def invalid_resources(resource_type: str, texts: Iterable[tuple[int, str]]) -> list[int]:
    """The numbers of the texts that are no valid resource of their type. No value is kept or shown.

    A time without its offset, which R4 forbids, is not held against a resource: the site map says its zone.

    Args:
      resource_type: an R4 type.
      texts: (number, JSON text).

    Returns:
      Numbers of the invalid ones, in input order.
    """
    model = resource_model(resource_type)
    invalid = []
    for number, text in texts:
        if not _is_valid(model, text):
            dated = _NO_OFFSET.sub(r'"\1Z"', text)
            if dated == text or not _is_valid(model, dated):
                invalid.append(number)
    return invalid


def _is_valid(model: Any, text: str) -> bool:
    try:
        model.model_validate_json(text)
    except (ValidationError, ValueError, TypeError, AssertionError):
        return False
    return True
