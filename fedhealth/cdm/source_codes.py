"""Which source codes and units stay in the CDM, and what stands for the others.

A source value stays if it is plain on its face (``plain_codes``), or if it looks like a code and at least ``MIN_CELL``
patients of the site carry it, with its system or without one. What else there is becomes ``system|other``, ``|other``
if even the system could tell something, and ``other`` for a unit. Numbers and booleans are no source codes. What has
no concept stays as it came in ``private/unmapped.parquet``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import duckdb
import pyarrow as pa

from fedhealth.cdm.plain_codes import (
    is_plain_bare,
    is_plain_code,
    is_plain_system,
    is_plain_unit,
    looks_like_code,
    looks_like_system,
    looks_like_unit,
)
from fedhealth.privacy.people import MIN_CELL
from fedhealth.vocabulary.site_map import SiteMap

OTHER = "other"

CODE_COLUMNS = {
    "visit_occurrence": (
        "visit_source_value",
        "admitted_from_source_value",
        "discharged_to_source_value",
    ),
    "condition_occurrence": ("condition_source_value",),
    "measurement": ("measurement_source_value", "value_source_value"),
    "observation": ("observation_source_value", "value_as_string"),
    "drug_exposure": ("drug_source_value", "route_source_value"),
    "procedure_occurrence": ("procedure_source_value",),
}
"""The columns that hold ``system|code``."""

UNIT_COLUMNS = {"measurement": ("unit_source_value",), "drug_exposure": ("dose_unit_source_value",)}
"""The columns that hold a unit as it came."""


@dataclass(frozen=True, slots=True)
class _Carried:
    """How many patients carry something; asked only of what is not plain."""

    patients: dict[str, int]

    def enough(self, text: str) -> bool:
        return self.patients.get(text, 0) >= MIN_CELL


def hide_rare_sources(
    database: duckdb.DuckDBPyConnection, site_map: SiteMap, *, is_foreign: bool = False
) -> dict[tuple[str, str], str]:
    """Decide what of the ``out_`` tables may not stay; makes ``hidden`` (kind, value, shown) over all columns.

    Where the tables are another's (``is_foreign``), a code may stand without its system: then it must have the form of LOINC,
    SNOMED CT or ICD-10, or be carried by enough patients; and a value that is no code, boolean or the row's number goes.

    Returns:
      By (table, column) the name of a table (value, shown) of what to replace there; columns that need none are absent.
    """
    replaced, listed = {}, list[tuple[str, str, str]]()
    for kind, columns, decide in (
        ("code", CODE_COLUMNS, partial(_show_codes, is_foreign=is_foreign)),
        ("unit", UNIT_COLUMNS, _show_units),
    ):
        for table, names in columns.items():
            for column in names:
                shown = decide(database, f"out_{table}", column, site_map)
                if shown:
                    replaced[table, column] = f"hidden_{table}_{column}"
                    _create(database, replaced[table, column], shown.items(), ("value", "shown"))
                    listed += [(kind, value, other) for value, other in shown.items()]
    _create(database, "hidden_all", listed, ("kind", "value", "shown"))
    database.execute(
        "CREATE TABLE hidden AS SELECT kind, value, min(shown) AS shown FROM hidden_all GROUP BY kind, value"
    )
    return replaced


_FLAG = "lower({0}) IN ('true', 'false', 'yes', 'no')"
_VALUES = {
    "value_source_value": f"{_FLAG} OR (value_as_number IS NOT NULL AND "
    r"regexp_full_match({0}, '[-+]?\d{{1,6}}(\.\d*)?([eE][-+]?\d+)?'))",
    "value_as_string": f"{_FLAG} OR coalesce(try_cast({{0}} AS DOUBLE) = value_as_number, false)",
}
"""The columns of values: SQL for a flag, or a number that says no more than the row's own."""


def _show_codes(
    database: duckdb.DuckDBPyConnection, table: str, column: str, site_map: SiteMap, *, is_foreign: bool
) -> dict[str, str]:
    """What stands for each ``system|code`` that may not stay."""

    def is_plain(value: str) -> bool:
        system, bar, code = value.partition("|")
        if not bar:
            return column not in _VALUES and is_plain_bare(value, site_map)
        return is_plain_system(system, site_map) and is_plain_code(system, code, site_map)

    where = f"contains({column}, '|')"
    if is_foreign:
        where = f"NOT ({_VALUES[column].format(column)})" if column in _VALUES else "true"
    doubtful = _doubtful(database, table, column, where, is_plain)
    if not doubtful:
        return {}
    codes = _carried(database, table, column, doubtful, of="value")
    systems = _carried(database, table, column, doubtful, of="split_part(value, '|', 1)")
    shown = {}
    for value in doubtful:
        system, bar, code = value.partition("|")
        if not bar:
            if column in _VALUES or not (looks_like_code(value) and codes.enough(value)):
                shown[value] = OTHER
            continue
        stays = not system or is_plain_system(system, site_map)  # no system tells nothing
        stays = stays or (looks_like_system(system) and systems.enough(system))
        if stays and (
            is_plain_code(system, code, site_map) or (looks_like_code(code) and codes.enough(value))
        ):
            continue
        shown[value] = f"{system if stays else ''}|{OTHER}"
    return shown


def _show_units(
    database: duckdb.DuckDBPyConnection, table: str, column: str, site_map: SiteMap
) -> dict[str, str]:
    """What stands for each unit that may not stay."""
    doubtful = _doubtful(database, table, column, "true", lambda unit: is_plain_unit(unit, site_map))
    if not doubtful:
        return {}
    units = _carried(database, table, column, doubtful, of="value")
    return {unit: OTHER for unit in doubtful if not (looks_like_unit(unit) and units.enough(unit))}


def _doubtful(
    database: duckdb.DuckDBPyConnection, table: str, column: str, where: str, is_plain: Callable[[str], bool]
) -> list[str]:
    rows = database.execute(
        f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL AND {where}"
    ).fetchall()
    return sorted(value for (value,) in rows if not is_plain(value))


def _carried(
    database: duckdb.DuckDBPyConnection, table: str, column: str, values: list[str], *, of: str
) -> _Carried:
    database.register("listed", pa.table({"value": pa.array(values, pa.string())}))
    rows = database.execute(
        f"SELECT {of} AS text, count(DISTINCT person_id) FROM {table} JOIN listed ON value = {column} GROUP BY text"
    ).fetchall()
    database.unregister("listed")
    return _Carried(dict(rows))


def _create(
    database: duckdb.DuckDBPyConnection, table: str, rows: Iterable[tuple[str, ...]], names: tuple[str, ...]
) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = [pa.array(list(column), pa.string()) for column in columns]
    database.register("rows", pa.Table.from_arrays(arrays, names=list(names)))
    database.execute(f"CREATE TABLE {table} AS FROM rows")
    database.unregister("rows")
