"""Nothing after the prediction time changes a feature; what comes after may change the label."""

import datetime as dt
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fedhealth.cdm.tables import TABLES, VISIT_EXTRA
from fedhealth.features import Rows, build_rows
from fedhealth.features.tables import OPTIONAL, REQUIRED
from fedhealth.study import Study, load_study
from fedhealth.vocabulary.concepts import SERIES_CONCEPTS

ADMISSION = dt.datetime(2020, 3, 10, 9, 30)
DISCHARGE = ADMISSION + dt.timedelta(days=4)
CONCEPTS = sorted(concept.concept_id for concepts in SERIES_CONCEPTS.values() for concept in concepts)
WRITTEN = (*(TABLES[name] for name in (*REQUIRED, *OPTIONAL) if name in TABLES), VISIT_EXTRA)
DAY = ADMISSION + dt.timedelta(hours=24)
CODES = {"codes": ["urn:x|dx"], "within_days": 90}
AFTER_DISCHARGE: dict[str, dict[str, object]] = {
    "readmission": {"kind": "readmission", "missing_if": []},
    "death": {"kind": "death", "within_days": 90},
    "survival": {"kind": "survival", "horizon_days": 90},
    "condition": {"kind": "condition", **CODES},
    "observation": {"kind": "observation", **CODES, "positive": ["1"], "negative": ["0"]},
}
WITHIN_STAY: dict[str, dict[str, object]] = {
    "death_in_stay": {"kind": "death", "within": "stay"},
    "kidney_injury": {"kind": "kidney_injury"},
    "icu_transfer": {"kind": "icu_transfer"},
    "length_of_stay": {"kind": "length_of_stay"},
    "disposition": {"kind": "disposition"},
}
# Every kind at once: the label of the readmission is always known here, so that no row leaves by what happens later.
STUDIES = {
    "discharge": (AFTER_DISCHARGE, {"at": "discharge"}, DISCHARGE, 1),
    "admission": ({**AFTER_DISCHARGE, **WITHIN_STAY}, {"at": "admission", "plus_h": 24}, DAY, 1),
    "every": (
        {**AFTER_DISCHARGE, **WITHIN_STAY},
        {"at": "every", "step_h": 24},
        ADMISSION + dt.timedelta(hours=48),
        2,
    ),
}
"""By prediction: outcomes, when, the prediction from which the future counts, and the rows made by then."""


@dataclass(frozen=True)
class Event:
    """Something that is written down ``minutes`` after the prediction (before it, where negative)."""

    kind: str
    minutes: int
    value: float
    concept: int
    is_timed: bool


def events(low: int, high: int, kinds: tuple[str, ...]) -> st.SearchStrategy[list[Event]]:
    one = st.builds(
        Event,
        kind=st.sampled_from(kinds),
        minutes=st.integers(low, high),
        value=st.floats(0, 400, width=32),
        concept=st.sampled_from(CONCEPTS),
        is_timed=st.booleans(),
    )
    return st.lists(one, max_size=12)


RECORDS = ("measurement", "procedure", "emergency_visit", "condition", "observation", "intensive_care")
PAST = events(-14 * 24 * 60, 0, RECORDS)
# A visit that starts within a day of the discharge is the same stay by definition; inpatient ones start later.
FUTURE = events(1, 120 * 24 * 60, (*RECORDS, "inpatient_visit", "death"))


def write_cdm(folder: Path, happened: list[Event], *, prediction: dt.datetime) -> None:
    with duckdb.connect(":memory:", config={"threads": 1}) as database:
        for table in WRITTEN:
            columns = ", ".join(f"{c.name} {c.type}" for c in table.columns)
            database.execute(f"CREATE TABLE {table.name} ({columns})")
        database.execute(
            "INSERT INTO person (person_id, gender_concept_id, year_of_birth) VALUES (1, 8507, 1950)"
        )
        database.execute(
            "INSERT INTO observation_period (person_id, observation_period_end_date) VALUES (1, '2022-01-01')"
        )
        _visit(database, 1, 9201, ADMISSION, DISCHARGE)
        for number, event in enumerate(happened, start=2):
            _write(database, number, event, prediction)
        for table in WRITTEN:
            database.execute(f"COPY {table.name} TO '{folder / table.name}.parquet' (FORMAT parquet)")


