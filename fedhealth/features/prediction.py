"""When predictions are made: the table ``candidate``, one row per index visit and prediction."""

import duckdb

from fedhealth.study.language import Prediction

# A stay too short for any step keeps its first, so that the rule which excludes it can be counted; a step at the very
# end is excluded by the same. An open stay is no row whatever its steps.
_EVERY = """
CREATE TEMP TABLE candidate AS
WITH step AS (
  SELECT *, unnest(generate_series(1, CASE WHEN is_open THEN 1 ELSE
                   greatest(1, (epoch_us(ended) - epoch_us(began)) // {step}) END)) AS step
  FROM stay
)
SELECT * EXCLUDE (step), began + to_microseconds(step * {step}) AS predicted FROM step
"""


def microseconds(hours: float) -> int:
    """Hours as whole microseconds, the resolution of a timestamp."""
    return round(hours * 3_600_000_000)


def make_predictions(database: duckdb.DuckDBPyConnection, prediction: Prediction) -> None:
    """Make ``candidate``: every index visit with each moment at which a prediction is made; needs ``stay``."""
    if prediction.step_h is not None:
        database.execute(_EVERY.format(step=microseconds(prediction.step_h)))
        return
    at = "ended"
    if prediction.plus_h is not None:
        at = f"began + to_microseconds({microseconds(prediction.plus_h)})"
    database.execute(f"CREATE TEMP TABLE candidate AS SELECT *, {at} AS predicted FROM stay")
