"""Findings: rules of R4 that a resource breaks and is loaded all the same. Counted in the account, with examples.

A scan has one number per resource whose bits say which of its type's notes apply; the findings of a block go into
``tally``, the first of each with their place into ``noted``. The step that validates whole resources
(``fedhealth.cdm.validating``) and the opening of bundles leave the same two tables.
"""

from collections.abc import Iterable

import duckdb
import numpy as np
import pyarrow as pa

from fedhealth.cdm.accounting import Finding
from fedhealth.fhir.resources import notes

EXAMPLES = 20
"""How many resources a step lists per finding; the account has the number of all."""


def notes_sql(name: str) -> str:
    """SQL over the fields of a type for the bits of its notes, 0 for none."""
    bits = [f"CASE WHEN {check.sql} THEN {1 << bit} ELSE 0 END" for bit, check in enumerate(notes(name))]
    return f"({' | '.join(bits)})::BIGINT" if bits else "0::BIGINT"


def keep_findings(database: duckdb.DuckDBPyConnection, name: str, noted: pa.Table) -> None:
    """Count and list the findings of a type.

    Args:
      database: has ``tally`` and ``noted``.
      name: the type.
      noted: the resources that are not left out: ``notes``, ``piece``, ``line`` and ``id``, in the order of input.
    """
    bits = noted.column("notes").to_numpy()
    if not bits.any():
        return
    for bit, check in enumerate(notes(name)):
        rows = np.flatnonzero(bits & (1 << bit))
        if len(rows):
            places = noted.select(["piece", "line", "id"]).take(rows[:EXAMPLES]).to_pylist()
            add_finding(database, name, check.reason, check.path, n=len(rows))
            add_examples(database, name, check.reason, check.path, (tuple(row.values()) for row in places))


def add_finding(database: duckdb.DuckDBPyConnection, name: str, reason: str, path: str, *, n: int) -> None:
    """Count a finding in ``tally``."""
    database.execute("INSERT INTO tally VALUES ('finding', ?, ?, ?)", [name, f"{reason}\0{path}", n])


def add_examples(
    database: duckdb.DuckDBPyConnection,
    name: str,
    reason: str,
    path: str,
    places: Iterable[tuple[int, int, str | None]],
) -> None:
    """List resources with a finding in ``noted``, by (piece, line, id)."""
    rows = [(name, reason, path, *place) for place in places]
    database.executemany("INSERT INTO noted VALUES (?, ?, ?, ?, ?, ?)", rows)


def account_findings(database: duckdb.DuckDBPyConnection) -> list[Finding]:
    """The findings of all steps, most frequent first."""
    rows = database.execute(
        "SELECT name, split_part(detail, chr(0), 1) AS reason, split_part(detail, chr(0), 2) AS path, sum(n)::BIGINT AS n "
        "FROM all_tally WHERE what = 'finding' GROUP BY ALL ORDER BY n DESC, name, reason, path"
    ).fetchall()
    return [Finding(type=name, reason=reason, path=path, n=n) for name, reason, path, n in rows]
