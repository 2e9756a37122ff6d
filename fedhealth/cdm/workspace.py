"""The working folder of a harmonisation: what is to do, and the Parquet files through which its steps talk.

    plan.json                    the files, their parts and the settings (file names: it never leaves the site)
    scan/<part>/<Type>.parquet   the resources of a part, parsed and checked; beside them what was left out
    lookup/<name>.parquet        what all parts together say: persons, visits, codes, units, losers
    map/<part>/<table>.parquet   the OMOP rows of a part

Every step writes its own folder only, so that steps can run in any order of parts, in any process.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import duckdb
from pydantic import BaseModel, ConfigDict

from fedhealth.cdm.profiles import deidentification_of
from fedhealth.cdm.times import define_times
from fedhealth.config import FhirValidation, Profile
from fedhealth.errors import DataError
from fedhealth.fhir.files import Piece, find_files, plan_parts
from fedhealth.vocabulary.site_map import SiteMap, read_site_map

STEP_MEMORY = "1200MB"
"""What DuckDB may hold in one step before it spills to the working folder."""

SMALL_TABLES = {
    "left": "seq BIGINT, type VARCHAR, kind VARCHAR, reason VARCHAR, path VARCHAR, piece INTEGER, "
    "line BIGINT, digest VARCHAR, id VARCHAR",
    "tally": "what VARCHAR, name VARCHAR, detail VARCHAR, n BIGINT",
    "deleted": "ref VARCHAR, stamp VARCHAR",
    "codings": "field VARCHAR, json VARCHAR",
    "quantities": "number BIGINT, code VARCHAR, unit_system VARCHAR, unit_code VARCHAR, unit_text VARCHAR",
    "refs": "number BIGINT, ref VARCHAR",
    "urls": "url VARCHAR, ref VARCHAR",
    "samples": "type VARCHAR, key BIGINT, seq BIGINT, piece INTEGER, line BIGINT, id VARCHAR, text VARCHAR",
    "known": "seq BIGINT, type VARCHAR, piece INTEGER, line BIGINT, id VARCHAR, digest VARCHAR, "
    "kind VARCHAR, reason VARCHAR, path VARCHAR",
    "noted": "type VARCHAR, reason VARCHAR, path VARCHAR, piece INTEGER, line BIGINT, id VARCHAR",
}
"""The small tables that a scan leaves beside its resources."""


class Plan(BaseModel):
    """What is to be done: written once, read by every step."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    site: str
    files: tuple[str, ...]
    parts: tuple[tuple[Piece, ...], ...]
    site_map: str | None
    validate_with_models: FhirValidation
    verdicts: str | None = None
    profile: Profile | None = None

    @property
    def verdict_store(self) -> Path | None:
        """Where verdicts of the models are remembered."""
        return None if self.verdicts is None else Path(self.verdicts)

    def mapped(self) -> SiteMap:
        """The site map."""
        return read_site_map(None if self.site_map is None else Path(self.site_map))

    def pieces(self, part: int) -> range:
        """The numbers, over the whole plan, of the pieces of a part."""
        first = sum(len(pieces) for pieces in self.parts[:part])
        return range(first, first + len(self.parts[part]))


def write_plan(
    work: Path,
    fhir_dir: Path,
    *,
    site: str,
    site_map: Path | None,
    validate: FhirValidation,
    verdicts: Path | None = None,
    profile: Profile | None = None,
) -> Plan:
    """Find the files, cut them into parts and keep the plan in ``work``.

    Raises:
      ConfigError: the FHIR folder or the site map is wrong.
      DataError: there is no FHIR file, or the name of one is not UTF-8.
    """
    files = find_files(fhir_dir)
    deidentification_of(read_site_map(site_map), profile)
    plan = Plan(
        site=site,
        files=_spelt(files),
        parts=plan_parts(files),
        site_map=None if site_map is None else str(site_map.resolve()),
        validate_with_models=validate,
        verdicts=None if verdicts is None else str(verdicts.resolve()),
        profile=profile,
    )
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    (work / "plan.json").write_text(plan.model_dump_json())
    return plan