def _visit(
    database: duckdb.DuckDBPyConnection, number: int, concept: int, start: dt.datetime, end: dt.datetime
) -> None:
    database.execute(
        "INSERT INTO visit_occurrence (visit_occurrence_id, person_id, visit_concept_id, visit_start_date, "
        "visit_start_datetime, visit_end_date, visit_end_datetime) VALUES (?, 1, ?, ?, ?, ?, ?)",
        [number, concept, start.date(), start, end.date(), end],
    )
    database.execute("INSERT INTO visit_extra (visit_occurrence_id) VALUES (?)", [number])


def _write(database: duckdb.DuckDBPyConnection, number: int, event: Event, prediction: dt.datetime) -> None:
    when = prediction + dt.timedelta(minutes=event.minutes)
    timed = when if event.is_timed else None
    if event.kind == "measurement":
        database.execute(
            "INSERT INTO measurement (measurement_id, person_id, measurement_concept_id, measurement_date, "
            "measurement_datetime, value_as_number) VALUES (?, 1, ?, ?, ?, ?)",
            [number, event.concept, when.date(), timed, event.value],
        )
    elif event.kind == "procedure":
        database.execute(
            "INSERT INTO procedure_occurrence (person_id, procedure_date, procedure_datetime, "
            "procedure_source_value) VALUES (1, ?, ?, '0DTJ4ZZ')",
            [when.date(), timed],
        )
    elif event.kind == "death":
        database.execute("DELETE FROM death")
        database.execute(
            "INSERT INTO death (person_id, death_date, death_datetime) VALUES (1, ?, ?)",
            [when.date(), when if event.is_timed else None],
        )
    elif event.kind == "condition":
        database.execute(
            "INSERT INTO condition_occurrence (person_id, condition_start_date, condition_start_datetime, "
            "condition_source_value) VALUES (1, ?, ?, 'urn:x|dx')",
            [when.date(), timed],
        )
    elif event.kind == "observation":
        database.execute(
            "INSERT INTO observation (person_id, observation_date, observation_datetime, observation_source_value, "
            "value_as_string) VALUES (1, ?, ?, 'urn:x|dx', '1')",
            [when.date(), timed],
        )
    elif event.kind == "intensive_care":
        database.execute(
            "INSERT INTO visit_detail (visit_detail_concept_id, visit_detail_start_date, "
            "visit_detail_start_datetime, visit_occurrence_id) VALUES (32037, ?, ?, 1)",
            [when.date(), timed],
        )
    elif event.kind == "emergency_visit":
        _visit(database, number, 9203, when, when + dt.timedelta(hours=3))
    else:
        start = max(when, DISCHARGE + dt.timedelta(hours=24, minutes=1))
        _visit(database, number, 9201, start, start + dt.timedelta(days=2))
        _condition(database, number)


def _condition(database: duckdb.DuckDBPyConnection, visit: int) -> None:
    """A diagnosis of a later stay, with an onset long before the prediction."""
    database.execute(
        "INSERT INTO condition_occurrence (person_id, condition_start_date, condition_source_value, "
        "visit_occurrence_id) VALUES (1, '2010-01-01', 'I50.9', ?)",
        [visit],
    )


def rows_of(happened: list[Event], study: Study, *, prediction: dt.datetime) -> Rows:
    with tempfile.TemporaryDirectory() as folder:
        write_cdm(Path(folder), happened, prediction=prediction)
        return build_rows(Path(folder), study, site_secret=bytes(32))[0]


