"""The 20 series features on a grid of equal steps that ends at the prediction."""

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.features.tables import as_array, hours_as_microseconds
from fedhealth.study.columns import SERIES
from fedhealth.study.spec import Study

# Step 0 is the one that ends at the prediction; each holds its end and not its beginning.
_GRID = """
SELECT i.row_id, v.feature, (epoch_us(i.predicted) - epoch_us(v.moment)) // {step} AS ago,
       last(v.value ORDER BY v.moment, v.measurement_id) AS value
FROM index_stay i JOIN value v USING (person_id)
WHERE v.moment BETWEEN i.began AND i.predicted AND epoch_us(i.predicted) - epoch_us(v.moment) < {step} * {steps}
GROUP BY ALL
"""


def series_features(database: duckdb.DuckDBPyConnection, study: Study, *, rows: int) -> NDArray[np.float32]:
    """The last value of each series feature in each step, from admission to the prediction.

    The last step ends at the prediction and holds it. Steps before the admission are empty.

    Returns:
      float32 (rows, steps, 20) in raw units, NaN where nothing was measured; (rows, 0, 0) if the study's model reads no
      series.
    """
    grid = study.features.series
    if study.model.kind != "lstm" or grid.preset is None:
        return np.zeros((rows, 0, 0), dtype=np.float32)
    step = hours_as_microseconds(grid.step_h)
    found = database.execute(_GRID.format(step=step, steps=grid.steps)).fetchnumpy()
    series = np.full((rows, grid.steps, len(SERIES)), np.nan, dtype=np.float32)
    row, feature, ago = (as_array(found[name], np.int64) for name in ("row_id", "feature", "ago"))
    series[row, grid.steps - 1 - ago, feature] = as_array(found["value"], np.float32)
    return series
