"""Nothing after the prediction reaches a feature of any kind, and every window begins and ends where it says."""

import datetime as dt
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fedhealth.cdm.tables import TABLES, VISIT_EXTRA
from fedhealth.features import Rows, build_rows
from fedhealth.features.tables import OPTIONAL, REQUIRED
from fedhealth.study import Study
from fedhealth.study.columns import numeric_columns

ADMISSION = dt.datetime(2020, 3, 10, 9, 30)
DISCHARGE = ADMISSION + dt.timedelta(days=4)
HEART_RATE = 3027018
STAY, EARLIER, LATER = 1, 2, 3
VISITS = {
    STAY: (ADMISSION, DISCHARGE),
    EARLIER: (ADMISSION - dt.timedelta(days=9), ADMISSION - dt.timedelta(days=7)),
    LATER: (DISCHARGE + dt.timedelta(days=3), DISCHARGE + dt.timedelta(days=5)),
}
TYPES = {
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us"),
    "BOOLEAN": pa.bool_(),
}
WINDOWS = {"open": [-48, 0], "early": [-30.5, -6]}
FEATURES: dict[str, Any] = {
    "measurements": [
        {
            "name": f"number_{name}",
            "codes": ["urn:x|number"],
            "unit": "mg/dL",
            "clip": [0, 500],
            "comparator": {">": 500},
            "window_h": window,
            "aggregate": ["last", "min", "max", "mean", "slope", "missing", "any", "count", "time_since"],
        }
        for name, window in WINDOWS.items()
    ],
    "categories": [
        {"name": f"level_{name}", "codes": ["urn:x|level"], "window_h": window}
        for name, window in WINDOWS.items()
    ],
    "conditions": [{"name": "condition", "codes": ["urn:x|condition"], "look_back_days": 3}],
    "drugs": [
        {"name": f"drug_{name}", "codes": ["urn:x|drug"], "window_h": window}
        for name, window in WINDOWS.items()
    ],
    "procedures": [{"name": "procedure", "codes": ["urn:x|procedure"], "look_back_days": 3}],
    "series": {"step_h": 2, "steps": 24},
}
PREDICTIONS = {
    "discharge": ({"at": "discharge"}, {"kind": "readmission"}, DISCHARGE),
    "admission": (
        {"at": "admission", "plus_h": 24},
        {"kind": "death", "within_days": 90},
        ADMISSION + dt.timedelta(hours=24),
    ),
}


@dataclass(frozen=True)
class Event:
    """Something written down at a time, or where it is not timed on that day."""

    kind: str
    when: dt.datetime
    value: float = 1.0
    is_timed: bool = True
    visit: int | None = None


def study_at(at: str) -> Study:
    prediction, outcome, _ = PREDICTIONS[at]
    document = {
        "schema_version": 1,
        "name": at,
        "outcomes": {"outcome": outcome},
        "prediction": prediction,
        "cohort": {"index": {"take": "first"}},
        "features": FEATURES,
        "model": {"kind": "lstm"},
    }
    return Study.model_validate_json(json.dumps(document))


def table_row(event: Event, person: int, number: int) -> tuple[str, dict[str, Any]]:
    """The OMOP table and row of an event."""
    time = event.when if event.is_timed else None
    level = f"urn:x|{int(event.value) % 5}"
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        "number": (
            "measurement",
            {
                "measurement_source_value": "urn:x|number",
                "unit_source_value": "mg/dL",
                "value_as_number": event.value,
                "operator_concept_id": 4172704 if event.value > 390 else None,
            },
        ),
        "heart_rate": ("measurement", {"measurement_concept_id": HEART_RATE, "value_as_number": event.value}),
        "level": ("observation", {"observation_source_value": "urn:x|level", "value_as_string": level}),
        "measured_level": (
            "measurement",
            {"measurement_source_value": "urn:x|level", "value_source_value": level},
        ),
        "condition": ("condition_occurrence", {"condition_source_value": "urn:x|condition"}),
        "drug": ("drug_exposure", {"drug_source_value": "urn:x|drug"}),
        "procedure": ("procedure_occurrence", {"procedure_source_value": "urn:x|procedure"}),
    }
    table, values = rows[event.kind]
    prefix = {"condition_occurrence": "condition_start_", "drug_exposure": "drug_exposure_start_"}.get(
        table, f"{table.removesuffix('_occurrence')}_"
    )
    return table, {
        "person_id": person,
        TABLES[table].key or "": number,
        "visit_occurrence_id": None if event.visit is None else 10 * person + event.visit,
        f"{prefix}date": event.when.date(),
        f"{prefix}datetime": time,
        **values,
    }


