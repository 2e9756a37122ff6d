"""From raw feature columns to what the network sees, on one path for training and scoring.

numpy only. The numbers used are public (clip bounds) or the consortium's (`Statistics`); they are kept beside
the trained weights, never among them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.statistics import Statistics
from fedhealth.study.columns import FeatureColumn


def prepare(
    features: NDArray[np.floating], statistics: Statistics, columns: Sequence[FeatureColumn]
) -> NDArray[np.float32]:
    """Impute by consortium median, clip to the public bounds, standardise by consortium mean and sd.

    Guarantees: every output is finite, whatever the input (infinities are clipped); numbers and flags take
    the same path; a row's output depends on that row alone.

    Args:
      features: (rows, columns) in raw units, NaN where missing.
      statistics: of these columns.
      columns: the public clip bounds.

    Returns:
      float32 (rows, columns).

    Raises:
      ValueError: another number of columns than the statistics or the study have.
    """
    if features.ndim != 2 or not features.shape[1] == len(columns) == len(statistics.mean):
        raise ValueError(f"features {features.shape} do not fit {len(columns)} columns and their statistics")
    low = np.array([column.low for column in columns], dtype=np.float32)
    high = np.array([column.high for column in columns], dtype=np.float32)
    raw = np.asarray(features, dtype=np.float32)
    filled = np.where(np.isnan(raw), statistics.median, raw)
    scaled = (np.clip(filled, low, high) - statistics.mean) / statistics.sd
    return np.ascontiguousarray(scaled, dtype=np.float32)  # one layout: sums over it have one order