def _spelt(files: Sequence[Path]) -> tuple[str, ...]:
    """The full names of files; JSON and Parquet hold text alone."""
    names = tuple(str(path.resolve()) for path in files)
    for number, name in enumerate(names, 1):
        try:
            name.encode()
        except UnicodeEncodeError:
            error = DataError(
                f"the name of file {number} of {len(names)} is not UTF-8 (code file_name)",
                "find it in site.log or by counting the FHIR files sorted by path; rename it, or the folder that is so named",
            )
            error.add_note(f"the file: {name!r}")
            raise error from None
    return names


def read_plan(work: Path) -> Plan:
    """The plan of a working folder."""
    return Plan.model_validate_json((work / "plan.json").read_bytes())


_SEQ_BITS, _BLOCK_BITS = 32, 12


def block_name(part: int, number: int) -> str:
    """The name of the ``number``-th block of a part."""
    return f"{part:06d}-{number:04d}"


def first_seq(block: str) -> int:
    """The first ``seq`` of a block."""
    part, number = map(int, block.split("-"))
    return (((part << _BLOCK_BITS) + number) << _SEQ_BITS) + 1


def last_seq(block: str) -> int:
    """The last ``seq`` that a block can have."""
    return first_seq(block) + (1 << _SEQ_BITS) - 1


_SILENT = "SET enable_progress_bar = false"
"""For a session: else a query of seconds draws a bar on standard output."""


@contextmanager
def step(work: Path, *, time_zone: str, threads: int = 1) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of one step's own, in memory, that spills into the working folder.

    Raises:
      DataError: DuckDB fails; what it says quotes values, and is not passed on.
    """
    with _kept_quiet(), _open(work, time_zone, threads) as database:
        database.execute(_SILENT)
        yield database


@contextmanager
def block_step(work: Path, *, time_zone: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Like ``step``, for one of many blocks: a session of a DuckDB that the process keeps until ``close_blocks``.

    The rows of a query come in the order of their source, unless that is an Arrow table. Only what is TEMP
    vanishes with the session.
    """
    with _kept_quiet(), _open_once(work, time_zone).cursor() as database:
        database.execute(_SILENT)
        yield database


def close_blocks() -> None:
    """Close what ``block_step`` keeps open."""
    _open_once.cache_clear()


@contextmanager
def _kept_quiet() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise DataError(
            f"the FHIR data cannot be harmonised (code {type(error).__name__})",
            "check free disk space and memory, then report this as a defect",
        ) from None


def _open(work: Path, time_zone: str, threads: int, *, ordered: bool = False) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "memory_limit": STEP_MEMORY,
        "temp_directory": str(work / "spill"),
        "preserve_insertion_order": ordered,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    database = duckdb.connect(":memory:", config=config)
    define_times(database, time_zone)
    return database


@lru_cache(maxsize=1)
def _open_once(work: Path, time_zone: str) -> duckdb.DuckDBPyConnection:
    return _open(work, time_zone, 1, ordered=True)


def save(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of a query as an intermediate Parquet file, in row groups that fit the cache."""
    database.execute(
        f"COPY ({query}) TO '{quoted(path)}' (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 16384)"
    )


def quoted(path: Path) -> str:
    """A path inside an SQL string."""
    return str(path).replace("'", "''")


def saved(work: Path, step_name: str, name: str) -> str:
    """SQL that reads one table of all parts of a step; a table that no part has must not be asked for."""
    return f"read_parquet('{quoted(work)}/{step_name}/*/{name}.parquet')"


def has(work: Path, step_name: str, name: str) -> bool:
    """Whether any part of a step left this table."""
    return any((work / step_name).glob(f"*/{name}.parquet"))
