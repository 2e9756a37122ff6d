"""Poisson samples of patients, one row of each."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedhealth.privacy.noise import NoiseSource


@dataclass(frozen=True, slots=True)
class PatientSampler:
    """Rows grouped by patient.

    Attributes:
      order: row numbers, patient by patient.
      first: where each patient's rows begin in ``order``.
      counts: how many rows each patient has.
    """

    order: NDArray[np.int64]
    first: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, person: NDArray[np.int64]) -> Self:
        """Group row numbers by the patient they belong to."""
        order = np.argsort(person, kind="stable")
        _, first, counts = np.unique(person[order], return_index=True, return_counts=True)
        return cls(order=order.astype(np.int64), first=first.astype(np.int64), counts=counts.astype(np.int64))

    def draw(self, source: NoiseSource, *, sampling_probability: float) -> NDArray[np.int64]:
        """Draw each patient independently, and of each drawn patient one row uniformly.

        Guarantees: adding or removing a patient changes at most one row of the sample, whatever number of
        rows the patient has; the sample may be empty.

        Returns:
          Row numbers, (drawn patients,).
        """
        drawn = np.flatnonzero(source.bernoulli(len(self.first), probability=sampling_probability))
        rows: NDArray[np.int64] = self.order[self.first[drawn] + source.choices(self.counts[drawn])]
        return rows
