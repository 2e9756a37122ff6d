"""A CDM as a MEDS dataset: one row per event, subject by subject in the order of time.

Births, deaths and the rows of OMOP's event tables become one event each; a visit and a visit detail become two, their start and
their end, which one that is still open has not; sex, race and ethnicity become events without a time. A day without a time
of day counts as its end, a birth as its day's beginning, so that no event is known before it was.

Source: Medical Event Data Standard 0.4, https://medical-event-data-standard.github.io.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from meds import schema as meds

from fedhealth import __version__
from fedhealth.cdm.output import replacing_any
from fedhealth.cdm.tables import TABLES
from fedhealth.cdm.workspace import quoted
from fedhealth.errors import DataError
from fedhealth.vocabulary.concepts import OPERATORS, STILL_PATIENT

SHARD_EVENTS = 1_000_000
"""Events that a shard has about: what is held in memory at once."""

_AT = "coalesce({time}, {day}::TIMESTAMP + INTERVAL 1 DAY - INTERVAL 1 MICROSECOND)"
_CODE = "CASE WHEN {concept} <> 0 THEN 'OMOP/' || {concept} ELSE '{table}/' || coalesce({source}, '') END"


@dataclass(frozen=True, slots=True)
class MedsCounts:
    """What was written: events by what they come from, subjects and shards."""

    events: dict[str, int]
    subjects: int
    shards: int

    def to_json(self) -> str:
        """For machines."""
        return json.dumps({"events": self.events, "subjects": self.subjects, "shards": self.shards}, indent=2)


def _event(
    table: str, prefix: str, *, day: str = "", number: str = "NULL", text: str = "NULL", unit: str = "NULL"
) -> str:
    """SQL for a table of which every row is an event."""
    stem = day or prefix
    code = _CODE.format(concept=f"{prefix}_concept_id", source=f"{prefix}_source_value", table=table)
    time = _AT.format(time=f"{stem}_datetime", day=f"{stem}_date")
    return (
        f"SELECT person_id, {time} AS time, {code} AS code, {number} AS number, {text} AS text, {unit} AS unit, "
        f"visit_occurrence_id AS visit, '{table}' AS origin FROM {table}"
    )


def _stay(table: str, name: str, *, end: bool) -> str:
    """SQL for the starts or the ends of visits; a discharge is known at the end."""
    which = "end" if end else "start"
    code = f"'{name}_{which.upper()}/' || {table}_concept_id".replace(
        "visit_occurrence_concept", "visit_concept"
    )
    stem = f"{table}_{which}".replace("visit_occurrence", "visit")
    text = "discharged_to_source_value" if end and table == "visit_occurrence" else "NULL"
    time = _AT.format(time=f"{stem}_datetime", day=f"{stem}_date")
    ended = f" WHERE {_ENDED[table]}" if end else ""
    return (
        f"SELECT person_id, {time}, {code}, NULL, {text}, NULL, visit_occurrence_id, '{table}{'_end' if end else ''}' "
        f"FROM {table}{ended}"
    )


_IS_OPEN = f"discharged_to_concept_id IS NOT DISTINCT FROM {STILL_PATIENT}"
_ENDED = {
    "visit_occurrence": f"NOT ({_IS_OPEN})",
    "visit_detail": "visit_detail_end_datetime IS NOT NULL OR (visit_occurrence_id, visit_detail_end_date) NOT IN "
    f"(SELECT (visit_occurrence_id, visit_end_date) FROM visit_occurrence WHERE {_IS_OPEN})",
}
"""What has ended: an open visit ends in OMOP on the last day that the data cover, and its details without an end with it."""


def _trait(name: str) -> str:
    """SQL for a trait of persons, where it is known."""
    return (
        f"SELECT person_id, NULL, '{name.upper()}/OMOP/' || {name}_concept_id, NULL, NULL, NULL, NULL, 'person_{name}' "
        f"FROM person WHERE {name}_concept_id <> 0"
    )


_BORN = "coalesce(birth_datetime, make_date(year_of_birth, coalesce(month_of_birth, 1), coalesce(day_of_birth, 1))::TIMESTAMP)"
_WRITTEN = "CASE WHEN value_as_concept_id IS NOT NULL OR {0} IN ('true', 'false') THEN {0} END"
_SIGNS = " ".join(f"WHEN {concept} THEN '{sign}'" for sign, concept in OPERATORS.items() if sign != "=")
_EVENTS = " UNION ALL ".join(
    (
        _event("condition_occurrence", "condition", day="condition_start"),
        _event(
            "drug_exposure",
            "drug",
            day="drug_exposure_start",
            number="quantity",
            unit="dose_unit_source_value",
        ),
        _event("procedure_occurrence", "procedure"),
        _event(
            "measurement",
            "measurement",
            number="value_as_number",
            text=f"coalesce({_WRITTEN.format('value_source_value')}, "
            f"CASE operator_concept_id {_SIGNS} END || value_as_number)",
            unit="CASE WHEN unit_concept_id <> 0 THEN 'OMOP/' || unit_concept_id END",
        ),
        _event(
            "observation", "observation", number="value_as_number", text=_WRITTEN.format("value_as_string")
        ),
        *(_stay("visit_occurrence", "VISIT", end=end) for end in (False, True)),
        *(_stay("visit_detail", "VISIT_DETAIL", end=end) for end in (False, True)),
        f"SELECT person_id, {_BORN}, '{meds.birth_code}', NULL, NULL, NULL, NULL, 'person' FROM person",
        *(_trait(name) for name in ("gender", "race", "ethnicity")),
        f"SELECT person_id, {_AT.format(time='death_datetime', day='death_date')}, '{meds.death_code}', "
        "NULL, NULL, NULL, NULL, 'death' FROM death",
    )
)
_SHARD = """
SELECT person_id AS subject_id, time, code, try_cast(number AS FLOAT) AS numeric_value,
       coalesce(text, CASE WHEN numeric_value IS NULL THEN number::VARCHAR END) AS text_value, unit, visit AS visit_id
