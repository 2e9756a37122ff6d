"""Where a reference points, whatever its spelling."""

import re
from collections.abc import Iterable, Mapping

_LOCAL = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?$")
_RELATIVE = re.compile(r"[A-Z][A-Za-z]+/")


def resolve_references(references: Iterable[str], *, urls: Mapping[str, str | None]) -> dict[str, str]:
    """The ``Type/id`` of every reference that has one.

    Relative references are read as they stand, whatever full URL a bundle claims. Others are looked up (``urn:``, conditional
    ones as ``Patient?identifier=system|value``, absolute ones); absolute ones that no bundle names are read too.

    Args:
      references: references as they came.
      urls: ``Type/id`` by bundle full URL and by conditional reference; None where bundles disagree: nobody is meant.
    """
    found: dict[str, str] = {}
    for reference in references:
        if reference in urls and not _RELATIVE.match(reference):
            if (known := urls[reference]) is not None:
                found[reference] = known
        elif (parts := _LOCAL.search(reference)) is not None:
            found[reference] = f"{parts[1]}/{parts[2]}"
    return found
