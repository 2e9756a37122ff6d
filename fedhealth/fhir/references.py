"""Where a reference points, whatever its spelling."""

import re
from collections.abc import Iterable, Mapping

_LOCAL = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?$")


def resolve_references(references: Iterable[str], *, urls: Mapping[str, str]) -> dict[str, str]:
    """The ``Type/id`` of every reference that has one.

    Relative, absolute and versioned references are read as they stand; ``urn:`` and conditional ones
    (``Patient?identifier=system|value``) are looked up.

    Args:
      references: references as they came.
      urls: ``Type/id`` by bundle full URL and by conditional reference.
    """
    found: dict[str, str] = {}
    for reference in references:
        if (known := urls.get(reference)) is not None:
            found[reference] = known
        elif (parts := _LOCAL.search(reference)) is not None:
            found[reference] = f"{parts[1]}/{parts[2]}"
    return found
