"""Counts of what breaks each rule, by DuckDB from the Parquet folder: the only code here that reads rows.

What DuckDB raises quotes values, so every query runs behind `_counted`, which lets none of it out.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from fedhealth.cdm.tables import Table
from fedhealth.errors import DataError
from fedhealth.validation.concept_rules import column_rules, kind_of_column, measured_rules
from fedhealth.validation.limits import concept_limits
from fedhealth.validation.rules import Rule, rules_for
from fedhealth.vocabulary.domains import package_concepts

_MEMORY = "1GB"  # above it DuckDB spills to a folder that only the site's account can read

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

    def missing(self, table: Table) -> list[str]:
        """The columns that OMOP requires and that are not there."""
        return [name for name in table.required if name not in self.columns]

    def types_fit(self, table: Table) -> bool:
        """Whether every column that is there has a type of its kind: number, day, time, text."""
        there = [column for column in table.columns if column.name in self.columns]
        return all(self.columns[each.name].partition("(")[0] in _KINDS[each.type] for each in there)

    def is_sound(self, table: Table) -> bool:
        """Whether the row rules of the table can be counted."""
        return self.readable and not self.missing(table) and self.types_fit(table)


class CdmReader:
    """Reads one CDM folder; a context manager that owns its database in memory."""

    def __init__(self, cdm_dir: Path) -> None:
        self._folder = cdm_dir
        self._spill = TemporaryDirectory(prefix="fedhealth-")
        self._db = duckdb.connect(
            ":memory:",
            config={"threads": 2, "memory_limit": _MEMORY, "temp_directory": self._spill.name},
        )
        self._db.execute("SET enable_progress_bar = false")

    def __enter__(self) -> "CdmReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()
        self._spill.cleanup()

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
            self._db.execute(_PACKAGE)
            rows = [(each, kind.domain, kind.concept_class) for each, kind in package_concepts().items()]
            self._db.executemany("INSERT INTO package VALUES (?, ?, ?)", rows)
            self._db.execute(f"CREATE TABLE concepts_used AS {_concepts_used(tables)}")
            self._db.execute(_LIMITS)
            self._db.executemany("INSERT INTO concept_limits VALUES (?, ?, ?, ?, ?, ?)", _limit_rows())

    def count(self, table: Table) -> tuple[Count, ...]:
        """Count every rule of one table: the row rules in one pass, then the queries, then measured concepts.

        Raises:
          DataError: the table cannot be read.
        """
        rules = (*rules_for(table), *column_rules(table))
        with _counted(table.name):
            counts = [*self._row_counts(table, rules), *self._query_counts(rules)]
            if table.name == "measurement":
                counts += self._measured_counts()
        return tuple(counts)

    def _row_counts(self, table: Table, rules: Sequence[Rule]) -> list[Count]:
        chosen = [each for each in rules if not each.query]
        parts = _parts([(each.counted, each.failing) for each in chosen])
        row = self._db.execute(f"SELECT {parts} FROM ({_events(table)}) e").fetchone() or ()
        return [_count(each, row[2 * at :]) for at, each in enumerate(chosen)]

    def _query_counts(self, rules: Sequence[Rule]) -> list[Count]:
        return [_count(each, self._db.execute(each.query).fetchone() or ()) for each in rules if each.query]

    def _measured_counts(self) -> list[Count]:
        """All concepts at once: the conditions are the same, their limits differ."""
        rules = measured_rules()
        conditions = list(dict.fromkeys((each.counted, each.failing) for each in rules))
        found = self._db.execute(
            f"SELECT l.concept, {_parts(conditions)} FROM measurement e"
            " JOIN concept_limits l ON e.measurement_concept_id = l.concept GROUP BY l.concept"
        ).fetchall()
        by_concept = {row[0]: row[1:] for row in found}
        return [
            _count(
                each, by_concept.get(each.concept, ())[2 * conditions.index((each.counted, each.failing)) :]
            )
            for each in rules
        ]

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
       min(d.death_date) AS died, min(p.gender_concept_id) AS person_gender
FROM person p LEFT JOIN death d USING (person_id)
WHERE p.person_id IS NOT NULL GROUP BY p.person_id
"""
_VISITS = """
CREATE TABLE visits AS
SELECT visit_occurrence_id AS known_visit, min(person_id) AS visit_person,
       min(visit_start_date) AS visit_start, max(visit_end_date) AS visit_end
FROM visit_occurrence WHERE visit_occurrence_id IS NOT NULL GROUP BY visit_occurrence_id
"""


_PACKAGE = "CREATE TABLE package (concept_id BIGINT, domain VARCHAR, concept_class VARCHAR)"
_LIMITS = (
    "CREATE TABLE concept_limits (concept BIGINT, low DOUBLE, high DOUBLE, usual_low DOUBLE,"
    " usual_high DOUBLE, units BIGINT[])"
)


def _limit_rows() -> list[tuple[object, ...]]:
    return [
        (
            each.concept,
            each.range.low,
            each.range.high,
            *(each.range.usual or (None, None)),
            list(each.units),
        )
        for each in concept_limits()
    ]


def _concepts_used(tables: Sequence[Table]) -> str:
    """How often each concept stands in each column that has a domain, and what the package knows of it."""
    parts = [
        f"SELECT '{table.name}' AS omop_table, '{name}' AS field, {name} AS concept_id, count(*) AS n"
        f" FROM {table.name} GROUP BY {name}"
        for table in tables
        for name in table.column_names
        if kind_of_column(name) is not None or name.endswith("_source_concept_id")
    ]
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) LEFT JOIN package USING (concept_id)"


def _parts(conditions: Sequence[tuple[str, str]]) -> str:
    return ", ".join(
        f"count_if({counted}), count_if(({counted}) AND ({failing}))" for counted, failing in conditions
    )


def _count(rule: Rule, numbers: Sequence[int]) -> Count:
    """The first two numbers as a rule's count; none where the rule is about no row."""
    rows, failed = numbers[:2] or (0, 0)
    return Count(rule, rows=int(rows or 0), failed=int(failed or 0))


def _events(table: Table) -> str:
    """The table with what its row rules compare it to: its person's life, its visit's days."""
    extra, joins = [], []
    if "person_id" in table.column_names and table.name != "person":
        extra.append("people.known_person IS NOT NULL AS person_known, people.born, people.died")
        extra.append("people.person_gender")
        joins.append("LEFT JOIN people ON t.person_id = people.known_person")
    if "visit_occurrence_id" in table.column_names and table.name != "visit_occurrence":
        extra.append("visits.known_visit IS NOT NULL AS visit_known")
        extra.append("visits.visit_person, visits.visit_start, visits.visit_end")
        joins.append("LEFT JOIN visits ON t.visit_occurrence_id = visits.known_visit")
    return f"SELECT {', '.join(['t.*', *extra])} FROM {table.name} t {' '.join(joins)}"


@contextmanager
def _counted(table: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        kind = type(error).__name__
        raise DataError(
            f"table {table} cannot be counted ({kind})", "harmonize the site's data again"
        ) from None
