"""Does a site look like the others? Its own profile against the consortium's without it, at the site itself.

A difference is no proof: hospitals differ. So a finding warns, and only values several times those of all others,
which no case mix explains, are fatal.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.profiles import Counts, Profile
from fedhealth.aggregation.quantities import QUANTITIES, Axis, Quantity, Severity
from fedhealth.validation import drift_limits as limits
from fedhealth.validation.profile import others

Shares = NDArray[np.float64]
_INNER = tuple(share / 100 for share in range(20, 81, 5))


@dataclass(frozen=True, slots=True)
class Drift:
    """One way in which a site is unlike the others; it holds no value and no count.

    Attributes:
      quantity: its name, such as ``value:glucose``.
      table: the OMOP table to look at.
      kind: ``shift`` of the median, ``distance`` of the distribution, ``shares`` of classes, ``gap`` where classes
        are empty, ``ratio`` of medians.
      severity: what it means.
      times: by how many times the limit was passed, to one digit.
    """

    quantity: str
    table: str
    kind: str
    severity: Severity
    times: float

    @property
    def code(self) -> str:
        """The finding as one code ``drift/TABLE/QUANTITY``."""
        return f"drift/{self.table}/{self.quantity}"


def find_drift(own: Profile, reference: Profile) -> tuple[Drift, ...]:
    """Compare a site with the rest of its consortium.

    Guarantees: a function of its arguments; at most one finding per quantity, the gravest; nothing is found
    where the site has fewer than 30 people or the rest too few.

    Args:
      own: the site's profile, which never leaves it.
      reference: the consortium's (`reference_of` the secure sum), the site included.
    """
    rest = others(reference, own)
    return tuple(
        found
        for each in QUANTITIES
        if own.people[each.name] >= limits.MIN_PEOPLE
        and rest.counts[each.name].sum() >= limits.MIN_PEOPLE
        and (found := _compare(each, own.counts[each.name], rest.counts[each.name])) is not None
    )


def _compare(quantity: Quantity, own: Counts, rest: Counts) -> Drift | None:
    if quantity.axis is None:
        measured = [
            ("shares", total_variation(own, rest), limits.SHARES),
            ("gap", gap(own, rest), limits.GAP),
        ]
    else:
        shift = median_shift(own, rest, quantity.axis)
        distance = trimmed_wasserstein(own, rest, quantity.axis)
        measured = [("shift", shift, limits.SHIFT), ("distance", distance, limits.DISTANCE)]
    if quantity.is_value and quantity.axis is not None:
        ratio = median_ratio(own, rest, quantity.axis)
        if ratio > limits.GROSS_RATIO:
            return Drift(
                quantity.name, quantity.table, "ratio", "fatal", round(ratio / limits.GROSS_RATIO, 1)
            )
    allowed = limits.NOISE * chance(own, rest)
    kind, times = max(
        ((kind, size / (limit + allowed)) for kind, size, limit in measured), key=lambda e: e[1]
    )
    if times <= 1:
        return None
    return Drift(quantity.name, quantity.table, kind, "convention", round(times, 1))


def chance(own: Counts, rest: Counts) -> float:
    """What a distance of shares comes to by chance alone, about: the root of used bins per count."""
    used = int(((own + rest) > 0).sum())
    return math.sqrt(used / max(int(own.sum()), 1))


def total_variation(own: Counts, rest: Counts) -> float:
    """Half the sum of the absolute differences of the shares: 0 for the same, 1 for disjoint."""
    return float(np.abs(_shares(own) - _shares(rest)).sum() / 2)


def gap(own: Counts, rest: Counts) -> float:
    """Share of the rest in classes that are all but empty at the site although ten people or more were expected."""
    shares = _shares(rest)
    expected = shares * int(own.sum())
    is_empty = (expected >= limits.EXPECTED) & (own <= limits.EMPTY * expected)
    return float(shares[is_empty].sum())


def median_shift(own: Counts, rest: Counts, axis: Axis) -> float:
    """Distance of the medians, in standard deviations of the rest, on the axis's scale."""
    return abs(_quantile(own, axis, 0.5) - _quantile(rest, axis, 0.5)) / _spread(rest, axis)


def median_ratio(own: Counts, rest: Counts, axis: Axis) -> float:
    """The larger median over the smaller one, in the quantity's unit; infinite where one is not positive."""
    scale: Callable[[float], float] = math.exp if axis.is_log else float
    low, high = sorted(scale(_quantile(counts, axis, 0.5)) for counts in (own, rest))
    return high / low if low > 0 else math.inf


def trimmed_wasserstein(own: Counts, rest: Counts, axis: Axis) -> float:
    """Mean distance of the quantiles from 20% to 80%, in standard deviations of the rest.

    It is the Wasserstein-1 distance without the tails: a site whose values are far off fills a tail of the rest,
    and must not make every other site look far from it.
    """
    apart = [abs(_quantile(own, axis, share) - _quantile(rest, axis, share)) for share in _INNER]
    return float(np.mean(apart)) / _spread(rest, axis)


def _shares(counts: Counts) -> Shares:
    return counts / max(int(counts.sum()), 1)


def _spread(counts: Counts, axis: Axis) -> float:
    """A robust standard deviation: the quartile range of a normal is 1.349 of them; one bin at least."""
    width = _quantile(counts, axis, 0.75) - _quantile(counts, axis, 0.25)
    return max(width / 1.349, axis.step)


def _quantile(counts: Counts, axis: Axis, share: float) -> float:
    """A quantile on the axis's scale, linear within its bin; what is off the axis is one bin beyond it."""
    below = np.cumsum(counts)
    target = share * float(below[-1])
    place = int(np.searchsorted(below, target))
    inside = float(counts[place])
    part = (target - float(below[place]) + inside) / inside if inside else 0.5
    return axis.start + (place - 1 + part) * axis.step
