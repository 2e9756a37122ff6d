"""Check resources against the R4B models of fhir.resources, which read R4 data; imported only when used."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from pydantic import ValidationError


def resource_model(resource_type: str) -> Any:
    """The R4B model of a resource type. The first call for a type builds its classes, which takes up to a second."""
    return getattr(import_module(f"fhir.resources.R4B.{resource_type.lower()}"), resource_type)


def invalid_resources(resource_type: str, texts: Iterable[tuple[int, str]]) -> list[int]:
    """The numbers of the texts that are no valid resource of their type. No value is kept or shown.

    Args:
      resource_type: an R4 type.
      texts: (number, JSON text).

    Returns:
      Numbers of the invalid ones, in input order.
    """
    model = resource_model(resource_type)
    invalid = []
    for number, text in texts:
        try:
            model.model_validate_json(text)
        except (ValidationError, ValueError, TypeError, AssertionError):
            invalid.append(number)
    return invalid
