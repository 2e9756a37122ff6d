"""A site's profile: how many of its people fall into each bin of each quantity, and the consortium's sum of them.

A profile is a vector of counts over public bins. It leaves a site only inside a secure sum; what comes back is
the consortium's total, from which a site takes its own away. No site and no coordinator sees another's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.cdm.tables import TABLES
from fedhealth.errors import DataError
from fedhealth.privacy.people import MIN_CELL
from fedhealth.validation.quantities import QUANTITIES, VIEWS

Counts = NDArray[np.int64]
_NEEDED = (
    *("person", "visit_occurrence", "death", "measurement", "condition_occurrence", "drug_exposure"),
    "cdm_source",
)


@dataclass(frozen=True, slots=True)
class Profile:
    """People by the name of the quantity.

    Attributes:
      counts: people per bin.
      people: people in any bin, of a site's own profile; empty for a reference.
    """

    counts: Mapping[str, Counts]
    people: Mapping[str, int]

    def to_vector(self) -> Counts:
        """All counts in the order of `QUANTITIES`: what a site adds to a secure sum."""
        return np.concatenate([self.counts[each.name] for each in QUANTITIES])


def profile_length() -> int:
    """Length of a profile's vector."""
    return sum(each.size for each in QUANTITIES)


def profile_cdm(cdm_dir: Path) -> Profile:
    """Count a site's people per bin.

    Guarantees: a person counts at most once per bin, so that adding or removing one moves every count by at most
    one; the result depends on the tables alone, not on their order.

    Args:
      cdm_dir: folder with one ``TABLE.parquet`` per OMOP table.

    Raises:
      DataError: a table is missing or cannot be read; the message holds no value.
    """
    try:
        with duckdb.connect(":memory:", config={"threads": 1}) as database:
            database.execute("SET enable_progress_bar = false")
            for name in _NEEDED:
                _open(database, cdm_dir, name)
            for view in VIEWS:
                database.execute(view)
            found = {each.name: _count(database, each.query, each.size) for each in QUANTITIES}
    except duckdb.Error as error:
        kind = type(error).__name__
        raise DataError(f"the CDM cannot be profiled ({kind})", "harmonise the site's data again") from None
    counts = {name: counted for name, (counted, _) in found.items()}
    return Profile(counts, {name: people for name, (_, people) in found.items()})


def reference_of(total: Counts) -> Profile:
    """The consortium's profile from the sum of all sites' vectors, without bins of fewer than 11 people.

    Raises:
      ValueError: the vector has another length.
    """
    if total.shape != (profile_length(),):
        raise ValueError(f"a sum of shape {total.shape} is no sum of profiles")
    shown = np.where(total < MIN_CELL, 0, total)
    ends = np.cumsum([each.size for each in QUANTITIES])[:-1]
    parts = zip(QUANTITIES, np.split(shown, ends), strict=True)
    return Profile({each.name: part for each, part in parts}, {})


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
    source.project(columns).create_view(name)


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
