"""The gate: a clean CDM passes, each planted fault fails the check that names it, no value comes out."""

import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import pytest

from fedhealth.cdm.profiles import Deidentification
from fedhealth.cdm.record import describe, write_record
from fedhealth.cdm.tables import TABLES
from fedhealth.errors import ConfigError, DataError
from fedhealth.validation.gate import validate_cdm
from fedhealth.validation.report import Check, ValidationReport, share_bucket

MARK = 987654321.25  # a value that must never come out
_ICD10 = "http://hl7.org/fhir/sid/icd-10-cm|"
_PERSONS = 40

# Per table: the SELECT that fills it; columns it does not name are NULL. Days count from 2020-01-01.
_ROWS = {
    "person": "i AS person_id, 8507 + 25 * (i % 2) AS gender_concept_id, 1950 AS year_of_birth,"
    " 0 AS race_concept_id, 0 AS ethnicity_concept_id",
    "observation_period": "i AS observation_period_id, i AS person_id, day AS observation_period_start_date,"
    " day + 900 AS observation_period_end_date, 32817 AS period_type_concept_id",
    "visit_occurrence": "1000 + i AS visit_occurrence_id, i AS person_id, 9201 AS visit_concept_id,"
    " day AS visit_start_date, day + 5 AS visit_end_date, 32817 AS visit_type_concept_id,"
    " day::TIMESTAMP + INTERVAL 1 HOUR AS visit_start_datetime, 1000 + i - 1 + (i = 0)::INT AS preceding_visit_occurrence_id,"
    " day::TIMESTAMP + INTERVAL 121 HOUR AS visit_end_datetime",
    "visit_detail": "i AS visit_detail_id, i AS person_id, 32037 AS visit_detail_concept_id,"
    " day AS visit_detail_start_date, day + 1 AS visit_detail_end_date,"
    " 32817 AS visit_detail_type_concept_id, 1000 + i AS visit_occurrence_id,"
    " day::TIMESTAMP + INTERVAL 1 HOUR AS visit_detail_start_datetime,"
    " day::TIMESTAMP + INTERVAL 25 HOUR AS visit_detail_end_datetime",
    "condition_occurrence": "i AS condition_occurrence_id, i AS person_id, 320128 AS condition_concept_id,"
    " day AS condition_start_date, 32817 AS condition_type_concept_id, 1000 + i AS visit_occurrence_id,"
    " day::TIMESTAMP + INTERVAL 1 HOUR AS condition_start_datetime, 5 AS condition_source_concept_id,"
    f" CASE WHEN i < 20 THEN '{_ICD10}' || CASE i % 2 WHEN 0 THEN 'C61' ELSE 'O80' END"
    f" ELSE '{_ICD10}I10' END AS condition_source_value",
    "measurement": "i AS measurement_id, i AS person_id, 3027018 AS measurement_concept_id,"
    " day AS measurement_date, day::TIMESTAMP + INTERVAL 90 MINUTE AS measurement_datetime,"
    " 32817 AS measurement_type_concept_id, 60.0 + i AS value_as_number, 8541 AS unit_concept_id,"
    " 1000 + i AS visit_occurrence_id, 'loinc|8867-4' AS measurement_source_value",
    "drug_exposure": "i AS drug_exposure_id, i AS person_id, 5 AS drug_concept_id,"
    " day AS drug_exposure_start_date, day + 2 AS drug_exposure_end_date, 32817 AS drug_type_concept_id,"
    " day::TIMESTAMP + INTERVAL 1 HOUR AS drug_exposure_start_datetime, 1.0 AS quantity,"
    " day::TIMESTAMP + INTERVAL 49 HOUR AS drug_exposure_end_datetime, 1000 + i AS visit_occurrence_id",
    "procedure_occurrence": "i AS procedure_occurrence_id, i AS person_id, 6 AS procedure_concept_id,"
    " day AS procedure_date, 32817 AS procedure_type_concept_id, 1000 + i AS visit_occurrence_id,"
    " day::TIMESTAMP + INTERVAL 1 HOUR AS procedure_datetime",
    "observation": "i AS observation_id, i AS person_id, 7 AS observation_concept_id,"
    " day AS observation_date, 32817 AS observation_type_concept_id, 1000 + i AS visit_occurrence_id,"
    " day::TIMESTAMP + INTERVAL 1 HOUR AS observation_datetime",
    "death": "i AS person_id, day + 400 AS death_date, 32817 AS death_type_concept_id",
    "care_site": "i AS care_site_id",
    "cdm_source": "'x' AS cdm_source_name, 'x' AS cdm_source_abbreviation, 'x' AS cdm_holder,"
    " day AS source_release_date, day AS cdm_release_date, 1 AS cdm_version_concept_id,"
    " 'x' AS vocabulary_version",
}


