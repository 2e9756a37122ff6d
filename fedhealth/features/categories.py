"""A study's categories: the last coded, boolean or text-coded observation of a window, as this site writes it."""

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedhealth.aggregation.vocabulary import told_as
from fedhealth.features.codes import CodeSet, addressed, same_code
from fedhealth.features.tables import as_array, end_of_day, hours_as_microseconds, temp_table
from fedhealth.study.spec import Study

# The concept comes first, as sites that map their codes agree on it; a site's own concepts (2e9 and above) say nothing
# to others. What has no code system is a word, whose case tells nothing; a number is none, also one whose unit was lost.
_EVENTS = """
SELECT e.person_id, c.feature, {moment} AS moment, e.{table}_id AS id,
       CASE WHEN e.value_as_concept_id BETWEEN 1 AND 1999999999 THEN 'omop|' || e.value_as_concept_id
            WHEN contains(e.{text}, '|') THEN trim(e.{text})
            WHEN try_cast(e.{text} AS DOUBLE) IS NULL THEN nullif(lower(trim(e.{text})), '') END AS level
FROM {table} e JOIN {table}_code c ON {same_code} WHERE e.value_as_number IS NULL
"""

_LAST = """
SELECT i.row_id, v.feature, last(v.level ORDER BY v.moment, v.id, v.level) AS level
FROM index_stay i JOIN ({events}) v USING (person_id) JOIN feature_window w USING (feature)
WHERE v.level IS NOT NULL
  AND v.moment BETWEEN i.predicted + to_microseconds(w.starts) AND i.predicted + to_microseconds(w.ends)
GROUP BY i.row_id, v.feature
"""

_TEXTS = {"observation": "value_as_string", "measurement": "value_source_value"}
"""By table, the column of coded values, words and booleans."""


def category_levels(
    database: duckdb.DuckDBPyConnection, study: Study, *, rows: int
) -> tuple[NDArray[np.int32], tuple[tuple[str, ...], ...]]:
    """The level of each category at each row: that of the latest observation of the window, both ends included.

    Returns:
      int32 (rows, categories), numbers in the names, -1 where there is none; and by category the names of this site's
      levels, sorted: ``omop|NUMBER``, ``system|code``, ``true``, ``false``, or a word.
    """
    features = study.features.categories
    levels = np.full((rows, len(features)), -1, dtype=np.int32)
    if not features:
        return levels, ()
    sets = [CodeSet.of(each.codes, field="measurement") for each in features]
    windows = [(place, *map(hours_as_microseconds, each.window_h)) for place, each in enumerate(features)]
    columns = {"feature": pa.int32(), "starts": pa.int64(), "ends": pa.int64()}
    temp_table(database, "feature_window", windows, columns)
    for table in _TEXTS:
        addressed(database, f"{table}_code", table=table, features=sets)
    found = database.execute(_LAST.format(events=" UNION ALL ".join(map(_events, _TEXTS)))).fetchnumpy()
    row, feature = as_array(found["row_id"], np.int64), as_array(found["feature"], np.int64)
    told = np.array([told_as(level) for level in found["level"]], dtype=object)
    names = []
    for place in range(len(features)):
        here = feature == place
        here_names, numbers = np.unique(told[here], return_inverse=True)
        levels[row[here], place] = numbers
        names.append(tuple(str(name) for name in here_names))
    return levels, tuple(names)


def _events(table: str) -> str:
    return _EVENTS.format(
        table=table,
        text=_TEXTS[table],
        moment=end_of_day(f"e.{table}_date", f"e.{table}_datetime"),
        same_code=same_code("e", table, "c"),
    )
