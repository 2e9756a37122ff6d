"""What a site trains a stepwise model on, and people as integers that add up over cells and over sites."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import DataError

PERSON = 720_720
"""One person as an integer: the least number that 1 to 16 divide, so that a person of up to 16 rows is whole."""

MAX_ROWS = 2**20
"""Rows of one site: with up to 40 such sites no sum of a stepwise model leaves 64 bits."""

MAX_SITES = 40


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Rows of the training fold at one site.

    Args:
      inputs: float32 (rows, columns), raw or prepared as the model's `Stepwise.inputs` says.
      labels: float32 (rows,), of the study's one target; NaN where not known.
      person: int64 (rows,), keyed patient ids.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.float32]
    person: NDArray[np.int64]

    def known(self, *, columns: int) -> Self:
        """The rows whose label is known.

        Raises:
          DataError: more rows than `MAX_ROWS`.
          ValueError: shapes do not fit.
        """
        if self.inputs.shape != (len(self.labels), columns) or self.person.shape != self.labels.shape:
            raise ValueError(
                f"inputs {self.inputs.shape} do not fit {len(self.labels)} labels, {columns} columns"
            )
        if len(self.labels) > MAX_ROWS:
            raise DataError(f"a site has more than {MAX_ROWS} rows", "narrow the cohort")
        chosen = ~np.isnan(self.labels)
        return type(self)(self.inputs[chosen], self.labels[chosen], self.person[chosen])

    def person_parts(self) -> NDArray[np.int64]:
        """Each row's part of its person, in units of `PERSON`.

        Guarantees: over any set of rows the parts sum to at most `PERSON` times the people who have one in it, so
        a rule of so many people that the sum keeps is kept by people: where it errs, it hides too much.
        """
        _, index, counts = np.unique(self.person, return_inverse=True, return_counts=True)
        return np.asarray(PERSON // counts[index], dtype=np.int64)
