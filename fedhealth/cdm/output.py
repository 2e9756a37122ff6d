"""Write a CDM folder all at once: into a folder beside it, renamed when everything is there."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from fedhealth.cdm.anonymizer import empty_value
from fedhealth.cdm.profiles import Deidentification, has_moved, moved_column
from fedhealth.cdm.record import RECORD
from fedhealth.cdm.tables import PRIVATE_TABLES, TABLES, VISIT_EXTRA, Table
from fedhealth.errors import ConfigError

_OWN = ("accounting.json", RECORD)
_LOCK = "fedhealth.lock"
"""Locked for as long as the run lives: what a killed run left beside its target is told by it."""


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` when the block ends well, and vanishes otherwise.

    Guarantees: ``folder`` is either as it was or complete; a folder that holds other things is not touched. What a
    killed run into the same ``folder`` left beside it is removed first, that of a living one is not.

    Raises:
      ConfigError: ``folder`` is there and is no CDM folder of ours.
    """
    with replacing_any(folder, own=_OWN) as fresh:
        yield fresh


@contextmanager
def replacing_any(folder: Path, *, own: tuple[str, ...]) -> Iterator[Path]:
    """Like ``replacing``, for a folder that is ours if it has the files ``own``."""
    _remove_killed(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_own(folder, own))):
        raise ConfigError(
            f"{folder} holds something else than an earlier result", "name an empty or a new folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        scratch = held.enter_context(
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.")
        )
        held.enter_context(_locked(Path(scratch)))
        fresh = Path(scratch) / "new"
        fresh.mkdir(mode=0o700)
        yield fresh
        if folder.exists():
            os.rename(folder, Path(scratch) / "old")
        os.rename(fresh, folder)


@contextmanager
def _locked(scratch: Path) -> Iterator[None]:
    """Hold the lock of a working folder; a file system that knows no locks has none, and its folders stay."""
    made = scratch / f"{_LOCK}.new"
    with made.open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            made.rename(scratch / _LOCK)  # only now: who finds the file finds it locked
        yield


def _remove_killed(folder: Path) -> None:
    """Remove working folders of runs into ``folder`` that live no more: they hold whole texts of patients."""
    if not folder.parent.is_dir():
        return
    named = re.compile(re.escape(f".{folder.name}.") + "[a-z0-9_]{8}")  # as tempfile names them
    for scratch in [each for each in folder.parent.iterdir() if named.fullmatch(each.name)]:
        with suppress(OSError), (scratch / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (scratch / "old").exists() and not folder.exists():  # killed between the two renames
                os.rename(scratch / "old", folder)
            # the lock goes last: what cannot be removed now is found again
            for each in scratch.iterdir():
                if each.name != _LOCK:
                    shutil.rmtree(each)
            shutil.rmtree(scratch)


def _is_own(folder: Path, own: tuple[str, ...]) -> bool:
    return all((folder / name).exists() for name in own)


def write_tables(
    database: duckdb.DuckDBPyConnection,
    folder: Path,
    how: Deidentification,
    *,
    hidden: Mapping[tuple[str, str], str],
) -> dict[str, int]:
    """Write every ``out_<table>`` as Parquet, de-identified and ordered by person and key; returns rows per table.

    Guarantees: the same rows give the same bytes, whatever order they came in.

    Args:
      database: with the out tables and, for a profile that moves dates, ``moved``.
      folder: where the files go.
      how: what is done to dates, and what is dropped.
      hidden: by table and column, the table (value, shown) of source values that may not stay.
    """
    # what DuckDB knows of its sources, such as "never null", would show in the bytes
    database.execute("SET disabled_optimizers = 'statistics_propagation'")
    rows = {}
    for table in (*TABLES.values(), VISIT_EXTRA):
        rows[table.name] = _copy(database, _select(table, how, hidden), folder / f"{table.name}.parquet")
    return rows


def _select(table: Table, how: Deidentification, hidden: Mapping[tuple[str, str], str]) -> str:
    columns, joins = [], []
    for column in table.columns:
        shown = moved_column(table, column, how.profile)
        if (table.name, column.name) in how.dropped:
            shown = empty_value(table.name, column.name)
        elif (table.name, column.name) in hidden:
            other = f"h_{column.name}"
            joins.append(
                f"LEFT JOIN {hidden[table.name, column.name]} {other} ON {other}.value = t.{column.name}"
            )
            shown = f"coalesce({other}.shown, {shown})"
        columns.append(f"({shown})::{column.type} AS {column.name}")
    if has_moved(table, how.profile):
        joins.append("LEFT JOIN moved m ON m.person_id = t.person_id")
    by_key = "t.person_id, " if "person_id" in table.column_names else ""
    order = by_key + f"t.{table.key}" if table.key else "ALL"
    return f"SELECT {', '.join(columns)} FROM out_{table.name} t {' '.join(joins)} ORDER BY {order}"


def _copy(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    target = str(path).replace("'", "''")
    row = database.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)").fetchone()
    return int(row[0]) if row else 0


def write_private(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write id_map, quarantine and unmapped into ``private/`` (0700): they never leave the site."""
    private = folder / "private"
    private.mkdir(mode=0o700)
    for name, columns in PRIVATE_TABLES.items():
        selected = ", ".join(f"{column}::{kind} AS {column}" for column, kind in columns)
        path = private / f"{name}.parquet"
        if name == "id_map":
            _write_id_map(database, selected, path)
        else:
            _copy(database, f"SELECT {selected} FROM private_{name} ORDER BY ALL", path)


SLICE = 2_000_000
"""Rows of the id map that are sorted at once: all rows of a large hospital would not fit a step's memory."""
_IDS = 2**63


def _write_id_map(database: duckdb.DuckDBPyConnection, selected: str, path: Path) -> None:
    """Table by table, by the numbers of the rows, in slices of them: they are keyed, so they are spread evenly."""
    counts = database.execute("SELECT place, count(*) FROM private_id_map GROUP BY place ORDER BY place")
    slices = [
        [place, _IDS * k // n, _IDS * (k + 1) // n - 1]
        for place, rows in counts.fetchall()
        for n in (-(-rows // SLICE),)
        for k in range(n)
    ]
    query = (
        f"SELECT {selected} FROM private_id_map WHERE place = ? AND omop_id BETWEEN ? AND ? ORDER BY omop_id"
    )
    empty = database.sql(f"SELECT {selected} FROM private_id_map LIMIT 0").to_arrow_table()
    with pq.ParquetWriter(path, empty.schema, compression="zstd") as writer:
        for each in slices:
            writer.write_table(database.sql(query, params=each).to_arrow_table())
