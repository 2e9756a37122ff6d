"""Step 4, once: the rows of all blocks as one CDM folder, with its account.

The large tables are sorted by person and key, so that a table's bytes depend on its rows alone, whatever order
and form they came in, and a person's rows lie together.
"""

import os
from pathlib import Path

import duckdb

from fedhealth.cdm.accounting import Accounting
from fedhealth.cdm.bookkeeping import account_run, describe_source, trace_rows
from fedhealth.cdm.consent import write_consents
from fedhealth.cdm.output import write_private, write_tables
from fedhealth.cdm.profiles import deidentification_of, follow, move_people
from fedhealth.cdm.record import describe, write_record
from fedhealth.cdm.rows import EVENT_TABLES, find_lived, latest_day, write_people, write_periods
from fedhealth.cdm.source_codes import hide_rare_sources
from fedhealth.cdm.staged import TIMES
from fedhealth.cdm.tables import TABLES
from fedhealth.cdm.visits import write_visits
from fedhealth.cdm.workspace import Plan, has, quoted, read_plan, saved, step
from fedhealth.vocabulary.maps import maps_digest

_LOADED = (
    *("patient", "stay", "root", "visit", "ward", "there", "organization", "medication", "consent_said"),
    *(
        f"coded_{field}"
        for field in ("condition", "procedure", "drug", "measurement", "class", "disposition", "admit_source")
    ),
)


def finish(work: Path, folder: Path, *, total: int, site_secret: bytes, threads: int = 1) -> Accounting:
    """Write the CDM of a mapped working folder into ``folder``.

    Args:
      work: the working folder.
      folder: an empty folder.
      total: how many lines and entries the scans read.
      site_secret: 32 bytes; under them dates move.
      threads: DuckDB threads.

    Returns:
      The account, without seconds.

    Raises:
      DataError: the account does not add up: a defect of ours.
    """
    plan = read_plan(work)
    mapped = plan.mapped()
    digest = maps_digest(mapped)
    settings = mapped.settings
    how = deidentification_of(mapped, plan.profile)
    with step(work, time_zone=settings.time_zone, threads=threads) as database:
        for name in _LOADED:
            database.execute(f"CREATE TABLE {name} AS FROM '{quoted(work / 'lookup' / name)}.parquet'")
        _view_rows(database, work)
        _view_left(database, work, plan)
        extract = settings.extract_date or latest_day(database)
        write_people(database)
        find_lived(database, extract)
        follow(database, how.profile, extract)
        write_visits(database)
        write_periods(database)
        describe_source(database, plan.site, extract, digest)
        move_people(database, how, extract, site_secret=site_secret)
        hidden = hide_rare_sources(database, mapped)
        tables = write_tables(database, folder, how, hidden=hidden)
        trace_rows(database)
        write_private(database, folder)
        write_consents(database, folder / "private", settings)
        write_record(folder, describe(how, site=plan.site, map_digest=digest, extract=extract))
        return account_run(database, plan.site, total=total, tables=tables, dropped=how.dropped)


def _view_rows(database: duckdb.DuckDBPyConnection, work: Path) -> None:
    """Make ``out_<table>`` of events over the rows of all blocks, none if no block has any."""
    for table in EVENT_TABLES:
        if any(has(work, "map", f"{table}-{name}") for name in TIMES):
            database.execute(f"CREATE VIEW out_{table} AS FROM {saved(work, 'map', f'{table}-*')}")
        else:
            columns = ", ".join(f"{column.name} {column.type}" for column in TABLES[table].columns)
            database.execute(f"CREATE TABLE out_{table} ({columns}, ref VARCHAR)")


def _view_left(database: duckdb.DuckDBPyConnection, work: Path, plan: Plan) -> None:
    """Make ``all_left`` and ``all_tally`` over all steps, and ``place`` to turn pieces into files and lines."""
    for name in ("left", "tally", "noted"):
        union = f"FROM {saved(work, 'scan', name)}"
        for later in ("check", "map"):
            if has(work, later, name):
                union += f" UNION ALL FROM {saved(work, later, name)}"
        if name == "left":
            union += f" UNION ALL FROM '{quoted(work / 'lookup' / 'left')}.parquet'"
        database.execute(f"CREATE VIEW all_{name} AS {union}")
    top = os.path.commonpath([os.path.dirname(file) for file in plan.files])
    files = [os.path.relpath(plan.files[piece.file], top) for part in plan.parts for piece in part]
    numbers = [piece.file for part in plan.parts for piece in part]
    database.execute("CREATE TABLE named (piece INTEGER, file_number INTEGER, file VARCHAR)")
    database.executemany(
        "INSERT INTO named VALUES (?, ?, ?)", list(zip(range(len(files)), numbers, files, strict=True))
    )
    database.execute(
        "CREATE TABLE place AS SELECT piece, file, coalesce(sum(lines) OVER (PARTITION BY file_number ORDER BY piece "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::BIGINT AS lines_before FROM named "
        f"JOIN {saved(work, 'scan', 'piece')} USING (piece)"
    )
