"""A site's own profile (`fedhealth.aggregation.profiles`), counted from its CDM."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedhealth.aggregation.profiles import Counts, Profile
from fedhealth.aggregation.quantities import QUANTITIES, VIEWS
from fedhealth.cdm.record import read_record
from fedhealth.cdm.tables import TABLES
from fedhealth.errors import DataError

_NEEDED = (
    *("person", "visit_occurrence", "death", "measurement", "condition_occurrence", "drug_exposure"),
    "cdm_source",
)
_OF_CALENDAR = {"limited-dataset": ("visit_quarter",), "safe-harbor": ("visit_quarter", "admission_hour")}
"""By profile of de-identification, the quantities that its dates tell nothing of: they are left out."""


def profile_cdm(cdm_dir: Path, *, without: NDArray[np.int64] | None = None) -> Profile:
    """Count a site's people per bin.

    Guarantees: a person counts at most once per bin, so that adding or removing one moves every count by at most
    one; the result depends on the tables alone, not on their order.

    Args:
      cdm_dir: folder with one ``TABLE.parquet`` per OMOP table.
      without: keyed ids of people who are not to be counted.

    Raises:
      DataError: a table is missing or cannot be read; the message holds no value.
    """
    try:
        with duckdb.connect(":memory:", config={"threads": 1}) as database:
            database.execute("SET enable_progress_bar = false")
            out = np.array([], np.int64) if without is None else without
            database.register("left_out", pa.table({"person_id": pa.array(out, pa.int64())}))
            for name in _NEEDED:
                _open(database, cdm_dir, name)
            for view in VIEWS:
                database.execute(view)
            found = {each.name: _count(database, each.query, each.size) for each in QUANTITIES}
    except duckdb.Error as error:
        kind = type(error).__name__
        raise DataError(f"the CDM cannot be profiled ({kind})", "harmonise the site's data again") from None
    silent = _OF_CALENDAR.get(_profile_of(cdm_dir), ())
    counts = {name: counted * (name not in silent) for name, (counted, _) in found.items()}
    return Profile(counts, {name: people * (name not in silent) for name, (_, people) in found.items()})


def _profile_of(cdm_dir: Path) -> str:
    try:
        return read_record(cdm_dir).profile
    except DataError:
        return "local-only"


def others(reference: Profile, own: Profile) -> Profile:
    """The reference without a site's own people: what the site compares itself with."""
    rest = {name: np.maximum(counts - own.counts[name], 0) for name, counts in reference.counts.items()}
    return Profile(rest, {})


def _open(database: duckdb.DuckDBPyConnection, folder: Path, name: str) -> None:
    """A view with every column of the contract; an absent one is NULL."""
    source = database.from_parquet(str(folder / f"{name}.parquet"))
    columns = ", ".join(
        column.name if column.name in source.columns else f"CAST(NULL AS {column.type}) AS {column.name}"
        for column in TABLES[name].columns
    )
    source.project(columns).create_view(f"all_{name}")
    kept = "ANTI JOIN left_out USING (person_id)" if "person_id" in TABLES[name].column_names else ""
    database.execute(f"CREATE VIEW {name} AS FROM all_{name} {kept}")


def _count(database: duckdb.DuckDBPyConnection, query: str, size: int) -> tuple[Counts, int]:
    """People per bin, and in any."""
    found = database.execute(
        f"SELECT place, count(DISTINCT person_id) FROM ({query}) q(person_id, place) "
        "WHERE place IS NOT NULL GROUP BY GROUPING SETS ((place), ())"
    ).fetchall()
    counts, people = np.zeros(size, dtype=np.int64), 0
    for place, number in found:
        if place is None:
            people = int(number)
        else:
            counts[int(place)] = number
    return counts, people