def person_rows(person: int, events: Sequence[Event]) -> list[tuple[str, dict[str, Any]]]:
    """A person with an index stay, a visit before it and one after it, and what happened."""
    listed: list[tuple[str, dict[str, Any]]] = [
        ("person", {"person_id": person, "gender_concept_id": 8507, "year_of_birth": 1950}),
        ("observation_period", {"person_id": person, "observation_period_end_date": dt.date(2022, 1, 1)}),
    ]
    for number, (start, end) in VISITS.items():
        visit = {
            "visit_occurrence_id": 10 * person + number,
            "person_id": person,
            "visit_concept_id": 9201 if number == STAY else 9202,
            "visit_start_date": start.date(),
            "visit_start_datetime": start,
            "visit_end_date": end.date(),
            "visit_end_datetime": end,
        }
        listed.append(("visit_occurrence", visit))
    return listed + [table_row(event, person, 1000 * person + n) for n, event in enumerate(events)]


def rows_of(histories: Sequence[Sequence[Event]], study: Study) -> Rows:
    """One row for each history, in their order."""
    written = [*(TABLES[name] for name in (*REQUIRED, *OPTIONAL) if name in TABLES), VISIT_EXTRA]
    listed: dict[str, list[dict[str, Any]]] = {}
    for person, events in enumerate(histories, start=1):
        for name, values in person_rows(person, events):
            listed.setdefault(name, []).append(values)
    with tempfile.TemporaryDirectory() as folder:
        for table in written:
            schema = pa.schema([(column.name, TYPES[column.type]) for column in table.columns])
            rows = pa.Table.from_pylist(listed.get(table.name, []), schema=schema)
            pq.write_table(rows, Path(folder) / f"{table.name}.parquet")
        found = build_rows(Path(folder), study, site_secret=bytes(32))[0]
    assert found.person.tolist() == list(range(1, len(histories) + 1))
    return found


def assert_same(one: Rows, other: Rows) -> None:
    np.testing.assert_array_equal(other.features, one.features)
    np.testing.assert_array_equal(other.series, one.series)
    np.testing.assert_array_equal(other.levels, one.levels)
    assert other.level_names == one.level_names


def is_same_row(rows: Rows, one: int, other: int) -> bool:
    arrays = (rows.features, rows.series, rows.levels)
    return all(np.array_equal(each[one], each[other], equal_nan=True) for each in arrays)


KINDS = ("number", "heart_rate", "level", "measured_level", "condition", "drug", "procedure")


def events(at: str, low: int, high: int) -> st.SearchStrategy[list[Event]]:
    """Events so many minutes after the prediction; a condition may belong to any visit."""
    moment = PREDICTIONS[at][2]
    return st.lists(
        st.builds(
            Event,
            kind=st.sampled_from(KINDS),
            when=st.integers(low, high).map(lambda minutes: moment + dt.timedelta(minutes=minutes)),
            value=st.floats(0, 400, width=32),
            is_timed=st.booleans(),
            visit=st.sampled_from((None, STAY, EARLIER, LATER)),
        ),
        max_size=12,
    )


def unknown(at: str) -> st.SearchStrategy[list[Event]]:
    """What is not known at the prediction.

    Whatever happens after it; what is written down on its day without a time, which may have been later; diagnoses of
    this stay and of later visits, whenever they began.
    """
    moment = PREDICTIONS[at][2]
    undated = st.builds(Event, kind=st.sampled_from(KINDS), when=st.just(moment), is_timed=st.just(False))
    coded = st.builds(
        Event,
        kind=st.just("condition"),
        when=st.just(moment - dt.timedelta(days=1)),
        visit=st.sampled_from((STAY, LATER)),
    )
    late = (events(at, 1, 60 * 24 * 60), st.lists(undated, max_size=3), st.lists(coded, max_size=2))
    return st.tuples(*late).map(lambda parts: [event for part in parts for event in part])


