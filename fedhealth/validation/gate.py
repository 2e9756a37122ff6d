"""The gate: may this CDM be trained on? Structure first, then every rule, judged by one suite per table."""

from collections.abc import Sequence
from pathlib import Path

from fedhealth.cdm.record import read_record
from fedhealth.cdm.tables import TABLES, Table
from fedhealth.errors import ConfigError, DataError
from fedhealth.privacy.people import MIN_CELL
from fedhealth.validation.counting import CdmReader, Count, Structure
from fedhealth.validation.data_docs import refuse_foreign_docs, write_data_docs
from fedhealth.validation.report import Check, ValidationReport, share_bucket
from fedhealth.validation.rules import rule
from fedhealth.validation.suite import Judge, Judgement

_STRUCTURE = ("deidentificationRecord", "cdmTable", "cdmField", "cdmDatatype")


def validate_cdm(cdm_dir: Path, *, docs: Path | None = None) -> ValidationReport:
    """Judge a site's OMOP Parquet folder.

    Guarantees: only names, severities, coarse shares and row counts of at least 11 leave this function;
    neither its report, its errors nor its pages hold a value of the data. A folder without a de-identification
    record fails. A table that lacks a column is not counted, and its structure check has failed.

    Args:
      cdm_dir: folder with one ``TABLE.parquet`` per OMOP table and ``deidentification.json``.
      docs: folder for the Data Docs pages, or None for none; replaced as a whole if it holds those of an earlier run.

    Returns:
      Every check in a fixed order; the same folder gives the same report.

    Raises:
      ConfigError: there is no such folder, or ``docs`` holds something else.
      DataError: a file of the right structure cannot be read through.
    """
    if not cdm_dir.is_dir():
        raise ConfigError("there is no CDM folder at the given path", "run fedhealth harmonize first")
    if docs is not None:
        refuse_foreign_docs(docs)
    with CdmReader(cdm_dir) as reader:
        structures = {name: reader.structure(name) for name in TABLES}
        sound = [table for table in TABLES.values() if structures[table.name].is_sound(table)]
        counts = [
            _deidentified(cdm_dir),
            *_structure_counts(structures),
            *_row_counts(reader, sound, structures),
        ]
    judgements = [_judge(judge, name, counts) for judge in (Judge(),) for name in ("cdm", *TABLES)]
    checks = [check for name, judged in zip(("cdm", *TABLES), judgements, strict=True) for check in judged[1]]
    report = ValidationReport(
        passed=all(check.passed for check in checks if check.severity == "fatal"),
        # A broken structure is the reason for whatever else fails.
        checks=tuple(sorted(checks, key=lambda check: check.name.partition(":")[0] not in _STRUCTURE)),
    )
    if docs is not None:
        write_data_docs(docs, [judged for judged, _ in judgements], report)
    return report


def _judge(judge: Judge, table: str, counts: Sequence[Count]) -> tuple[Judgement, list[Check]]:
    own = [count for count in counts if count.rule.table == table]
    judged = judge.judge(table, [(count.rule, count.share) for count in own])
    return judged, [_check(count, passed=held) for count, held in zip(own, judged.held, strict=True)]


def _deidentified(cdm_dir: Path) -> Count:
    """Whether the folder says how it was de-identified: a CDM that does not is never trained on."""
    try:
        read_record(cdm_dir)
    except DataError:
        known = False
    else:
        known = True
    return _fact("deidentificationRecord", "cdm", holds=known)


def _structure_counts(structures: dict[str, Structure]) -> list[Count]:
    counts = []
    for table in TABLES.values():
        found = structures[table.name]
        counts.append(_fact("cdmTable", table.name, holds=found.readable))
        if found.readable:
            missing = found.missing(table)
            counts += [
                _fact("cdmField", table.name, name, holds=name not in missing) for name in table.required
            ]
            counts.append(_fact("cdmDatatype", table.name, holds=found.types_fit(table)))
    return counts


def _row_counts(reader: CdmReader, sound: Sequence[Table], structures: dict[str, Structure]) -> list[Count]:
    """Counts of every sound table; none at all while another table is broken: rules join them."""
    if len(sound) < len(TABLES):
        return []
    reader.open_tables(sound, structures)
    empty = [
        _fact("isNotEmpty", table, holds=reader.rows(table) > 0) for table in ("person", "visit_occurrence")
    ]
    return [*empty, *(count for each in sound for count in reader.count(each))]


def _fact(check: str, table: str, field: str = "", *, holds: bool) -> Count:
    """A check of the folder, not of rows: it holds or it does not."""
    return Count(rule(check, table, field), rows=1, failed=0 if holds else 1)


def _check(count: Count, *, passed: bool) -> Check:
    return Check(
        name=count.rule.name,
        table=count.rule.table,
        severity=count.rule.severity,
        passed=passed,
        share_failed=share_bucket(rows=count.rows, failed=count.failed),
        n=count.rows if count.rows >= MIN_CELL else None,
    )
