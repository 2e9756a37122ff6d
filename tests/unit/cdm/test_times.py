"""Times: one instant is one instant, a date counts as its end, what is no time is told."""

from datetime import date, datetime

import pytest
import yaml
from simulator.hospital import encounter, observation, patient


def pulse(name, when):
    return observation(name, "8867-4", 60, "/min", effectiveDateTime=when)


def when(loaded):
    return loaded.one("measurement", "measurement_date", "measurement_datetime")


@pytest.mark.parametrize(
    "text",
    [
        "2021-05-01T22:30:00Z",
        "2021-05-01T22:30:00.000Z",
        "2021-05-02T00:30:00+02:00",
        "2021-05-01T18:30:00-04:00",
    ],
)
def test_one_instant_is_one_row_whatever_its_offset(load, text):
    loaded = load([patient("ada"), pulse("p", text)])
    assert when(loaded) == (date(2021, 5, 1), datetime(2021, 5, 1, 22, 30))


def test_a_time_without_an_offset_is_in_the_time_zone_of_the_site(load, tmp_path):
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"time_zone": "Europe/Berlin"}))
    resources = [patient("ada"), pulse("winter", "2021-01-10T10:00:00"), pulse("z", "2021-07-10T10:00:00Z")]
    resources.append(pulse("summer", "2021-07-10T10:00:00"))
    loaded = load(resources, site_map=tmp_path)
    assert loaded.column("measurement", "measurement_datetime") == [
        datetime(2021, 1, 10, 9),
        datetime(2021, 7, 10, 8),
        datetime(2021, 7, 10, 10),
    ]


@pytest.mark.parametrize(
    ("text", "day"),
    [("2021-02-03", date(2021, 2, 3)), ("2021-02", date(2021, 2, 28)), ("2020", date(2020, 12, 31))],
)
def test_a_date_has_no_time_and_a_vague_one_is_its_last_day(load, text, day):
    assert when(load([patient("ada"), pulse("p", text)])) == (day, None)


@pytest.mark.parametrize(
    "text",
    [
        "infinity     ",
        "9999-12-31",
        "99999-01-01T00:00:00Z",
        "2021-02-30",
        "2021-13",
        "soon",
        "0044-03-15 (BC)",
    ],
)
def test_what_is_no_time_is_quarantined_and_never_ends_the_extract(load, text):
    loaded = load([patient("ada"), pulse("good", "2021-05-01T09:00:00Z"), pulse("bad", text)])
    assert loaded.reasons("Observation") == {"quarantined:invalid_date": 1}
    assert loaded.column("cdm_source", "source_release_date") == [date(2021, 5, 1)]


def test_an_event_without_a_time_takes_the_start_of_its_encounter(load):
    timeless = observation("p", "8867-4", 60, "/min", encounter={"reference": "Encounter/stay"})
    del timeless["effectiveDateTime"]
    loaded = load([patient("ada"), encounter("stay"), timeless])
    assert when(loaded) == (date(2021, 5, 1), datetime(2021, 5, 1, 8))


def test_the_extract_date_of_the_site_ends_the_observation_periods(load, tmp_path):
    (tmp_path / "site.yaml").write_text("extract_date: 2021-12-31\n")
    loaded = load([patient("ada"), encounter("stay")], site_map=tmp_path)
    assert loaded.column("observation_period", "observation_period_end_date") == [date(2021, 12, 31)]


def test_an_observation_period_ends_with_death(load):
    resources = [patient("ada", deceasedDateTime="2021-05-20"), encounter("stay")]
    late = pulse("p", "2022-01-01T00:00:00Z") | {"subject": {"reference": "Patient/bo"}}
    loaded = load([*resources, patient("bo"), late])
    assert sorted(loaded.column("observation_period", "observation_period_end_date")) == [
        date(2021, 5, 20),
        date(2022, 1, 1),
    ]


def test_an_open_stay_ends_on_the_extract_date_and_says_so(load, tmp_path):
    (tmp_path / "site.yaml").write_text("extract_date: 2021-05-30\n")
    stay = encounter("stay", status="in-progress", period={"start": "2021-05-01T08:00:00Z"})
    loaded = load([patient("ada"), stay], site_map=tmp_path)
    columns = ("visit_end_date", "visit_end_datetime", "discharged_to_concept_id")
    assert loaded.one("visit_occurrence", *columns) == (date(2021, 5, 30), None, 32220)
    assert loaded.account.notes["open_encounter"] == 1
