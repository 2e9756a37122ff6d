"""Validation of whole resources, between the scans and the gathering: in the worker processes, each text once.

A scan keeps the texts that are to be validated: of ``sample`` some of each type, of ``all`` those whose verdict is not
known from an earlier run. Verdicts are remembered by the SHA-256 of the text, in a store that stays at the site: digest,
reason and JSON path, never a value. It holds what the last run read, so that what was erased is forgotten.
"""

import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fedhealth.cdm.findings import EXAMPLES
from fedhealth.cdm.workspace import has, quoted, read_plan, save, saved, step
from fedhealth.config import FhirValidation
from fedhealth.fhir.checks import checks
from fedhealth.fhir.resources import SHAPES, verdicts
from fedhealth.fhir.validation import faults_of, verdict_version

SAMPLE = 200
"""Resources per type that ``validate="sample"`` checks: those with the smallest keyed ids."""
_SAMPLED = "sample"
_JUDGED = pa.schema(
    [
        *(("seq", pa.int64()), ("type", pa.string()), ("piece", pa.int32()), ("line", pa.int64())),
        *(("id", pa.string()), ("digest", pa.string())),
        *(("kind", pa.string()), ("reason", pa.string()), ("path", pa.string())),
    ]
)
"""One row per fault of a validated resource, or one without a kind: none."""


def keep_texts(
    database: duckdb.DuckDBPyConnection,
    name: str,
    source: str,
    *,
    validate: FhirValidation,
    store: Path | None,
) -> None:
    """Keep the texts of a type that are to be validated in ``samples``, and the verdicts that are known in ``known``.

    Args:
      database: has both tables.
      name: the type.
      source: what follows FROM: rows with ``key``, ``seq``, ``piece``, ``line``, ``id`` and ``text``.
      validate: all, a sample, or none.
      store: where verdicts are remembered.
    """
    texts = f"SELECT '{name}', key, seq, piece, line, id, text FROM {source}"
    if validate == "sample":
        database.execute(f"INSERT INTO samples {texts} ORDER BY key, text LIMIT {SAMPLE}")
    elif validate == "all" and (path := _verdicts_in(store)) is not None:
        database.execute(
            f"INSERT INTO known SELECT seq, '{name}', piece, line, id, digest, v.kind, v.reason, v.path "
            f"FROM (SELECT seq, piece, line, id, sha256(text) AS digest FROM {source}) "
            f"JOIN '{quoted(path)}' v USING (digest)"
        )
        database.execute(f"INSERT INTO samples FROM ({texts}) ANTI JOIN known USING (seq)")
    elif validate == "all":
        database.execute(f"INSERT INTO samples {texts}")


def _verdicts_in(store: Path | None) -> Path | None:
    """The file of verdicts of these models and rules, if there is one."""
    path = None if store is None else store / f"verdicts-{verdict_version()}.parquet"
    return path if path is not None and path.exists() else None


def validation_tasks(work: Path) -> tuple[str, ...]:
    """The tasks of ``validate_texts``: one for a sample, else a block each; none where every verdict is known."""
    validate = read_plan(work).validate_with_models
    if validate == "sample":
        return (_SAMPLED,)
    if validate == "off":
        return ()
    files = (work / "scan").glob("*/samples.parquet")
    return tuple(sorted(path.parent.name for path in files if pq.read_metadata(path).num_rows))


def validate_texts(work: Path, task: str) -> None:
    """Validate the texts of a task; leaves ``check/<task>/judged.parquet``."""
    folder = work / "check" / task
    folder.mkdir(parents=True, exist_ok=True)
    query = f"FROM '{quoted(work / 'scan' / task / 'samples.parquet')}'"
    if task == _SAMPLED:
        query = (
            f"FROM {saved(work, 'scan', 'samples')} "
            f"QUALIFY row_number() OVER (PARTITION BY type ORDER BY key, text) <= {SAMPLE}"
        )
    with step(work, time_zone="UTC") as database:
        rows = database.execute(f"SELECT type, seq, piece, line, id, sha256(text), text {query}")
        with pq.ParquetWriter(folder / "judged.parquet", _JUDGED) as writer:
            while batch := rows.fetchmany(2048):
                writer.write_table(_judge(batch))


def _judge(rows: list[tuple[str, int, int, int, str, str, str]]) -> pa.Table:
    judged: list[tuple[object, ...]] = []
    for name, seq, piece, line, fhir_id, digest, text in rows:
        place = (seq, name, piece, line, fhir_id, digest)
        faults = faults_of(name, text)
        judged += [(*place, fault.kind, fault.reason, fault.path) for fault in faults]
        if not faults:
            judged.append((*place, None, None, None))
    columns = zip(*judged, strict=True)
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, _JUDGED, strict=True)], schema=_JUDGED
    )


def settle_verdicts(database: duckdb.DuckDBPyConnection, work: Path) -> None:
    """Make ``refused``, what the models refuse, and count what else was found (``check/all/{tally,noted}``)."""
    known, judged = f"FROM {saved(work, 'scan', 'known')}", f"FROM {saved(work, 'check', 'judged')}"
    union = f"{known} UNION ALL {judged}" if has(work, "check", "judged") else known
    database.execute(f"CREATE TABLE judged AS FROM ({union}) WHERE kind IS NOT NULL")
    database.execute(
        "CREATE TABLE refused AS SELECT seq, type, reason, path FROM judged WHERE kind = 'quarantined'"
    )
    listed = ", ".join(f"'{path}'" for name in SHAPES for path in sorted(_checked_in_sql(name)))
    database.execute(f"DELETE FROM judged WHERE kind = 'quarantined' OR path IN ({listed})")
    folder = work / "check" / "all"
    folder.mkdir(parents=True, exist_ok=True)
    save(
        database,
        "SELECT 'finding' AS what, type AS name, reason || chr(0) || path AS detail, count(*) AS n FROM judged GROUP BY ALL",
        folder / "tally.parquet",
    )
    save(
        database,
        "SELECT type, reason, path, piece, line, id FROM judged "
        f"QUALIFY row_number() OVER (PARTITION BY type, reason, path ORDER BY piece, line) <= {EXAMPLES}",
        folder / "noted.parquet",
    )


def _checked_in_sql(name: str) -> set[str]:
    """The elements on which a scan has the word, so that nothing is found twice."""
    found = {check.path for check in (*verdicts(name), *checks(name))} - {name}
    return found | ({"Encounter.period"} if name == "Encounter" else set())


def remember_verdicts(work: Path, store: Path) -> None:
    """Replace the store by the verdicts of this run, known and new; where not all were validated it stays."""
    if read_plan(work).validate_with_models != "all":
        return
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = store / f"verdicts-{verdict_version()}.parquet"
    columns = "SELECT DISTINCT digest, kind, reason, path"
    query = f"{columns} FROM {saved(work, 'scan', 'known')}"
    if has(work, "check", "judged"):
        query += f" UNION {columns} FROM {saved(work, 'check', 'judged')}"
    scratch = store / "verdicts.new"
    with step(work, time_zone="UTC") as database:
        save(database, f"FROM ({query}) ORDER BY ALL", scratch)
    scratch.chmod(0o600)
    for old in store.glob("verdicts-*.parquet"):
        if old != path:
            old.unlink()
    os.replace(scratch, path)
