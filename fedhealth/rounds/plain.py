"""Updates in the clear (``aggregation.mode: plain``): what a site posts, what counts, and what is published of it.

No mask hides whose update is whose: this is for research and for networks whose sites trust one another and the coordinator. What
is posted are the integers that a mask would have hidden, signed, so that coordinator and every site compute the same
result from the same objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.robust import RULES
from fedhealth.aggregation.update import DELTA_CLIP, counted_weight, largest_weight
from fedhealth.errors import ProtocolError
from fedhealth.models.weights import unflatten
from fedhealth.rounds.aggregate import Aggregate
from fedhealth.rounds.layout import RoundShape, Vector, decode_sum, has_lane, scale_of
from fedhealth.secagg.plan import SumPlan
from fedhealth.study.spec import Study

GRID = 2.0**-26
"""What a rule's result is rounded to multiples of, so that processors that add in another order come to the same bytes."""


def travels_in_the_clear(study: Study, purpose: str) -> bool:
    """Whether a sum's vectors are posted without masks: updates alone, and in mode plain alone."""
    return study.aggregation.mode == "plain" and purpose == "update"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainUpdates:
    """The updates of one round, in the clear.

    Args:
      shape: of the round.
      plan: of its sum.
      declared: by site the weight that it declared; None without differential privacy, where it stands in the update.
    """

    shape: RoundShape
    plan: SumPlan
    declared: Mapping[str, float] | None

    def payload(self, vector: Vector) -> bytes:
        """What a site posts: its vector as little-endian signed words of the ring.

        Raises:
          ValueError: a value leaves the ring.
        """
        words = vector.astype(self._words())
        if not np.array_equal(words, vector):
            raise ValueError("a value of the update leaves the ring")
        return words.tobytes()

    def vector(self, site: str, payload: bytes) -> Vector:
        """A posted update, checked: its length, its weight, and that no parameter changed by more than the public bound.

        Raises:
          ProtocolError: it does not keep to them; it names the site.
        """
        words = self._words()
        if len(payload) != self.plan.length * words.itemsize:
            raise ProtocolError(f"the update of site {site} has a wrong size", f"reject {site}")
        vector = np.frombuffer(payload, dtype=words).astype(np.int64)
        values, weight = self._parted(site, vector)
        if not 1 <= weight <= largest_weight(self.shape.study):
            raise ProtocolError(f"the update of site {site} has a weight out of bounds", f"reject {site}")
        if np.abs(values).max() > DELTA_CLIP * weight * self._scale() + 0.5:
            raise ProtocolError(f"the update of site {site} is above the public bound", f"reject {site}")
        return vector

    def result(self, vectors: Mapping[str, Vector]) -> Aggregate:
        """What is published: without a rule the weighted mean, exactly that of the masked sum; else the rule's update.

        Under a rule every site counts once, whatever its weight.

        Args:
          vectors: by site, from `vector`: those that the coordinator listed.
        """
        study, sites = self.shape.study, sorted(vectors)
        declared = None if self.declared is None else tuple(self.declared[site] for site in sites)
        total = sum((vectors[site] for site in sites), start=np.zeros(self.plan.length, dtype=np.int64))
        mean = decode_sum(self.shape, "update", total, cohort=self.plan.cohort, declared=declared)
        mean = mean.with_survivors("update", tuple(sites))
        if study.aggregation.robust == "none":
            return mean
        rows = np.stack([self._update(site, vectors[site]) for site in sites])
        row = RULES[study.aggregation.robust](rows, study.aggregation.attackers)
        return replace(mean, tensors=unflatten(np.rint(row / GRID) * GRID, self.shape.model))

    def _update(self, site: str, vector: Vector) -> NDArray[np.float64]:
        values, weight = self._parted(site, vector)
        return values / (self._scale() * weight)

    def _parted(self, site: str, vector: Vector) -> tuple[Vector, float]:
        """The weighted update, and the weight."""
        if has_lane(self.shape.study):
            return vector[:-1], float(vector[-1])
        return vector, counted_weight((self.declared or {}).get(site, 0.0))

    def _scale(self) -> float:
        return scale_of(self.shape.study, sites=len(self.plan.cohort))

    def _words(self) -> np.dtype[np.signedinteger]:
        return np.dtype(f"<i{self.plan.ring_bits // 8}")
