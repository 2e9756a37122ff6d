"""Counts of what breaks each rule, by DuckDB from the Parquet folder: the only code here that reads rows.

What DuckDB raises quotes values, so every query runs behind `_counted`, which lets none of it out.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fedhealth.cdm.tables import Table
from fedhealth.errors import DataError
from fedhealth.validation.rules import Rule, primary_key, rules_for

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
# DuckDB types that a Parquet file may have for each type of the contract. A column of nothing but nulls is
# INTEGER in some writers, and no rule reads text: whole numbers pass for it.
_KINDS: dict[str, tuple[str, ...]] = {
    "BIGINT": _WHOLE,
    "INTEGER": _WHOLE,
    "DOUBLE": ("DOUBLE", "FLOAT", "DECIMAL", *_WHOLE),
    "DATE": ("DATE",),
    "TIMESTAMP": (
        "TIMESTAMP",
        "TIMESTAMP_S",
        "TIMESTAMP_MS",
        "TIMESTAMP_NS",
        "TIMESTAMP WITH TIME ZONE",
        "DATE",
    ),
    "VARCHAR": ("VARCHAR", "INTEGER"),
    "BOOLEAN": ("BOOLEAN",),
}


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows a rule is about, and how many of them break it."""

    rule: Rule
    rows: int
    failed: int

    @property
    def share(self) -> float:
        """Share of failing rows, 0 where there are none to count."""
        return self.failed / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Structure:
    """What a table's file looks like.

    Attributes:
      readable: the file exists and is Parquet.
      columns: names and DuckDB types of its columns.
    """

    readable: bool
    columns: Mapping[str, str]

    def has_required(self, table: Table) -> bool:
        """Whether every column that OMOP requires is there."""
        return set(table.required) <= set(self.columns)

    def types_fit(self, table: Table) -> bool:
        """Whether every column that is there has a type of its kind: number, day, time, text."""
        there = [column for column in table.columns if column.name in self.columns]
        return all(self.columns[each.name].partition("(")[0] in _KINDS[each.type] for each in there)

    def is_sound(self, table: Table) -> bool:
        """Whether the row rules of the table can be counted."""
        return self.readable and self.has_required(table) and self.types_fit(table)


class CdmReader:
    """Reads one CDM folder; a context manager that owns its database in memory."""

    def __init__(self, cdm_dir: Path) -> None:
        self._folder = cdm_dir
        self._db = duckdb.connect(":memory:", config={"threads": 2})

    def __enter__(self) -> "CdmReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def structure(self, table: str) -> Structure:
        """Columns of a table's file; not readable instead of an error, as that is a finding."""
        path = self._path(table)
        if not path.is_file():
            return Structure(readable=False, columns={})
        try:
            found = self._db.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
        except duckdb.Error:
            return Structure(readable=False, columns={})
        return Structure(readable=True, columns={name: kind for name, kind, *_ in found})

    def open_tables(self, tables: Sequence[Table], structures: Mapping[str, Structure]) -> None:
        """Make a view per table with all columns of the contract; an absent optional one is NULL.

        Raises:
          DataError: a file cannot be read.
        """
        with _counted("cdm"):
            for table in tables:
                columns = ", ".join(
                    column.name
                    if column.name in structures[table.name].columns
                    else f"CAST(NULL AS {column.type}) AS {column.name}"
                    for column in table.columns
                )
                source = self._db.from_parquet(str(self._path(table.name))).project(columns)
                source.create_view(table.name)
            self._db.execute(_PEOPLE)
            self._db.execute(_VISITS)

    def count(self, table: Table) -> tuple[Count, ...]:
        """Count every row rule of one table in one pass.

        Raises:
          DataError: the table cannot be read.
        """
        rules = rules_for(table)
        parts = [
            f"count_if({rule.counted}), count_if(({rule.counted}) AND ({rule.failing}))" for rule in rules
        ]
        with _counted(table.name):
            row = self._db.execute(f"SELECT {', '.join(parts)} FROM ({_events(table)}) e").fetchone()
        numbers = [int(number or 0) for number in row or ()]
        pairs = zip(rules, numbers[::2], numbers[1::2], strict=True)
        return tuple(Count(rule, rows=rows, failed=failed) for rule, rows, failed in pairs)

    def rows(self, table: str) -> int:
        """Number of rows of a table.

        Raises:
          DataError: the table cannot be read.
        """
        with _counted(table):
            row = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(row[0]) if row else 0

    def _path(self, table: str) -> Path:
        return self._folder / f"{table}.parquet"


# One row per person and visit even where keys repeat, so that a join never multiplies what is counted.
_PEOPLE = """
CREATE TABLE people AS
SELECT p.person_id AS known_person,
       min(CASE WHEN p.birth_datetime IS NOT NULL THEN CAST(p.birth_datetime AS DATE)
                WHEN p.year_of_birth BETWEEN 1 AND 9999 THEN make_date(p.year_of_birth, 1, 1) END) AS born,
       min(d.death_date) AS died
FROM person p LEFT JOIN death d USING (person_id)
WHERE p.person_id IS NOT NULL GROUP BY p.person_id
"""
_VISITS = """
CREATE TABLE visits AS
SELECT visit_occurrence_id AS known_visit, min(person_id) AS visit_person,
       min(visit_start_date) AS visit_start, max(visit_end_date) AS visit_end
FROM visit_occurrence WHERE visit_occurrence_id IS NOT NULL GROUP BY visit_occurrence_id
"""


def _events(table: Table) -> str:
    """The table with what its rules compare it to: its person's life, its visit's days, repeated keys."""
    extra, joins = [], []
    if (key := primary_key(table)) is not None:
        extra.append(f"count(*) OVER (PARTITION BY t.{key}) AS copies")
    if table.name == "measurement":
        extra.append(_SAME_EVENTS)
    if table.name == "person":
        extra.append("t.person_id IN (SELECT visit_person FROM visits) AS has_visit")
    elif "person_id" in table.column_names:
        extra.append("people.known_person IS NOT NULL AS person_known, people.born, people.died")
        joins.append("LEFT JOIN people ON t.person_id = people.known_person")
    if "visit_occurrence_id" in table.column_names and table.name != "visit_occurrence":
        extra.append("visits.known_visit IS NOT NULL AS visit_known")
        extra.append("visits.visit_person, visits.visit_start, visits.visit_end")
        joins.append("LEFT JOIN visits ON t.visit_occurrence_id = visits.known_visit")
    return f"SELECT {', '.join(['t.*', *extra])} FROM {table.name} t {' '.join(joins)}"


_SAME_EVENTS = (
    "count(*) OVER (PARTITION BY t.person_id, t.measurement_concept_id, t.measurement_datetime,"
    " t.value_as_number) AS same_events"
)


@contextmanager
def _counted(table: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        kind = type(error).__name__
        raise DataError(
            f"table {table} cannot be counted ({kind})", "harmonize the site's data again"
        ) from None
