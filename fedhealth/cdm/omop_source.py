"""A hospital's own OMOP, a folder of Parquet or CSV files or a PostgreSQL schema, as DuckDB views."""

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import duckdb

from fedhealth.cdm.tables import TABLES
from fedhealth.cdm.workspace import quoted
from fedhealth.errors import ConfigError, DataError

_SCHEMES = ("postgresql", "postgres")
_SUFFIXES = (".parquet", ".csv", ".csv.gz")


def open_omop(database: duckdb.DuckDBPyConnection, source: str, work: Path) -> dict[str, set[str]]:
    """Make ``src_<table>`` of every table of ours that the source has; names count in any case.

    Args:
      database: where the views are made.
      source: a folder with ``<table>.parquet`` or ``<table>.csv`` (also ``.csv.gz``), or
        ``postgresql://host/database?schema=cdm`` (``public`` if it names none).
      work: a folder for what is copied from PostgreSQL.

    Returns:
      By table, its columns in small letters.

    Raises:
      ConfigError: there is no such source, or it has no person and visit_occurrence.
      DataError: it cannot be read; the message holds no value and no password.
    """
    if _is_database(source):
        found = _copy_postgres(database, source, work)
    else:
        found = _view_files(database, Path(source))
    missing = [name for name in ("person", "visit_occurrence") if name not in found]
    if missing:
        raise ConfigError(
            f"the OMOP source has no table {', '.join(missing)}", "name the folder or the schema of the CDM"
        )
    return {
        name: {row[0].lower() for row in database.execute(f"DESCRIBE src_{name}").fetchall()}
        for name in found
    }


@contextmanager
def naming_broken_files(database: duckdb.DuckDBPyConnection, source: str) -> Iterator[None]:
    """Say which file of the source it is that DuckDB cannot read, if it is one: its own words quote rows.

    Raises:
      DataError: a file cannot be read to its end; the message holds its name, which is a table's.
    """
    try:
        yield
    except (duckdb.InvalidInputException, duckdb.IOException):
        for name, path in {} if _is_database(source) else _files(Path(source)).items():
            try:  # alone, so that no other reason is left
                database.execute(f"SELECT count(COLUMNS(*)) FROM src_{name}").fetchall()
            except duckdb.Error:
                raise _unreadable(path) from None
        raise


def _unreadable(path: Path) -> DataError:
    return DataError(
        f"the file {path.name} cannot be read to its end (code unreadable_file)",
        "export or copy it again (CSV in UTF-8, as many fields in each row as in the header)",
    )


def _is_database(source: str) -> bool:
    return urlsplit(source).scheme in _SCHEMES


def _files(folder: Path) -> dict[str, Path]:
    """The files of the tables that we know, by table."""
    by_name = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
    chosen = {name: [by_name[name + s] for s in _SUFFIXES if name + s in by_name] for name in TABLES}
    return {name: paths[0] for name, paths in chosen.items() if paths}


def _view_files(database: duckdb.DuckDBPyConnection, folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ConfigError(
            "there is no such OMOP folder", "give a folder of Parquet or CSV files, or postgresql://"
        )
    files = _files(folder)
    for name, path in files.items():
        if path.suffix.lower() == ".parquet":
            database.execute(f"CREATE VIEW src_{name} AS FROM read_parquet('{quoted(path)}')")
        else:
            _view_csv(database, name, path)
    return list(files)


def _view_csv(
    database: duckdb.DuckDBPyConnection, name: str, path: Path, delimiter: str | None = None
) -> None:
    """A CSV file as text columns: nothing of its form is guessed but the delimiter, from its header.

    Quotes are doubled inside quotes (RFC 4180); an apostrophe is a letter like any other.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            header = file.readline()
        delimiter = delimiter or max(",\t;|", key=header.count)
        names = next(csv.reader([header], delimiter=delimiter), [])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error):
        raise _unreadable(path) from None
    if len({each.lower() for each in names}) < len(names) or not all(names):
        raise DataError(
            f"the header of the OMOP table {name} names a column twice or not at all (code header)",
            "export it again",
        )
    columns = ", ".join(f"{_literal(each)}: 'VARCHAR'" for each in names)
    database.execute(
        f"CREATE VIEW src_{name} AS FROM read_csv('{quoted(path)}', auto_detect = false, header = true, "
        f"delim = {_literal(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}}, parallel = false)"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _copy_postgres(database: duckdb.DuckDBPyConnection, source: str, work: Path) -> list[str]:
    """Copy the columns that we know of each table as CSV, one table at a time; nothing is held in memory."""
    try:
        import psycopg2
    except ImportError:
        raise ConfigError(
            "reading OMOP from PostgreSQL needs psycopg2", "pip install 'fedhealth[postgres]'"
        ) from None
    url, schema = _schema_of(source)
    found = []
    try:
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            connection.set_session(readonly=True)
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute(
                "SELECT lower(table_name), table_name, lower(column_name), column_name "
                "FROM information_schema.columns WHERE table_schema = %s ORDER BY ordinal_position",
                (schema,),
            )
            listed = _columns(cursor.fetchall())
            for name, (table, columns) in listed.items():
                path = work / f"{name}.csv"
                names = ", ".join(_identifier(column) for column in columns)
                with path.open("wb") as file:
                    cursor.copy_expert(
                        f"COPY (SELECT {names} FROM {_identifier(schema)}.{_identifier(table)}) TO STDOUT "
                        "WITH (FORMAT csv, HEADER)",
                        file,
                    )
                _view_csv(database, name, path, ",")
                found.append(name)
    except psycopg2.Error as error:
        raise DataError(
            f"the OMOP database cannot be read (code {type(error).__name__})",
            "check address, user, schema and rights",
        ) from None
    return found


def _columns(rows: Iterable[tuple[str, str, str, str]]) -> dict[str, tuple[str, list[str]]]:
    """By table of ours: its name and the names of its columns that we know, as the database spells them."""
    listed: dict[str, tuple[str, list[str]]] = {}
    for name, table, column, spelt in rows:
        if name in TABLES and column in TABLES[name].column_names:
            listed.setdefault(name, (table, []))[1].append(spelt)
    return listed


def _schema_of(source: str) -> tuple[str, str]:
    """The URL without ``schema``, and the schema."""
    parts = urlsplit(source)
    query = dict(parse_qsl(parts.query))
    schema = query.pop("schema", "public")
    return urlunsplit(parts._replace(query=urlencode(query))), schema


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
