"""Check resources against the R4B models of fhir.resources, which read R4 data; imported only when used."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from pydantic import ValidationError


def invalid_resources(resource_type: str, texts: Iterable[tuple[int, str]]) -> list[int]:
    """The numbers of the texts that are no valid resource of their type. No value is kept or shown.

    Args:
      resource_type: an R4 type.
      texts: (number, JSON text).

    Returns:
      Numbers of the invalid ones, in input order.
    """
    module = import_module(f"fhir.resources.R4B.{resource_type.lower()}")
    model: Any = getattr(module, resource_type)
    invalid = []
    for number, text in texts:
        try:
            model.model_validate_json(text)
        except (ValidationError, ValueError, TypeError, AssertionError):
            invalid.append(number)
    return invalid
