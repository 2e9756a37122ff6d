"""Findings: rules of R4 that a resource breaks and is loaded all the same. Counted in the account, with examples.

A scan counts those of its SQL checks in its ``tally`` and keeps the first of each with its place in ``noted``; the
step that validates with the models (``fedhealth.cdm.modelled``) leaves the same two tables.
"""

import duckdb

from fedhealth.cdm.accounting import Finding
from fedhealth.fhir.resources import notes

EXAMPLES = 20
"""How many resources a step lists per finding; the account has the number of all."""


def note_findings(database: duckdb.DuckDBPyConnection, name: str) -> None:
    """Count the findings of a type in what is not left out by now, into ``tally`` and ``noted``."""
    checks = notes(name)
    if not checks:
        return
    query = "SELECT (SELECT count(*) FROM parsed) = (SELECT count(*) FROM staged WHERE verdict = 0)"
    [(all_kept,)] = database.execute(query).fetchall()
    source = "parsed" if all_kept else "parsed SEMI JOIN (FROM staged WHERE verdict = 0) USING (seq)"
    counted = ", ".join(f"count_if({check.sql})" for check in checks)
    [row] = database.execute(f"SELECT {counted} FROM {source}").fetchall()
    for check, n in zip(checks, row, strict=True):
        if n:
            database.execute(
                f"INSERT INTO tally VALUES ('finding', '{name}', '{check.reason}' || chr(0) || '{check.path}', {n})"
            )
            database.execute(
                f"INSERT INTO noted SELECT '{name}', '{check.reason}', '{check.path}', piece, line, id "
                f"FROM {source} WHERE {check.sql} ORDER BY piece, line LIMIT {EXAMPLES}"
            )


def account_findings(database: duckdb.DuckDBPyConnection) -> list[Finding]:
    """The findings of all steps, most frequent first."""
    rows = database.execute(
        "SELECT name, split_part(detail, chr(0), 1) AS reason, split_part(detail, chr(0), 2) AS path, sum(n)::BIGINT AS n "
        "FROM all_tally WHERE what = 'finding' GROUP BY ALL ORDER BY n DESC, name, reason, path"
    ).fetchall()
    return [Finding(type=name, reason=reason, path=path, n=n) for name, reason, path, n in rows]