FROM event WHERE person_id BETWEEN ? AND ?
ORDER BY subject_id, time NULLS FIRST, code, numeric_value, text_value, unit, visit_id
"""
_SPLIT = f"""
SELECT person_id AS subject_id,
       CASE WHEN person_id % 10 < 8 THEN '{meds.train_split}' WHEN person_id % 10 < 9 THEN '{meds.tuning_split}'
            ELSE '{meds.held_out_split}' END AS split
FROM person ORDER BY person_id
"""
"""A person's id is a keyed hash, so that its last digit splits at random and the same way in every export."""


def export_meds(cdm_dir: Path, out_dir: Path, *, created: datetime | None = None) -> MedsCounts:
    """Write a CDM as a MEDS dataset for use inside the hospital: it holds one row per event of every patient.

    Guarantees: as many events as the CDM has rows (visits that have ended twice); a number that MEDS' 32 bits cannot hold,
    a comparator and a flag are in ``text_value``; every file passes the schemas of the ``meds`` package;
    a subject is in one shard, sorted by time; memory is bounded by a shard; ``out_dir`` is complete or as it was before.

    Args:
      cdm_dir: a harmonised CDM.
      out_dir: a new or an empty folder, or one that holds an earlier export.
      created: what the dataset says of its creation; now if it is not given.

    Raises:
      ConfigError: ``out_dir`` holds something else.
      DataError: a table is missing or cannot be read; the message holds no value.
    """
    with replacing_any(out_dir, own=(meds.dataset_metadata_filepath,)) as folder:
        try:
            with duckdb.connect(":memory:", config={"threads": 1}) as database:
                database.execute("SET enable_progress_bar = false")
                _open(database, cdm_dir)
                return _write(database, folder, created or datetime.now(UTC))
        except (duckdb.Error, pa.ArrowException) as error:
            raise DataError(
                f"the CDM cannot be read (code {type(error).__name__})", "harmonise the FHIR data again"
            ) from None


def _open(database: duckdb.DuckDBPyConnection, cdm_dir: Path) -> None:
    for table in TABLES:
        path = cdm_dir / f"{table}.parquet"
        if not path.exists():
            raise DataError(
                f"the CDM has no table {table} (code missing_table)", "harmonise the FHIR data again"
            )
        database.execute(f"CREATE VIEW {table} AS FROM '{quoted(path)}'")
    database.execute(f"CREATE VIEW event AS {_EVENTS}")


def _write(database: duckdb.DuckDBPyConnection, folder: Path, created: datetime) -> MedsCounts:
    (folder / "metadata").mkdir()
    (folder / meds.data_subdirectory).mkdir()
    events = dict(
        database.execute("SELECT origin, count(*) FROM event GROUP BY origin ORDER BY origin").fetchall()
    )
    ranges = _ranges(database, sum(events.values()))
    written = 0
    for shard, (first, last) in enumerate(ranges):
        table = meds.DataSchema.align(database.sql(_SHARD, params=[first, last]).to_arrow_table())
        pq.write_table(table, folder / meds.data_subdirectory / f"{shard}.parquet")
        written += table.num_rows
    if written != sum(events.values()):
        raise DataError(
            "events of nobody are in the CDM (code dangling_person)", "run fedhealth validate on it"
        )
    splits = meds.SubjectSplitSchema.align(database.sql(_SPLIT).to_arrow_table())
    pq.write_table(splits, folder / meds.subject_splits_filepath)
    _write_codes(database, folder)
    _write_dataset(database, folder, created)
    return MedsCounts(events, splits.num_rows, len(ranges))


def _ranges(database: duckdb.DuckDBPyConnection, events: int) -> list[tuple[int, int]]:
    """Ranges of person ids, each with about ``SHARD_EVENTS`` events."""
    shards = max(1, -(-events // SHARD_EVENTS))
    return database.execute(
        "SELECT min(person_id), max(person_id) FROM "
        "(SELECT person_id, ntile(?) OVER (ORDER BY person_id) AS shard FROM person) GROUP BY shard ORDER BY shard",
        [shards],
    ).fetchall()


def _write_codes(database: duckdb.DuckDBPyConnection, folder: Path) -> None:
    codes: pa.Table = database.sql(
        "SELECT DISTINCT code, NULL::VARCHAR AS description, NULL::VARCHAR[] AS parent_codes FROM event ORDER BY code"
    ).to_arrow_table()
    pq.write_table(meds.CodeMetadataSchema.align(codes), folder / meds.code_metadata_filepath)


def _write_dataset(database: duckdb.DuckDBPyConnection, folder: Path, created: datetime) -> None:
    source = database.execute("SELECT cdm_source_name, cdm_release_date FROM cdm_source").fetchone()
    name, release = source or ("CDM", "")
    document = {
        "dataset_name": str(name),
        "dataset_version": str(release),
        "etl_name": "fedhealth",
        "etl_version": __version__,
        "meds_version": "0.4",
        "created_at": created.isoformat(),
        "code_modifier_columns": ["unit"],
        "other_extension_columns": ["visit_id"],
    }
    meds.DatasetMetadataSchema.validate(document)
    (folder / meds.dataset_metadata_filepath).write_text(json.dumps(document, indent=2) + "\n")