def _write(folder: Path, table: str, select: str) -> None:
    source = f"SELECT {select} FROM (SELECT range AS i, DATE '2020-01-01' AS day FROM range({_PERSONS}))"
    with duckdb.connect(":memory:") as db:
        db.execute(f"CREATE VIEW given AS {source}")
        given = {name for name, *_ in db.execute("DESCRIBE given").fetchall()}
        columns = ", ".join(
            f"CAST({column.name if column.name in given else 'NULL'} AS {column.type}) AS {column.name}"
            for column in TABLES[table].columns
        )
        db.execute(f"COPY (SELECT {columns} FROM given) TO '{folder / table}.parquet' (FORMAT parquet)")


def _change(folder: Path, table: str, *, set_: str, where: str = "true") -> None:
    """Rewrite the rows of a table for which ``where`` holds."""
    path = folder / f"{table}.parquet"
    with duckdb.connect(":memory:") as db:
        db.execute(f"CREATE TABLE t AS SELECT * FROM read_parquet('{path}')")
        db.execute(f"UPDATE t SET {set_} WHERE {where}")
        db.execute(f"COPY t TO '{path}' (FORMAT parquet)")


def _reshape(folder: Path, table: str, select: str, *, where: str = "true", times: int = 1) -> None:
    """Replace a table by a SELECT over itself, ``times`` over."""
    path = folder / f"{table}.parquet"
    with duckdb.connect(":memory:") as db:
        db.execute(f"CREATE TABLE t AS SELECT * FROM read_parquet('{path}')")
        db.execute(
            f"COPY (SELECT {select} FROM t, range({times}) r(copy) WHERE {where}) TO '{path}' (FORMAT parquet)"
        )


@pytest.fixture
def cdm(tmp_path: Path) -> Path:
    for table, select in _ROWS.items():
        _write(tmp_path, table, select)
    record = describe(
        Deidentification("local-only"),
        site="house",
        map_digest="0" * 64,
        extract=date(2021, 6, 1),
    )
    write_record(tmp_path, record)
    return tmp_path


def _check(report: ValidationReport, table: str, name: str) -> Check:
    [found] = [check for check in report.checks if (check.table, check.name) == (table, name)]
    return found


def test_a_clean_cdm_passes_every_check(cdm: Path) -> None:
    report = validate_cdm(cdm)
    assert report.passed
    assert report.reason == ""
    assert [check for check in report.checks if not check.passed] == []
    assert len({(check.table, check.name) for check in report.checks}) == len(report.checks) > 400


