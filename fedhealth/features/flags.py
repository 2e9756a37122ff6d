"""Conditions, drugs and procedures as 0 or 1: whether one was on record at the prediction."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedhealth.cdm.rows import EVENT_TABLES
from fedhealth.features.codes import CodeSet, addressed, same_code
from fedhealth.features.tables import as_array, end_of_day, hours_as_microseconds, temp_table
from fedhealth.study.columns import flags_of
from fedhealth.study.features import ConditionFeature, DrugFeature, ProcedureFeature
from fedhealth.study.spec import Study
from fedhealth.vocabulary.concepts import CONDITION_REFUTED

Flag = ConditionFeature | DrugFeature | ProcedureFeature

# A diagnosis says when its condition began, not when it was made: it may have been coded after the discharge. So one
# that belongs to a visit is known once that visit was over before this stay began.
_KNOWN = {
    "condition_occurrence": f"""
  coalesce(e.condition_status_concept_id <> {CONDITION_REFUTED}, true)
  AND (e.visit_occurrence_id IS NULL OR EXISTS (
    FROM visit v WHERE v.visit_id = e.visit_occurrence_id AND v.person_id = e.person_id AND v.ended <= i.began))""",
    "drug_exposure": "true",
    "procedure_occurrence": "true",
}
"""By table, SQL for rows that count at the prediction, if they happened in the window."""

_FLAGS = """
SELECT DISTINCT i.row_id, c.feature
FROM {table} e JOIN feature_code c ON {same_code} JOIN feature_window w USING (feature)
JOIN index_stay i ON i.person_id = e.person_id
WHERE {moment} BETWEEN i.predicted + to_microseconds(w.starts) AND i.predicted + to_microseconds(w.ends) AND {known}
"""


def flag_features(database: duckdb.DuckDBPyConnection, study: Study, *, rows: int) -> NDArray[np.float32]:
    """Whether each condition, drug and procedure of a study began in its window, both ends included.

    A condition that was refuted never counts; one that belongs to a visit counts once that visit ended, by the start
    of the index stay.

    Returns:
      float32 (rows, columns) of 0 and 1, in the order of the study's columns.
    """
    features = study.features
    kinds: tuple[tuple[str, Sequence[Flag]], ...] = (
        ("condition_occurrence", features.conditions),
        ("drug_exposure", features.drugs),
        ("procedure_occurrence", features.procedures),
    )
    table = np.zeros((rows, len(flags_of(features))), dtype=np.float32)
    first = 0
    for name, each in kinds:
        if each:
            row, feature = _happened(database, name, each)
            table[row, first + feature] = 1.0
        first += len(each)
    return table


def _happened(
    database: duckdb.DuckDBPyConnection, table: str, features: Sequence[Flag]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and features (numbers in the list) of what happened in the window."""
    field, day = EVENT_TABLES[table].field, EVENT_TABLES[table].day
    sets = [CodeSet.of(each.codes, field=field, texts=_texts(each)) for each in features]
    addressed(database, "feature_code", table=table, features=sets)
    windows = [(place, *map(hours_as_microseconds, _window(each))) for place, each in enumerate(features)]
    columns = {"feature": pa.int32(), "starts": pa.int64(), "ends": pa.int64()}
    temp_table(database, "feature_window", windows, columns)
    query = _FLAGS.format(
        table=table,
        same_code=same_code("e", table, "c"),
        moment=end_of_day(f"e.{day}", f"e.{day}time"),
        known=_KNOWN[table],
    )
    found = database.execute(query).fetchnumpy()
    return as_array(found["row_id"], np.int64), as_array(found["feature"], np.int64)


def _window(feature: Flag) -> tuple[float, float]:
    """Hours relative to the prediction."""
    return feature.window_h if isinstance(feature, DrugFeature) else (-24.0 * feature.look_back_days, 0.0)


def _texts(feature: Flag) -> tuple[str, ...]:
    return feature.text if isinstance(feature, DrugFeature) else ()
