"""A study's own measurements: numbers of a concept set in one unit, summarised over a window before the prediction."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedhealth.features.codes import CodeSet
from fedhealth.features.tables import as_array, end_of_day, hours_as_microseconds, temp_table
from fedhealth.study.columns import COUNT_CAP, measurement_columns
from fedhealth.study.features import MeasurementFeature
from fedhealth.study.spec import Study
from fedhealth.vocabulary.concepts import MEASUREMENTS, OPERATORS, SERIES_CONCEPTS, STATIC_CONCEPTS, UNITS
from fedhealth.vocabulary.units import Conversion, conversion

_UNIT_OF = {concept_id: unit for unit, concept_id in UNITS.items()}
_NAMED = SERIES_CONCEPTS | STATIC_CONCEPTS

_SOURCES = """
SELECT DISTINCT measurement_source_value, measurement_concept_id, unit_concept_id, unit_source_value
FROM measurement WHERE isfinite(value_as_number)
"""

# A number whose comparator the study names becomes the study's number; its unit must still be one of the feature's.
_VALUES = """
CREATE OR REPLACE TEMP TABLE feature_value AS
SELECT person_id, measurement_id, feature, moment, least(greatest(number, w.low), w.high) AS number
FROM (
  SELECT m.person_id, m.measurement_id, s.feature, {moment} AS moment,
         coalesce(r.number, m.value_as_number * s.factor + s.shift) AS number
  FROM measurement m JOIN feature_source s
    ON m.measurement_source_value IS NOT DISTINCT FROM s.source
   AND m.measurement_concept_id IS NOT DISTINCT FROM s.concept
   AND m.unit_concept_id IS NOT DISTINCT FROM s.unit_concept
   AND m.unit_source_value IS NOT DISTINCT FROM s.unit
  LEFT JOIN feature_comparator r ON r.feature = s.feature AND r.operator = m.operator_concept_id
  WHERE isfinite(m.value_as_number)
) JOIN feature_window w USING (feature)
WHERE number BETWEEN w.usable_low AND w.usable_high
"""

# Hours count from the prediction, so that the slope's sums of squares stay small. Ties in time go to the id.
_SUMMARY = """
SELECT i.row_id, v.feature,
       last(v.number ORDER BY v.moment, v.measurement_id) AS "last",
       min(v.number) AS "min", max(v.number) AS "max", avg(v.number) AS "mean",
       regr_slope(v.number, epoch(v.moment - i.predicted) / 86400) AS "slope",
       least(count(*), {cap})::DOUBLE AS "count",
       epoch(i.predicted - max(v.moment)) / 3600 AS "time_since", 0.0 AS "missing", 1.0 AS "any"
FROM index_stay i JOIN feature_value v USING (person_id) JOIN feature_window w USING (feature)
WHERE v.moment BETWEEN i.predicted + to_microseconds(w.starts) AND i.predicted + to_microseconds(w.ends)
GROUP BY i.row_id, i.predicted, v.feature
"""


def measurement_features(
    database: duckdb.DuckDBPyConnection, study: Study, *, rows: int
) -> NDArray[np.float32]:
    """The aggregates of a study's measurements over each one's window, both ends included.

    A value is used if its unit is the feature's or can be converted to it. It is clipped to the feature's public
    bounds before it is aggregated. A slope (per 24 h) needs two times.

    Returns:
      float32 (rows, columns), in the order of the study's columns: NaN for last, min, max, mean and slope of no value.
    """
    features = study.features.measurements
    columns = [measurement_columns(feature) for feature in features]
    empty = [
        np.nan if c.empty is None and c.kind == "number" else c.empty or 0.0 for each in columns for c in each
    ]
    table = np.tile(np.array(empty, dtype=np.float32), (rows, 1))
    if not features:
        return table
    _make_values(database, features)
    found = database.execute(_SUMMARY.format(cap=COUNT_CAP)).fetchnumpy()
    row, feature = as_array(found["row_id"], np.int64), as_array(found["feature"], np.int64)
    column = 0
    for position, each in enumerate(features):
        here = feature == position
        for name in each.aggregate:
            table[row[here], column] = as_array(found[name], np.float32)[here]
            column += 1
    return table


def _make_values(database: duckdb.DuckDBPyConnection, features: Sequence[MeasurementFeature]) -> None:
    """Make ``feature_value``, each feature's usable values in its unit, and ``feature_window``."""
    windows = [
        (place, *map(hours_as_microseconds, each.window_h), *map(float, (*each.bounds, *each.usable)))
        for place, each in enumerate(features)
    ]
    numbers = dict.fromkeys(("low", "high", "usable_low", "usable_high"), pa.float64())
    window = {"feature": pa.int32(), "starts": pa.int64(), "ends": pa.int64(), **numbers}
    temp_table(database, "feature_window", windows, window)
    comparators = [
        (place, OPERATORS[operator], float(number))
        for place, each in enumerate(features)
        for operator, number in each.comparator.items()
    ]
    columns = {"feature": pa.int32(), "operator": pa.int32(), "number": pa.float64()}
    temp_table(database, "feature_comparator", comparators, columns)
    _make_sources(database, features)
    database.execute(_VALUES.format(moment=end_of_day("m.measurement_date", "m.measurement_datetime")))


def _make_sources(database: duckdb.DuckDBPyConnection, features: Sequence[MeasurementFeature]) -> None:
    """Make ``feature_source``: each distinct code and unit that a feature addresses, and how its numbers are converted."""
    sets = [CodeSet.of(each.codes, field="measurement") for each in features]
    rows = [
        (source, concept, unit_concept, unit, place, fit.factor, fit.offset)
        for source, concept, unit_concept, unit in database.execute(_SOURCES).fetchall()
        for place, (feature, codes) in enumerate(zip(features, sets, strict=True))
        if codes.holds(source, concept)
        and (fit := _conversion(feature, codes, concept, _unit(unit_concept, unit))) is not None
    ]
    columns = {"source": pa.string(), "concept": pa.int32(), "unit_concept": pa.int32(), "unit": pa.string()}
    columns |= {"feature": pa.int32(), "factor": pa.float64(), "shift": pa.float64()}
    temp_table(database, "feature_source", rows, columns)


def _unit(concept_id: int | None, source: str | None) -> str:
    """The unit that a row's number is in: its concept's, or where we do not know that, the one it came with."""
    return _UNIT_OF.get(concept_id or 0, source or "")


def _conversion(
    feature: MeasurementFeature, codes: CodeSet, concept_id: int | None, unit: str
) -> Conversion | None:
    """How a number is brought to the feature's unit; the row's concept says more of its substance than the feature."""
    of_feature = [each.concept_id for each in _NAMED.get(feature.name, ())] or sorted(codes.concepts)
    of_row = [concept_id] if concept_id in MEASUREMENTS else of_feature
    return conversion(unit, feature.unit, concept_ids=of_row)