def study_of(outcomes: object, prediction: object, folder: Path) -> Study:
    path = folder / "study.yaml"
    sections = {"outcomes": outcomes, "prediction": prediction, "cohort": {"index": {"take": "first"}}}
    path.write_text(yaml.safe_dump({"schema_version": 1, "name": "leakage", **sections}))
    return load_study(path)


@pytest.mark.parametrize("at", sorted(STUDIES))
def test_no_event_after_the_prediction_changes_a_feature(
    at: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outcomes, when, prediction, made = STUDIES[at]
    study = study_of(outcomes, when, tmp_path_factory.mktemp("study"))

    @settings(max_examples=12, deadline=None, phases=[Phase.reuse, Phase.generate])
    @given(past=PAST, future=FUTURE)
    def check(past: list[Event], future: list[Event]) -> None:
        before = rows_of(past, study, prediction=prediction)
        after = rows_of(past + future, study, prediction=prediction)
        assert min(len(before), len(after)) >= made
        for name in ("features", "series", "levels", "groups"):
            np.testing.assert_array_equal(getattr(after, name)[:made], getattr(before, name)[:made])

    check()


@pytest.mark.parametrize("at", sorted(STUDIES))
def test_what_happens_by_the_prediction_does_change_features(
    at: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outcomes, when, prediction, made = STUDIES[at]
    study = study_of(outcomes, when, tmp_path_factory.mktemp("study"))
    nothing = rows_of([], study, prediction=prediction)
    seen = rows_of([Event("measurement", 0, 90.0, 3027018, True)], study, prediction=prediction)
    late = rows_of([Event("measurement", 1, 90.0, 3027018, True)], study, prediction=prediction)
    last = made - 1
    assert not np.array_equal(seen.features[last], nothing.features[last], equal_nan=True)
    np.testing.assert_array_equal(late.features[:made], nothing.features[:made])
    np.testing.assert_array_equal(seen.features[:last], nothing.features[:last])


CREATININE = 3016723
LEVEL = [Event("measurement", -minutes, 1.0, CREATININE, True) for minutes in (1000, 500)]
EVENTS = {
    "death": (Event("death", 1, 0.0, 0, True), 1),
    "survival": (Event("death", 1, 0.0, 0, True), 1),
    "condition": (Event("condition", 1, 0.0, 0, True), 1),
    "observation": (Event("observation", 1, 0.0, 0, True), 1),
    "death_in_stay": (Event("death", 1, 0.0, 0, True), 1),
    "kidney_injury": (Event("measurement", 1, 2.0, CREATININE, True), 1),
    "icu_transfer": (Event("intensive_care", 1, 0.0, 0, True), 1),
}


@pytest.mark.parametrize("at", ["admission", "every"])
@pytest.mark.parametrize("name", sorted(EVENTS))
def test_an_event_is_a_label_from_a_minute_after_the_prediction_on(
    name: str, at: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, when, prediction, made = STUDIES[at]
    outcome = {**AFTER_DISCHARGE, **WITHIN_STAY}[name]
    study = study_of({"it": outcome}, when, tmp_path_factory.mktemp("study"))
    event, label = EVENTS[name]
    later = rows_of([*LEVEL, event], study, prediction=prediction)
    assert later.labels.tolist() == [[label]] * made
    by_then = rows_of([*LEVEL, replace(event, minutes=0)], study, prediction=prediction)
    assert by_then.labels.tolist() == [[label]] * (made - 1)


def test_a_readmission_after_the_prediction_is_the_label(tmp_path_factory: pytest.TempPathFactory) -> None:
    for at in ("discharge", "admission"):
        _, when, prediction, _ = STUDIES[at]
        folder = tmp_path_factory.mktemp("study")
        study = study_of({"it": AFTER_DISCHARGE["readmission"]}, when, folder)
        later = Event("inpatient_visit", 10 * 24 * 60, 0.0, CONCEPTS[0], True)
        assert rows_of([], study, prediction=prediction).labels.tolist() == [[0]]
        assert rows_of([later], study, prediction=prediction).labels.tolist() == [[1]]
