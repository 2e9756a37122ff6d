"""From raw time series to what a recurrent network sees of every step. numpy only; every constant is public."""

import numpy as np
from numpy.typing import NDArray

from fedhealth.study.columns import SERIES

CHANNELS = 3 * len(SERIES)
"""What a network sees of one step: last known values, whether each was measured, time since it was."""

SINCE_LIMIT_H = 48.0
"""Hours after which a measurement is as old as one that never was."""


def prepare_series(series: NDArray[np.floating], *, step_h: float) -> NDArray[np.float32]:
    """Scale values by public constants; add masks and the time since each last measurement.

    Guarantees: every output is finite, whatever the input; a row's output depends on that row alone; a step
    depends on no later one; steps that nothing was measured in, put before a row, change none of its others.

    Args:
      series: (rows, steps, 20) in raw units, in the order of `SERIES`, the last step ending at the prediction;
        NaN where nothing was measured, and in steps before the stay. No rows may have any shape.
      step_h: hours a step.

    Returns:
      float32 (rows, steps, 60): per step 20 values as (value - center) / spread, clipped to the public bounds,
      each the last one known and 0 before the first; 20 masks, 1 where measured; 20 times in [0, 1], in units
      of `SINCE_LIMIT_H`, 1 before the first.

    Raises:
      ValueError: not that shape, or no steps.
    """
    if len(series) == 0:
        return np.zeros((0, 1, CHANNELS), dtype=np.float32)
    if series.ndim != 3 or series.shape[2] != len(SERIES) or series.shape[1] == 0:
        raise ValueError(f"series of shape {series.shape} are not steps of {len(SERIES)} features")
    raw = np.asarray(series, dtype=np.float32)
    low, high, center, spread = np.array(
        [(each.clip_low, each.clip_high, each.center, each.spread) for each in SERIES], dtype=np.float32
    ).T
    measured = ~np.isnan(raw)
    steps = np.arange(raw.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(measured, steps, -1), axis=1)
    known = np.take_along_axis(raw, np.maximum(last, 0), axis=1)
    values = np.where(last >= 0, (np.clip(known, low, high) - center) / spread, 0.0)
    since = np.where(last >= 0, np.minimum((steps - last) * (step_h / SINCE_LIMIT_H), 1.0), 1.0)
    return np.concatenate((values, measured, since), axis=2, dtype=np.float32)