FAULTS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "null in a required column": (
        "measurement",
        "isRequired:measurement_concept_id",
        lambda cdm: _change(
            cdm, "measurement", set_="measurement_concept_id = NULL", where="measurement_id = 3"
        ),
    ),
    "repeated key": (
        "measurement",
        "isPrimaryKey:measurement_id",
        lambda cdm: _change(cdm, "measurement", set_="measurement_id = 1", where="measurement_id = 2"),
    ),
    "two deaths of one person": (
        "death",
        "isPrimaryKey:person_id",
        lambda cdm: _change(cdm, "death", set_="person_id = 1", where="person_id = 2"),
    ),
    "unknown person": (
        "condition_occurrence",
        "isForeignKey:person_id",
        lambda cdm: _change(cdm, "condition_occurrence", set_="person_id = 777", where="person_id = 2"),
    ),
    "unknown visit": (
        "measurement",
        "isForeignKey:visit_occurrence_id",
        lambda cdm: _change(cdm, "measurement", set_="visit_occurrence_id = 777", where="measurement_id = 2"),
    ),
    "visit of somebody else": (
        "measurement",
        "visitOfSamePerson:visit_occurrence_id",
        lambda cdm: _change(
            cdm, "measurement", set_="visit_occurrence_id = 1005", where="measurement_id = 2"
        ),
    ),
    "value out of range": (
        "measurement",
        "plausibleValueHigh:heart_rate.3027018",
        lambda cdm: _change(cdm, "measurement", set_=f"value_as_number = {MARK}", where="measurement_id < 3"),
    ),
    "value below the range": (
        "measurement",
        "plausibleValueLow:heart_rate.3027018",
        lambda cdm: _change(cdm, "measurement", set_="value_as_number = -5", where="measurement_id < 3"),
    ),
    "value that is not a number": (
        "measurement",
        "finite:value_as_number",
        lambda cdm: _change(cdm, "measurement", set_="value_as_number = 'nan'", where="measurement_id = 2"),
    ),
    "end before start": (
        "visit_occurrence",
        "plausibleStartBeforeEnd:visit_start_date",
        lambda cdm: _change(
            cdm, "visit_occurrence", set_="visit_end_date = DATE '2019-12-01'", where="person_id = 2"
        ),
    ),
    "before birth": (
        "measurement",
        "plausibleAfterBirth:measurement_date",
        lambda cdm: _change(cdm, "person", set_="year_of_birth = 2021", where="person_id = 2"),
    ),
    "long after death": (
        "measurement",
        "plausibleBeforeDeath:measurement_date",
        lambda cdm: _change(cdm, "death", set_="death_date = DATE '2019-06-01'", where="person_id = 2"),
    ),
    "born in another age": (
        "person",
        "plausibleValueLow:year_of_birth",
        lambda cdm: _change(cdm, "person", set_="year_of_birth = 195", where="person_id = 2"),
    ),
    "nobody": ("person", "isNotEmpty", lambda cdm: _empty(cdm, "person")),
    "no visit": ("visit_occurrence", "isNotEmpty", lambda cdm: _empty(cdm, "visit_occurrence")),
    "missing table": ("death", "cdmTable", lambda cdm: (cdm / "death.parquet").unlink()),
    "not a Parquet file": (
        "measurement",
        "cdmTable",
        lambda cdm: _overwrite(cdm / "measurement.parquet", f"{MARK}"),
    ),
    "missing column": (
        "visit_occurrence",
        "cdmField:visit_end_date",
        lambda cdm: _reshape(cdm, "visit_occurrence", "t.* EXCLUDE visit_end_date"),
    ),
    "text for a number": (
        "measurement",
        "cdmDatatype",
        lambda cdm: _reshape(cdm, "measurement", f"t.* REPLACE ('{MARK}' AS value_as_number)"),
    ),
    "no de-identification record": (
        "cdm",
        "deidentificationRecord",
        lambda cdm: (cdm / "deidentification.json").unlink(),
    ),
    "unknown profile": (
        "cdm",
        "deidentificationRecord",
        lambda cdm: _overwrite(cdm / "deidentification.json", '{"profile": "x"}'),
    ),
    "record that is not JSON": (
        "cdm",
        "deidentificationRecord",
        lambda cdm: _overwrite(cdm / "deidentification.json", f"{MARK}{{"),
    ),
}


def _empty(cdm: Path, table: str) -> None:
    _reshape(cdm, table, "t.*", where="false")


