"""Raw rows as a network is given them: on one path for training, scoring at a site, and the registered model."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RawInputs:
    """Rows in raw units, without labels and without saying whose they are.

    Args:
      features: float32, shape (rows, columns), NaN where missing.
      series: float32, shape (rows, steps, measured), NaN where nothing was measured; (rows, 0, 0) without series.
      levels: int32, shape (rows, categories), numbers in ``level_names``, -1 where missing; (rows, 0) or nothing is
        missing for all.
      level_names: per category the codes that ``levels`` counts in.
    """

    features: NDArray[np.float32]
    series: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.float32))
    levels: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int32))
    level_names: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.features)