@pytest.mark.parametrize("at", sorted(PREDICTIONS))
def test_nothing_after_the_prediction_changes_any_array(at: str) -> None:
    study = study_at(at)
    one = st.tuples(events(at, -4 * 24 * 60, 0), unknown(at))

    @settings(max_examples=10, deadline=None, phases=[Phase.reuse, Phase.generate])
    @given(st.lists(one, min_size=8, max_size=8))
    def check(people: list[tuple[list[Event], list[Event]]]) -> None:
        before = rows_of([past for past, _ in people], study)
        assert_same(before, rows_of([past + late for past, late in people], study))

    check()


@pytest.mark.parametrize("at", sorted(PREDICTIONS))
def test_what_happens_at_the_prediction_is_known_and_a_microsecond_later_is_not(at: str) -> None:
    moment = PREDICTIONS[at][2]
    later = moment + dt.timedelta(microseconds=1)
    histories: list[list[Event]] = [[]]
    for kind in KINDS:
        event = Event(kind, moment, 90.0)
        histories += [[event], [replace(event, when=later)], [replace(event, is_timed=False)]]
    rows = rows_of(histories, study_at(at))
    same_as_nothing = [is_same_row(rows, 0, place) for place in range(1, len(histories))]
    assert same_as_nothing == [False, True, True] * len(KINDS)


EDGES = {
    "number": ("number_early_any", *WINDOWS["early"]),
    "level": ("level_early", *WINDOWS["early"]),
    "measured_level": ("level_early", *WINDOWS["early"]),
    "drug": ("drug_early", *WINDOWS["early"]),
    "condition": ("condition", -72.0, 0.0),
    "procedure": ("procedure", -72.0, 0.0),
}


@pytest.mark.parametrize("at", sorted(PREDICTIONS))
def test_a_window_holds_both_its_ends_and_nothing_beyond(at: str) -> None:
    study, moment = study_at(at), PREDICTIONS[at][2]
    names = [column.name for column in numeric_columns(study)]
    categories = [category.name for category in study.features.categories]
    asked = [
        (kind, feature, moment + dt.timedelta(hours=hours, microseconds=beyond))
        for kind, (feature, start, end) in EDGES.items()
        for hours, beyond in ((start, -1), (start, 0), (end, 0), (end, 1))
    ]
    rows = rows_of([[Event(kind, when, 2.0)] for kind, _, when in asked], study)
    has = [
        rows.features[place, names.index(feature)] == 1
        if feature in names
        else rows.levels[place, categories.index(feature)] >= 0
        for place, (_, feature, _) in enumerate(asked)
    ]
    assert has == [False, True, True, False] * len(EDGES)


def test_a_step_of_a_series_holds_its_end_and_the_last_one_the_prediction() -> None:
    grid = study_at("discharge").features.series
    edges = [
        DISCHARGE - dt.timedelta(hours=grid.step_h * (grid.steps - place)) for place in range(grid.steps + 1)
    ]
    ends = [(begin, end) for begin, end in pairwise(edges)]
    moments = [when for begin, end in ends for when in (begin + dt.timedelta(microseconds=1), end)]
    rows = rows_of([[Event("heart_rate", when, 90.0)] for when in moments], study_at("discharge"))
    filled = [np.flatnonzero(row) for row in ~np.isnan(rows.series[:, :, 0])]
    assert [place.tolist() for place in filled] == [
        [step] for step, _ in product(range(grid.steps), range(2))
    ]


def test_a_date_without_a_time_is_the_end_of_its_day_in_every_window() -> None:
    study = study_at("discharge")
    names = [column.name for column in numeric_columns(study)]
    day = Event("number", dt.datetime(2020, 3, 13, 0, 0), 7.0, is_timed=False)
    timed = replace(day, when=dt.datetime(2020, 3, 13, 23, 59, 59, 999_999), is_timed=True)
    rows = rows_of([[day], [timed]], study)
    assert is_same_row(rows, 0, 1)
    assert rows.features[0, names.index("number_open_time_since")] == pytest.approx(9.5, abs=1e-3)