def _overwrite(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_the_check_that_names_it(cdm: Path, fault: str) -> None:
    table, name, plant = FAULTS[fault]
    plant(cdm)
    report = validate_cdm(cdm)
    assert not report.passed
    assert not _check(report, table, name).passed
    assert (table, name) in {(check.table, check.name) for check in report.failures}
    assert report.reason.startswith("validation/")
    assert f"{MARK}" not in report.to_json()


def test_a_fault_below_its_tolerance_is_reported_and_does_not_block(cdm: Path) -> None:
    _reshape(cdm, "measurement", "t.* REPLACE (1000 * r.copy + measurement_id AS measurement_id)", times=20)
    _change(cdm, "measurement", set_="value_as_number = 999", where="measurement_id IN (3, 1003)")
    report = validate_cdm(cdm)
    found = _check(report, "measurement", "plausibleValueHigh:heart_rate.3027018")
    assert report.passed
    assert (found.passed, found.share_failed, found.n) == (True, "fewer than 11 rows", 800)


def test_a_convention_warns_without_blocking(cdm: Path) -> None:
    _change(cdm, "measurement", set_="unit_concept_id = 0")
    report = validate_cdm(cdm)
    assert report.passed
    assert [check.name for check in report.warnings] == ["unitMapped:heart_rate.3027018"]
    assert report.warnings[0].share_failed == "over 50%"


def test_an_absent_optional_column_is_no_fault(cdm: Path) -> None:
    _reshape(cdm, "measurement", "t.* EXCLUDE (range_low, value_source_value)")
    assert validate_cdm(cdm).passed


def test_a_file_damaged_inside_raises_without_a_value(cdm: Path) -> None:
    path = cdm / "measurement.parquet"
    data = bytearray(path.read_bytes())
    data[8:400] = b"\xff" * 392
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="cannot be counted") as caught:
        validate_cdm(cdm)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_failure_inside_great_expectations_shows_no_value(
    cdm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from great_expectations.datasource.fluent.interfaces import Batch

    def explode(*_: object, **__: object) -> None:
        raise ValueError(f"value {MARK} of patient 17")

    monkeypatch.setattr(Batch, "validate", explode)
    with pytest.raises(DataError) as caught:
        validate_cdm(cdm)
    assert f"{MARK}" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_planted_value_reaches_the_report_or_the_log(
    cdm: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    marks = ("MARKED-NAME", "MARKED-UNIT", f"{MARK}", "1868")
    _change(cdm, "measurement", set_=f"value_as_number = {MARK}, unit_source_value = 'MARKED-UNIT'")
    _change(cdm, "measurement", set_="measurement_date = DATE '1868-01-01'", where="measurement_id < 20")
    _change(cdm, "person", set_="gender_source_value = 'MARKED-NAME', person_id = 1", where="person_id < 15")
    report = validate_cdm(cdm)
    assert not report.passed
    seen = report.to_json() + report.reason + caplog.text + "".join(capfd.readouterr())
    assert [mark for mark in marks if mark in seen] == []


def test_the_same_folder_gives_the_same_report(cdm: Path) -> None:
    assert validate_cdm(cdm).to_json() == validate_cdm(cdm).to_json()


def test_a_folder_that_does_not_exist_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no CDM folder"):
        validate_cdm(tmp_path / "absent")


@pytest.mark.parametrize(
    ("rows", "failed", "expected"),
    [
        (100, 0, "none"),
        (10, 3, None),
        (100, 10, "fewer than 11 rows"),
        (2000, 11, "under 1%"),
        (100, 11, "5-25%"),
        (40, 20, "over 50%"),
        (40, 40, "over 50%"),
    ],
)
def test_shares_are_coarse_and_hide_small_counts(rows: int, failed: int, expected: str | None) -> None:
    assert share_bucket(rows=rows, failed=failed) == expected


def test_great_expectations_is_imported_late_without_threads_or_analytics() -> None:
    code = (
        "import sys, threading, warnings; warnings.simplefilter('error');"
        "import fedhealth.validation; print('great_expectations' in sys.modules);"
        "from fedhealth.validation.suite import load_engine; load_engine();"
        "print(threading.active_count(), 'posthog' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1", "False"]
