"""Every kind of check has one change of a clean CDM that it, by name, finds; no value comes out anywhere."""

from pathlib import Path

import pytest
from unit.validation.test_gate import FAULTS, MARK, _change, _reshape, cdm

from fedhealth.errors import ConfigError
from fedhealth.validation.checks import CHECKS
from fedhealth.validation.data_docs import PAGES
from fedhealth.validation.gate import validate_cdm

__all__ = ["cdm"]

# Kind of check to (table, the check, new values, the rows): one change each.
CHANGES = {
    "fkDomain": ("measurement", "unit_concept_id", "unit_concept_id = 8507", "true"),
    "fkClass": ("visit_occurrence", "visit_concept_id", "visit_concept_id = 8536", "person_id < 0"),
    "isStandardValidConcept": (
        "drug_exposure",
        "drug_concept_id",
        "drug_concept_id = 2000000007",
        "person_id = 3",
    ),
    "measureValueCompleteness": ("measurement", "value_as_number", "value_as_number = NULL", "person_id > 5"),
    "standardConceptRecordCompleteness": (
        "observation",
        "observation_concept_id",
        "observation_concept_id = 0",
        "true",
    ),
    "sourceConceptRecordCompleteness": (
        "condition_occurrence",
        "condition_source_concept_id",
        "condition_source_concept_id = 0",
        "person_id > 2",
    ),
    "sourceValueCompleteness": (
        "measurement",
        "measurement_source_value",
        "measurement_concept_id = 0, measurement_source_value = 'x' || person_id",
        "person_id > 0",
    ),
    "plausibleUnitConceptIds": (
        "measurement",
        "heart_rate.3027018",
        "unit_concept_id = 8840",
        "person_id < 5",
    ),
    "plausibleGender": (
        "condition_occurrence",
        "condition_source_value",
        "condition_source_value = 'http://hl7.org/fhir/sid/icd-10-cm|O80'",
        "person_id = 2",
    ),
    "plausibleTemporalAfter": (
        "visit_detail",
        "visit_detail_start_date",
        "visit_detail_start_date = DATE '2019-12-30'",
        "person_id < 5",
    ),
    "plausibleDuringLife": (
        "observation",
        "observation_date",
        "observation_date = DATE '1868-01-01'",
        "person_id = 2",
    ),
    "withinVisitDates": (
        "procedure_occurrence",
        "procedure_date",
        "procedure_date = DATE '2020-02-01'",
        "person_id < 5",
    ),
    "measurePersonCompleteness": ("observation", "observation", "person_id = 1", "true"),
    "measureObservationPeriodOverlap": ("observation_period", "person_id", "person_id = 1", "person_id = 2"),
    "measureConditionEraCompleteness": (
        "condition_occurrence",
        "person_id",
        "condition_concept_id = 0",
        "person_id > 5",
    ),
    "unitMapped": ("measurement", "heart_rate.3027018", "unit_concept_id = 0", "person_id < 6"),
    "duplicateEvent": (
        "measurement",
        "measurement_id",
        "person_id = 1, value_as_number = 61",
        "person_id < 6",
    ),
    "timestampPrecision": (
        "measurement",
        "measurement_datetime",
        "measurement_datetime = DATE '2020-01-01'",
        "true",
    ),
    "visitLinkCoverage": (
        "measurement",
        "visit_occurrence_id",
        "visit_occurrence_id = NULL",
        "person_id < 20",
    ),
}
# Where the person completeness of another table is judged.
_JUDGED_AT = {"measurePersonCompleteness": "person"}


def test_every_kind_of_check_has_a_change_that_it_finds() -> None:
    in_gate_tests = {name.partition(":")[0] for _, name, _ in FAULTS.values()}
    assert set(CHECKS) == set(CHANGES) | in_gate_tests
    assert sum(check.is_dashboard for check in CHECKS.values()) == 26


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_fails_the_check_of_its_kind(cdm: Path, kind: str) -> None:
    table, subject, values, where = CHANGES[kind]
    if kind == "fkClass":
        _reshape(cdm, table, "t.* REPLACE (8541 AS visit_concept_id)")
    _change(cdm, table, set_=values, where=where)
    failed = {(check.table, check.name) for check in validate_cdm(cdm).checks if not check.passed}
    assert (_JUDGED_AT.get(kind, table), f"{kind}:{subject}") in failed


def test_a_value_outside_the_usual_range_warns_and_does_not_block(cdm: Path) -> None:
    _change(cdm, "measurement", set_="value_as_number = 240", where="person_id < 6")
    report = validate_cdm(cdm)
    assert report.passed
    assert [check.name for check in report.warnings] == ["plausibleValueHigh:heart_rate.3027018.usual"]


def test_data_docs_hold_no_planted_value_and_nothing_from_elsewhere(cdm: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    _change(cdm, "measurement", set_=f"value_as_number = {MARK}, unit_source_value = 'MARKED'")
    _change(cdm, "measurement", set_="measurement_date = DATE '1868-01-01'", where="person_id < 3")
    report = validate_cdm(cdm, docs=docs)
    pages = {path.name: path.read_text() for path in docs.rglob("*.html")}
    text = "".join(pages.values()) + report.to_json()
    assert [mark for mark in (f"{MARK}", "987654321", "MARKED", "1868", "0.075") if mark in text] == []
    assert "plausibleValueHigh:heart_rate.3027018" in pages["measurement.html"]
    assert "over 50%" in pages["measurement.html"]
    assert "fewer than 11 rows" in pages["measurement.html"]
    assert len(pages) == 1 + 2 * 13
    assert [
        word for word in ("<script", "src=", "https://", "url(") if word in text.replace(_ALLOWED, "")
    ] == []


def test_data_docs_replace_those_of_an_earlier_run_and_nothing_else(cdm: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    for _ in range(2):
        validate_cdm(cdm, docs=docs)
        assert sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.html")) == sorted(PAGES)
    (docs / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        validate_cdm(cdm, docs=docs)
    assert (docs / "letter.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.glob(".docs.*")] == []


@pytest.mark.parametrize(
    "names", [("tables/mine.html",), ("index.html", "tables/cdm.html"), ("tables/cdm.html",), ("a",)]
)
def test_a_folder_of_somebody_elses_pages_is_not_touched(
    cdm: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        (tmp_path / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / name).write_text("mine")
    with pytest.raises(ConfigError, match="Fix: name an empty or a new folder"):
        validate_cdm(cdm, docs=tmp_path / "docs")
    assert {(tmp_path / "docs" / name).read_text() for name in names} == {"mine"}


_ALLOWED = "http://hl7.org/fhir/sid/icd-10-cm|"
