"""Profiles: how many of a site's people fall into each bin of each quantity, and the consortium's sum of them.

A profile is a vector of counts over public bins. It leaves a site only inside a secure sum; what comes back is
the consortium's total, from which a site takes its own away. No site and no coordinator sees another's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.quantities import QUANTITIES
from fedhealth.privacy.people import MIN_CELL

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Profile:
    """People by the name of the quantity.

    Attributes:
      counts: people per bin.
      people: people in any bin, of a site's own profile; empty for a reference.
    """

    counts: Mapping[str, Counts]
    people: Mapping[str, int]

    def to_vector(self) -> Counts:
        """All counts in the order of `QUANTITIES`: what a site adds to a secure sum."""
        return np.concatenate([self.counts[each.name] for each in QUANTITIES])


def profile_length() -> int:
    """Length of a profile's vector."""
    return sum(each.size for each in QUANTITIES)


def publishable(total: Counts) -> Counts:
    """The sum of all sites' vectors without bins of fewer than 11 people: what a round publishes.

    Raises:
      ValueError: the vector has another length.
    """
    if total.shape != (profile_length(),):
        raise ValueError(f"a sum of shape {total.shape} is no sum of profiles")
    return np.where(total < MIN_CELL, 0, total)


def reference_of(total: Counts) -> Profile:
    """The consortium's profile from the sum of all sites' vectors, without bins of fewer than 11 people.

    Raises:
      ValueError: the vector has another length.
    """
    ends = np.cumsum([each.size for each in QUANTITIES])[:-1]
    parts = zip(QUANTITIES, np.split(publishable(total), ends), strict=True)
    return Profile({each.name: part for each, part in parts}, {})
