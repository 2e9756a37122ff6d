"""De-identification profiles: how the dates of a person move, and what of a birth stays.

``local-only`` changes nothing. ``limited-dataset`` moves all dates of a person by one secret number of days, so that
intervals, order and time of day stay. ``safe-harbor`` moves a person's first event to the first of January of its
year, and the first time to midnight: what is left are years, and times relative to the first. Under both a birth keeps
its year alone, and nobody is shown as older than 90.

What every person shares would give the offset away: the day of the extract, at which follow-up ends and open encounters
are cut. So there the follow-up is rounded down to 366, 92, 31 or 0 days after a person's last date.

Source: 45 CFR 164.514(b)(2)(i)(C), 164.514(e).
"""

from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa
from cryptography.hazmat.primitives import hashes, hmac

from fedhealth.cdm.anonymizer import PROFILES, read_anonymizer
from fedhealth.cdm.tables import Column, Table
from fedhealth.config import Profile
from fedhealth.vocabulary.site_map import SiteMap

OLDEST = 90
"""The age that stands for itself and all above."""
FOLLOW_UP_DAYS = (366, 92, 31)
_LABEL = b"fedhealth date shift 1"


@dataclass(frozen=True, slots=True)
class Deidentification:
    """How a CDM is de-identified.

    Attributes:
      profile: what becomes of dates and births.
      keep_weekday: whether dates move by whole weeks.
      dropped: (table, column) of what holds no value.
      warnings: what an imported configuration says, and is done otherwise.
    """

    profile: Profile
    keep_weekday: bool = False
    dropped: frozenset[tuple[str, str]] = frozenset()
    warnings: tuple[str, ...] = ()


def deidentification_of(site_map: SiteMap, profile: Profile | None) -> Deidentification:
    """The given profile or the site's, or the stricter one that its anonymizer configuration asks for.

    Raises:
      ConfigError: the configuration cannot be followed.
    """
    settings = site_map.settings
    asked = profile or settings.profile
    if site_map.anonymizer is None:
        return Deidentification(asked, settings.keep_weekday)
    found = read_anonymizer(site_map.anonymizer)
    strictest = max(asked, found.profile, key=PROFILES.index)
    return Deidentification(strictest, settings.keep_weekday, found.dropped, found.warnings)


def offset_days(person_id: int, *, site_secret: bytes, keep_weekday: bool = False) -> int:
    """By how many days the dates of a person move: HMAC-SHA256 under the site's secret, mapped to [-365, 364] without 0.

    With ``keep_weekday`` a multiple of 7 in [-364, 364] without 0.
    """
    code = hmac.HMAC(site_secret, hashes.SHA256())
    code.update(_LABEL + person_id.to_bytes(8, "big"))
    number = int.from_bytes(code.finalize()[:16], "big")
    reach, past, days = (104, 52, 7) if keep_weekday else (729, 365, 1)
    step = number % reach - past
    return (step if step < 0 else step + 1) * days


def follow(database: duckdb.DuckDBPyConnection, profile: Profile, extract: date) -> None:
    """Make ``followed`` (person_id, until): the day to which a person is known; needs ``lived``."""
    until = f"DATE '{extract.isoformat()}'"
    if profile != "local-only":
        cases = " ".join(f"WHEN {until} - last >= {days} THEN last + {days}" for days in FOLLOW_UP_DAYS)
        until = f"CASE {cases} ELSE last END"
    database.execute(f"CREATE TABLE followed AS SELECT person_id, {until} AS until FROM lived")


def move_people(
    database: duckdb.DuckDBPyConnection, how: Deidentification, extract: date, *, site_secret: bytes
) -> None:
    """Make ``moved`` (person_id, days, clock, born, until) under a profile that moves dates; needs ``lived`` and ``followed``."""
    profile = how.profile
    if profile == "local-only":
        return
    people: pa.Table = database.sql("SELECT person_id FROM out_person").to_arrow_table()
    days = [0] * people.num_rows
    if profile == "limited-dataset":
        days = [
            offset_days(person, site_secret=site_secret, keep_weekday=how.keep_weekday)
            for person in people.column(0).to_pylist()
        ]
    database.register("drawn", people.append_column("offset", pa.array(days, pa.int32())))
    by = '"offset"'
    clock = "INTERVAL 0 SECOND"
    if profile == "safe-harbor":
        by = "coalesce(make_date(year(first), 1, 1) - first, 0)"
        clock = "coalesce(first_time - date_trunc('day', first_time), INTERVAL 0 SECOND)"
    database.execute(
        f"CREATE TABLE moved AS SELECT person_id, days, clock, greatest(year(birthday + days), "
        f"coalesce(year(until + days), {extract.year}) - {OLDEST}) AS born, until "
        f"FROM (SELECT person_id, {by}::INTEGER AS days, {clock} AS clock, last, until, day_of(birthDate) AS birthday "
        "FROM drawn JOIN patient USING (person_id) LEFT JOIN lived USING (person_id) LEFT JOIN followed USING (person_id))"
    )
    database.unregister("drawn")


def has_moved(table: Table, profile: Profile) -> bool:
    """Whether a profile changes columns of a table by person."""
    return profile != "local-only" and "person_id" in table.column_names


def moved_column(table: Table, column: Column, profile: Profile) -> str:
    """SQL for a column of a table ``t`` joined with ``moved m``, as the profile leaves it.

    A person who is not in ``moved`` gets no dates at all.
    """
    name = f"t.{column.name}"
    if profile == "local-only":
        return name
    if table.name == "person":
        return _of_birth(column.name)
    if table.name == "cdm_source":  # without a date of the extract in site.yaml this is somebody's last day
        return f"make_date(year({name}), 1, 1)" if column.type == "DATE" else name
    if column.name.endswith(("_end_date", "_end_datetime")):
        return _end(table, column)
    if column.type == "TIMESTAMP":
        return f"{name} + to_days(m.days) - m.clock"
    return _day(table, column.name) if column.type == "DATE" else name


def _end(table: Table, column: Column) -> str:
    """SQL for an end: one after the follow-up (open, planned, the day of the extract) would tell the offset.

    It goes where OMOP allows, else it is the last day of the follow-up. A time goes with its day.
    """
    name = f"t.{column.name}"
    if column.type == "TIMESTAMP":
        return f"CASE WHEN {name}::DATE <= m.until THEN {name} + to_days(m.days) - m.clock END"
    start, moved = f"t.{_start(column)}", _day(table, column.name)
    late = f"greatest(m.until, {start}) + m.days" if column.required else "NULL"
    # beside a start without a time, an end could come to lie on the day before
    return (
        f"CASE WHEN {name} > m.until THEN {late} "
        f"WHEN {name} >= {start} THEN greatest({moved}, {_day(table, _start(column))}) ELSE {moved} END"
    )


def _start(column: Column) -> str:
    return column.name.replace("_end_date", "_start_date")


def _day(table: Table, name: str) -> str:
    time = f"{name}time"
    if time not in table.column_names:
        return f"t.{name} + m.days"
    return f"CASE WHEN t.{time} IS NULL THEN t.{name} + m.days ELSE (t.{time} + to_days(m.days) - m.clock)::DATE END"


def _of_birth(name: str) -> str:
    if name == "year_of_birth":
        return "m.born"
    return "NULL" if name in ("month_of_birth", "day_of_birth", "birth_datetime") else f"t.{name}"
