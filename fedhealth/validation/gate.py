"""The gate: may this CDM be trained on? Structure first, then every row rule, judged by one suite."""

import json
from collections.abc import Sequence
from pathlib import Path

from fedhealth.cdm.tables import TABLES, Table
from fedhealth.errors import ConfigError
from fedhealth.validation.counting import CdmReader, Count, Structure
from fedhealth.validation.report import MIN_CELL, Check, ValidationReport, share_bucket
from fedhealth.validation.rules import Rule, Severity
from fedhealth.validation.suite import Suite

PROFILES = ("local-only", "limited-dataset", "safe-harbor")
_DEIDENTIFICATION = "deidentification.json"
_GX_SEVERITY: dict[Severity, str] = {"fatal": "critical", "convention": "warning", "characterisation": "info"}


def validate_cdm(cdm_dir: Path) -> ValidationReport:
    """Judge a site's OMOP Parquet folder.

    Guarantees: only names, severities, coarse shares and row counts of at least 11 leave this function;
    neither its report nor its errors hold a value of the data. A folder without a de-identification record
    fails. A table that lacks a column is not counted, and its structure check has failed.

    Args:
      cdm_dir: folder with one ``TABLE.parquet`` per OMOP table and ``deidentification.json``.

    Returns:
      Every check in a fixed order; the same folder gives the same report.

    Raises:
      ConfigError: there is no such folder.
      DataError: a file of the right structure cannot be read through.
    """
    if not cdm_dir.is_dir():
        raise ConfigError("there is no CDM folder at the given path", "run fedhealth harmonize first")
    suite = Suite()
    with CdmReader(cdm_dir) as reader:
        structures = {name: reader.structure(name) for name in TABLES}
        structure = (_deidentified(cdm_dir), *_structure_checks(suite, structures))
        sound = [table for table in TABLES.values() if structures[table.name].is_sound(table)]
        counts = _counts(reader, sound, structures)
    checks = (*structure, *_judged(suite, counts))
    passed = all(check.passed for check in checks if check.severity == "fatal")
    return ValidationReport(passed=passed, checks=checks)


def _deidentified(cdm_dir: Path) -> Check:
    """Whether the folder says how it was de-identified: a CDM that does not is never trained on."""
    try:
        record = json.loads((cdm_dir / _DEIDENTIFICATION).read_text(encoding="utf-8"))
        known = isinstance(record, dict) and record.get("profile") in PROFILES
    except (OSError, ValueError):
        known = False
    return _fatal("deidentificationRecord", "cdm", passed=known)


def _structure_checks(suite: Suite, structures: dict[str, Structure]) -> list[Check]:
    present = [f"{name}.{column}" for name, found in structures.items() for column in found.columns]
    required = [f"{table.name}.{column}" for table in TABLES.values() for column in table.required]
    exists = suite.columns_exist(present, required=required)
    checks = []
    for table in TABLES.values():
        found = structures[table.name]
        checks.append(_fatal("cdmTable", table.name, passed=found.readable))
        if found.readable:
            complete = all(exists[f"{table.name}.{column}"] for column in table.required)
            checks.append(_fatal("cdmField", table.name, passed=complete))
            checks.append(_fatal("cdmDatatype", table.name, passed=found.types_fit(table)))
    return checks


def _counts(reader: CdmReader, sound: Sequence[Table], structures: dict[str, Structure]) -> list[Count]:
    """Row counts of every sound table; none at all while persons, visits or deaths cannot be joined."""
    names = {each.name for each in sound}
    if not {"person", "visit_occurrence", "death"} <= names:
        return []
    reader.open_tables(sound, structures)
    empty = [
        Count(Rule("isNotEmpty", table, "fatal", ""), rows=1, failed=int(reader.rows(table) == 0))
        for table in ("person", "visit_occurrence")
    ]
    return [*empty, *(count for each in sound for count in reader.count(each))]


def _judged(suite: Suite, counts: Sequence[Count]) -> list[Check]:
    if not counts:
        return []
    named = {f"{count.rule.table}/{count.rule.name}": count for count in counts}
    held = suite.shares_within(
        {name: count.share for name, count in named.items()},
        limits={name: count.rule.max_share for name, count in named.items()},
        severities={name: _GX_SEVERITY[count.rule.severity] for name, count in named.items()},
    )
    return [_check(count, passed=held[name]) for name, count in named.items()]


def _check(count: Count, *, passed: bool) -> Check:
    rule = count.rule
    return Check(
        name=rule.name,
        table=rule.table,
        severity=rule.severity,
        passed=passed,
        share_failed=share_bucket(rows=count.rows, failed=count.failed),
        n=count.rows if count.rows >= MIN_CELL else None,
    )


def _fatal(name: str, table: str, *, passed: bool) -> Check:
    share = "none" if passed else None
    return Check(name=name, table=table, severity="fatal", passed=passed, share_failed=share, n=None)
