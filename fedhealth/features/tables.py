"""A site's OMOP Parquet as views in which every time is explicit.

A date without a time counts as the end of that day, except where a stay begins: there it is the day's
start, so that a prediction so many hours after admission comes rather too early than too late.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedhealth.cdm.tables import TABLES, VISIT_EXTRA, Table
from fedhealth.errors import DataError
from fedhealth.vocabulary.concepts import STILL_PATIENT

REQUIRED = ("person", "visit_occurrence", "observation_period", "measurement")
OPTIONAL = (
    "death",
    "condition_occurrence",
    "procedure_occurrence",
    "drug_exposure",
    "observation",
    "visit_detail",
    VISIT_EXTRA.name,
)
"""Tables that may be absent from a database that is plugged in: nothing happened, as far as is known."""

_Scalar = TypeVar("_Scalar", np.float32, np.int64)

_END = "{date}::TIMESTAMP + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND"


def end_of_day(date: str, time: str) -> str:
    """SQL for a moment: the time, or where it is missing the end of the day."""
    return f"coalesce({time}::TIMESTAMP, {_END.format(date=date)})"


def as_array(column: Any, kind: type[_Scalar]) -> NDArray[_Scalar]:
    """A fetched column as an array of one type; NULL is NaN (and an error in whole numbers)."""
    if np.ma.is_masked(column):
        column = column.astype(np.float64).filled(np.nan)
    return np.asarray(column, dtype=kind)


def temp_table(
    database: duckdb.DuckDBPyConnection,
    name: str,
    rows: Sequence[tuple[object, ...]],
    columns: Mapping[str, pa.DataType],
) -> None:
    """Make a temporary table of rows, in the place of one of that name that is there."""
    places = zip(*rows, strict=True) if rows else [()] * len(columns)
    arrays = [pa.array(list(place), kind) for place, kind in zip(places, columns.values(), strict=True)]
    database.register("given", pa.Table.from_arrays(arrays, names=list(columns)))
    database.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM given")
    database.unregister("given")


def hours_as_microseconds(hours: float) -> int:
    """Whole microseconds, for SQL's ``to_microseconds``."""
    return round(hours * 3_600_000_000)


_VIEWS = (
    f"""
CREATE TEMP TABLE visit AS
SELECT v.visit_occurrence_id AS visit_id, v.person_id, v.visit_concept_id AS concept_id,
       coalesce(v.visit_start_datetime::TIMESTAMP, v.visit_start_date::TIMESTAMP) AS began,
       {end_of_day("v.visit_start_date", "v.visit_start_datetime")} AS begun_by,
       CASE WHEN coalesce(v.discharged_to_concept_id <> {STILL_PATIENT}, true)
            THEN {end_of_day("v.visit_end_date", "v.visit_end_datetime")} END AS ended,
       v.discharged_to_concept_id AS discharged_to,
       coalesce(x.is_emergency, v.visit_concept_id = 262) AS is_emergency,
       coalesce(x.is_planned, false) AS is_planned
FROM visit_occurrence v LEFT JOIN visit_extra x USING (visit_occurrence_id)
""",
    f"""
CREATE TEMP TABLE dead AS
SELECT person_id, arg_min(death_date::DATE, moment) AS died_on, min(moment) AS died_at
FROM (SELECT *, {end_of_day("death_date", "death_datetime")} AS moment FROM death)
WHERE death_date IS NOT NULL
GROUP BY person_id
""",
    """
CREATE TEMP TABLE observed AS
SELECT person_id, max(observation_period_end_date::DATE) AS until FROM observation_period GROUP BY person_id
""",
)


def open_cdm(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Make the OMOP tables of a folder visible, and visits, deaths and observation with explicit times.

    Raises:
      DataError: the folder or a required table or column is missing; the message names the table.
    """
    if not folder.is_dir():
        raise DataError("the CDM folder does not exist (code cdm_missing)", "harmonise the site's data first")
    for name in REQUIRED:
        if not (folder / f"{name}.parquet").exists():
            raise DataError(f"the CDM has no table {name} (code table_missing)", "harmonise the data again")
        _open(database, folder, TABLES[name])
    for name in OPTIONAL:
        table = VISIT_EXTRA if name == VISIT_EXTRA.name else TABLES[name]
        if (folder / f"{name}.parquet").exists():
            _open(database, folder, table)
        else:
            columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
            database.execute(f"CREATE TEMP TABLE {name} ({columns})")
    for statement in _VIEWS:
        database.execute(statement)


def _open(database: duckdb.DuckDBPyConnection, folder: Path, table: Table) -> None:
    path = str(folder / f"{table.name}.parquet").replace("'", "''")
    database.execute(f"CREATE TEMP VIEW {table.name} AS SELECT * FROM read_parquet('{path}')")
    present = {row[0] for row in database.execute(f"DESCRIBE {table.name}").fetchall()}
    missing = [name for name in table.column_names if name not in present]
    if missing:
        raise DataError(
            f"the CDM table {table.name} lacks {', '.join(missing)} (code column_missing)",
            "give it OMOP 5.4's columns, empty where unknown",
        )
