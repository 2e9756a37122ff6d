"""Last, minimum, maximum, mean, slope and missing flag of the 20 series features before the prediction."""

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.features.tables import as_array, end_of_day, hours_as_microseconds
from fedhealth.features.value_sets import SERIES_CONCEPTS
from fedhealth.study.columns import SERIES, SUMMARIES
from fedhealth.study.spec import Study

# Hours count from the prediction, so that the slope's sums of squares stay small. Ties in time go to the id.
_SUMMARY = """
SELECT i.row_id, v.feature,
       last(v.value ORDER BY v.moment, v.measurement_id) AS "last",
       min(v.value) AS "min", max(v.value) AS "max",
       avg(v.value) AS "mean", regr_slope(v.value, epoch(v.moment - i.predicted) / 86400) AS "slope"
FROM index_stay i JOIN value v ON v.person_id = i.person_id AND v.moment BETWEEN {start} AND {end}
GROUP BY i.row_id, v.feature
"""


def load_values(database: duckdb.DuckDBPyConnection) -> None:
    """The plausible values of the series features with their times, in the table ``value``.

    A value outside the feature's hard physiologic range is not used.
    """
    concepts = ", ".join(
        f"({concept}, {position}, {float(feature.low)!r}, {float(feature.high)!r})"
        for position, feature in enumerate(SERIES)
        for concept in SERIES_CONCEPTS[feature.name]
    )
    database.execute(
        f"""
        CREATE TEMP TABLE value AS
        SELECT m.person_id, m.measurement_id, s.feature, m.value_as_number::DOUBLE AS value,
               {end_of_day("m.measurement_date", "m.measurement_datetime")} AS moment
        FROM measurement m JOIN (VALUES {concepts}) s(concept_id, feature, low, high)
          ON m.measurement_concept_id = s.concept_id AND m.value_as_number BETWEEN s.low AND s.high
        """
    )


def summary_features(database: duckdb.DuckDBPyConnection, study: Study, *, rows: int) -> NDArray[np.float32]:
    """Six summaries of each series feature over the study's window.

    The window ends at the prediction or before it; where the prediction is made within the stay it does not reach
    behind the admission. A slope (per 24 h) needs two times.

    Returns:
      float32, shape (rows, 120): per feature last, min, max, mean, slope (NaN where unknown) and missing
      (0, 1).
    """
    start, end = (
        f"i.predicted + to_microseconds({hours_as_microseconds(h)})" for h in study.features.window_h
    )
    if study.prediction.at != "discharge":
        start = f"greatest(i.began, {start})"
    found = database.execute(_SUMMARY.format(start=start, end=end)).fetchnumpy()
    table = np.full((rows, len(SERIES), len(SUMMARIES)), np.nan, dtype=np.float32)
    table[:, :, -1] = 1.0
    row, feature = as_array(found["row_id"], np.int64), as_array(found["feature"], np.int64)
    for position, name in enumerate(SUMMARIES[:-1]):
        table[row, feature, position] = as_array(found[name], np.float32)
    table[row, feature, -1] = 0.0
    return table.reshape(rows, len(SERIES) * len(SUMMARIES))
