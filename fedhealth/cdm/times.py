"""FHIR dates and times in SQL."""

import duckdb


def define_times(database: duckdb.DuckDBPyConnection, time_zone: str) -> None:
    """SQL macros for FHIR dates: ``moment`` (UTC, null for a date), ``day_of``, ``at_end`` (a date is its end).

    A year or month alone is its last day. A time without an offset is in the site's time zone. What is before
    1800 or after 2500 (infinity, 9999-12-31 for "open") is no time: it would become the end of the extract.
    """
    database.execute("SET TimeZone = 'UTC'")
    # a cast to TIMESTAMP ignores the offset, one to TIMESTAMPTZ applies it
    zoned = "timezone('UTC', try_cast(x AS TIMESTAMPTZ))"
    if time_zone != "UTC":
        local = f"timezone('UTC', timezone('{time_zone}', try_cast(x AS TIMESTAMP)))"
        zoned = f"CASE WHEN regexp_matches(x, '[+-]\\d\\d(:?\\d\\d)?$') THEN {zoned} ELSE {local} END"
    moment = f"CASE WHEN x[-1] = 'Z' THEN try_cast(x AS TIMESTAMP) ELSE {zoned} END"
    date = (
        "CASE length(x) WHEN 10 THEN try_cast(x AS DATE) WHEN 7 THEN last_day(try_cast(x || '-01' AS DATE)) "
        "WHEN 4 THEN try_cast(x || '-12-31' AS DATE) END"
    )
    span = "BETWEEN '1800-01-01' AND '2500-12-31'"
    database.execute(f"CREATE MACRO any_moment(x) AS CASE WHEN length(x) > 10 THEN {moment} END")
    database.execute(f"CREATE MACRO moment(x) AS CASE WHEN any_moment(x) {span} THEN any_moment(x) END")
    database.execute(f"CREATE MACRO any_date(x) AS {date}")
    database.execute(
        f"CREATE MACRO day_of(x) AS CASE WHEN length(x) > 10 THEN moment(x)::DATE WHEN any_date(x) {span} THEN any_date(x) END"
    )
    database.execute(
        "CREATE MACRO at_end(x) AS coalesce(moment(x), day_of(x)::TIMESTAMP + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND)"
    )
