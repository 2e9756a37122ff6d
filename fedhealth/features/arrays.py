"""All features of a study's rows, in the order of its columns."""

from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.features.categories import category_levels
from fedhealth.features.flags import flag_features
from fedhealth.features.measurements import measurement_features
from fedhealth.features.series import series_features
from fedhealth.features.statics import static_features
from fedhealth.features.summaries import summary_features
from fedhealth.study.columns import numeric_columns
from fedhealth.study.spec import Study


@dataclass(frozen=True, slots=True)
class FeatureArrays:
    """What is known of every row at its prediction, as `fedhealth.features.Rows` holds it.

    Args:
      features: float32 (rows, columns) of `numeric_columns`.
      series: float32 (rows, steps, 20), or (rows, 0, 0).
      levels: int32 (rows, categories), numbers in ``level_names``, -1 where missing.
      level_names: per category, the codes that occur at this site.
    """

    features: NDArray[np.float32]
    series: NDArray[np.float32]
    levels: NDArray[np.int32]
    level_names: tuple[tuple[str, ...], ...]


def feature_arrays(database: duckdb.DuckDBPyConnection, study: Study, *, rows: int) -> FeatureArrays:
    """Build the features of the rows in the table ``index_stay``.

    Guarantees: uses nothing that is after a row's prediction time; a date without a time counts as the end of that
    day. The same tables give the same bytes.

    Args:
      database: with the tables of `open_cdm` and `load_values`, ``episode``, and ``index_stay`` (row_id from 0,
        person_id, began, predicted, age, gender_concept_id, is_emergency).
      study: the study.
      rows: how many rows ``index_stay`` has.
    """
    parts = [static_features(database, study, rows=rows)]
    if study.features.preset is not None:
        parts.append(summary_features(database, study, rows=rows))
    parts.append(measurement_features(database, study, rows=rows))
    parts.append(flag_features(database, study, rows=rows))
    features = np.concatenate(parts, axis=1)
    if features.shape != (rows, len(numeric_columns(study))):
        raise ValueError("the features do not fit the study's columns")
    levels, names = category_levels(database, study, rows=rows)
    return FeatureArrays(features, series_features(database, study, rows=rows), levels, names)
