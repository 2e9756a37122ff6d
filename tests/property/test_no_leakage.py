"""Nothing after the prediction time changes a feature; what comes after may change the label."""

import datetime as dt
import tempfile
from dataclasses import dataclass
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
STUDIES = {
    "discharge": ({"readmission": {"kind": "readmission"}}, {"at": "discharge"}, DISCHARGE),
    "admission": (
        {"death": {"kind": "death", "within_days": 90}},
        {"at": "admission", "plus_h": 24},
        ADMISSION + dt.timedelta(hours=24),
    ),
}


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


PAST = events(-14 * 24 * 60, 0, ("measurement", "procedure", "emergency_visit"))
# A visit that starts within a day of the discharge is the same stay by definition; inpatient ones start later.
FUTURE = events(1, 120 * 24 * 60, ("measurement", "procedure", "emergency_visit", "inpatient_visit", "death"))


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
        # Who dies on the day of the discharge died in the stay: that stay is no row of the readmission study.
        if prediction == DISCHARGE:
            when = max(when, DISCHARGE + dt.timedelta(days=1))
        database.execute("DELETE FROM death")
        database.execute(
            "INSERT INTO death (person_id, death_date, death_datetime) VALUES (1, ?, ?)",
            [when.date(), when if event.is_timed else None],
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


def study_at(at: str, folder: Path) -> tuple[Study, dt.datetime]:
    outcomes, prediction, time = STUDIES[at]
    path = folder / "study.yaml"
    cohort = {"index": {"take": "first"}}
    path.write_text(
        yaml.safe_dump(
            {
                "schema_version": 1,
                "name": at,
                "outcomes": outcomes,
                "prediction": prediction,
                "cohort": cohort,
            }
        )
    )
    return load_study(path), time


@pytest.mark.parametrize("at", sorted(STUDIES))
def test_no_event_after_the_prediction_changes_a_feature(
    at: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study, prediction = study_at(at, tmp_path_factory.mktemp("study"))

    @settings(max_examples=12, deadline=None, phases=[Phase.reuse, Phase.generate])
    @given(past=PAST, future=FUTURE)
    def check(past: list[Event], future: list[Event]) -> None:
        before = rows_of(past, study, prediction=prediction)
        after = rows_of(past + future, study, prediction=prediction)
        assert len(before) == len(after) == 1
        np.testing.assert_array_equal(after.features, before.features)

    check()


@pytest.mark.parametrize("at", sorted(STUDIES))
def test_what_happens_by_the_prediction_does_change_features(
    at: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study, prediction = study_at(at, tmp_path_factory.mktemp("study"))
    nothing = rows_of([], study, prediction=prediction)
    seen = rows_of([Event("measurement", 0, 90.0, 3027018, True)], study, prediction=prediction)
    late = rows_of([Event("measurement", 1, 90.0, 3027018, True)], study, prediction=prediction)
    assert not np.array_equal(seen.features, nothing.features, equal_nan=True)
    np.testing.assert_array_equal(late.features, nothing.features)


@pytest.mark.parametrize(("at", "kind"), [("discharge", "inpatient_visit"), ("admission", "death")])
def test_what_happens_after_the_prediction_is_the_label(
    at: str, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study, prediction = study_at(at, tmp_path_factory.mktemp("study"))
    later = Event(kind, 10 * 24 * 60, 0.0, CONCEPTS[0], True)
    assert rows_of([], study, prediction=prediction).labels.tolist() == [[0]]
    assert rows_of([later], study, prediction=prediction).labels.tolist() == [[1]]
