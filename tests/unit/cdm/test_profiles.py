"""The three profiles: what moves, what stays, and that nothing gives an offset away."""

import json
from collections import defaultdict
from datetime import date, datetime, timedelta

import pytest
import yaml
from simulator.hospital import SECRET, encounter, event, key, lines, observation, patient

from fedhealth.cdm.profiles import offset_days
from fedhealth.cdm.tables import TABLES
from fedhealth.synthetic.consortium import generate_hospital

SHIFTED = ("limited-dataset", "safe-harbor")
ADA = key("Patient/ada")


def moments(loaded, table):
    """(person, key, column) -> date or time, of every cell that has one."""
    columns = TABLES[table].column_names
    timed = [c.name for c in TABLES[table].columns if c.type in ("DATE", "TIMESTAMP")]
    found = {}
    for row in loaded.rows(table):
        cells = dict(zip(columns, row, strict=True))
        for name in timed:
            if cells[name] is not None:
                found[cells["person_id"], cells[TABLES[table].key or "person_id"], name] = cells[name]
    return found


def all_moments(loaded):
    return {
        (table, *cell): at
        for table in TABLES
        if "person_id" in TABLES[table].column_names and table not in ("person", "observation_period")
        for cell, at in moments(loaded, table).items()
    }


@pytest.fixture(scope="module")
def hospital(load):
    """The same made-up hospital under each profile."""
    found = generate_hospital(2, patients=40, seed=5)[2]
    files = {f"{kind}.ndjson": b"\n".join(texts) + b"\n" for kind, texts in found.items()}
    return {profile: load(files=files, profile=profile) for profile in ("local-only", *SHIFTED)}


@pytest.mark.parametrize("profile", SHIFTED)
def test_the_difference_of_every_pair_of_times_of_a_person_stays(hospital, profile):
    before, after = all_moments(hospital["local-only"]), all_moments(hospital[profile])
    assert before.keys() == after.keys()
    shifts = defaultdict(set)
    for cell, at in before.items():
        if isinstance(at, datetime):
            shifts[cell[1]].add(after[cell] - at)
    assert len(shifts) > 30
    assert {len(found) for found in shifts.values()} == {1}


def test_a_limited_data_set_moves_whole_days_and_dates_with_times(hospital):
    before, after = all_moments(hospital["local-only"]), all_moments(hospital["limited-dataset"])
    shifts = defaultdict(set)
    for cell, at in before.items():
        shifts[cell[1]].add(after[cell] - at)
    assert {len(found) for found in shifts.values()} == {1}
    days = {found.pop() for found in shifts.values()}
    assert all(shift == timedelta(days=shift.days) and 0 < abs(shift.days) <= 365 for shift in days)
    assert len(days) > 30


def test_safe_harbor_leaves_years_and_times_since_the_first(hospital):
    firsts, days = {}, {}
    for (_, person, *_), at in all_moments(hospital["safe-harbor"]).items():
        day = at.date() if isinstance(at, datetime) else at
        days[person] = min(days.get(person, day), day)
        if isinstance(at, datetime):
            firsts[person] = min(firsts.get(person, at), at)
    assert {(day.month, day.day) for day in days.values()} == {(1, 1)}
    assert {at.time().isoformat() for at in firsts.values()} == {"00:00:00"}


@pytest.mark.parametrize("profile", SHIFTED)
def test_nothing_but_dates_births_and_follow_up_differs(hospital, profile):
    for name, table in TABLES.items():
        kept = [
            column.name
            for column in table.columns
            if column.type not in ("DATE", "TIMESTAMP") and "birth" not in column.name
        ]
        assert hospital[profile].rows(name, *kept) == hospital["local-only"].rows(name, *kept), name


@pytest.mark.parametrize("profile", SHIFTED)
def test_a_birth_is_a_year(hospital, profile):
    rows = hospital[profile].rows(
        "person", "month_of_birth", "day_of_birth", "birth_datetime", "year_of_birth IS NULL"
    )
    assert set(rows) == {(None, None, None, False)}


@pytest.mark.parametrize("profile", SHIFTED)
def test_no_date_of_the_source_is_anywhere(load, profile):
    given = [
        patient("ada", birthDate="1950-03-04", deceasedDateTime="2021-07-13"),
        encounter("stay", period={"start": "2021-05-02T08:00:00Z", "end": "2021-05-06T16:00:00Z"}),
        observation("pulse", "8867-4", 80, "/min", effectiveDateTime="2021-05-03T10:00:00Z"),
        event(
            "Condition", "c", code={"coding": [{"system": "urn:x", "code": "y"}]}, onsetDateTime="2021-05-04"
        ),
    ]
    loaded = load(given, profile=profile)
    texts = [str(cell) for table in TABLES for row in loaded.rows(table) for cell in row]
    texts += [path.read_text() for path in loaded.folder.glob("*.json")]
    for day in ("1950-03-04", "2021-07-13", "2021-05-02", "2021-05-06", "2021-05-03", "2021-05-04"):
        assert not [text for text in texts if day in text], day
    assert [path for path in texts if "2021" in path or "2020" in path]


def test_an_offset_is_secret_a_persons_own_and_never_nothing():
    days = [offset_days(person, site_secret=SECRET) for person in range(20_000)]
    assert set(days) == set(range(-365, 365)) - {0}
    assert offset_days(7, site_secret=bytes(32)) != offset_days(7, site_secret=SECRET)
    weeks = {offset_days(person, site_secret=SECRET, keep_weekday=True) for person in range(20_000)}
    assert weeks == set(range(-364, 365, 7)) - {0}


def test_whole_weeks_keep_the_day_of_the_week(load, tmp_path):
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"profile": "limited-dataset", "keep_weekday": True}))
    loaded = load([patient("ada"), encounter("stay")], site_map=tmp_path)
    (start,) = loaded.column("visit_occurrence", "visit_start_date")
    assert start != date(2021, 5, 1)
    assert start.weekday() == date(2021, 5, 1).weekday()
    assert loaded.record()["dates"] == "one secret offset a person, whole weeks within a year"


@pytest.mark.parametrize("profile", SHIFTED)
@pytest.mark.parametrize(("born", "age"), [("1950-03-04", 71), ("1931-04-04", 90), ("1910-01-01", 90)])
def test_nobody_is_shown_as_older_than_ninety(load, profile, born, age):
    loaded = load([patient("ada", birthDate=born), encounter("stay")], profile=profile)
    (year,) = loaded.column("person", "year_of_birth")
    (end,) = loaded.column("visit_occurrence", "visit_end_date")
    assert abs(end.year - year - age) <= (1 if age < 90 else 0)
    assert end.year - year <= 90


@pytest.mark.parametrize("profile", SHIFTED)
@pytest.mark.parametrize(
    ("extract", "known"),
    [("2021-05-20", 0), ("2021-06-04", 31), ("2021-08-03", 31), ("2021-08-04", 92), ("2022-05-05", 366)],
)
def test_follow_up_is_rounded_down_as_the_day_of_the_extract_is_everybodys(
    load, tmp_path, profile, extract, known
):
    (tmp_path / "site.yaml").write_text(f"extract_date: {extract}\n")
    given = [patient("ada"), encounter("stay")]
    loaded = load(given, site_map=tmp_path, profile=profile)
    (end,) = loaded.column("observation_period", "observation_period_end_date")
    (left,) = loaded.column("visit_occurrence", "visit_end_date")
    assert (end - left).days == known
    as_it_is = load(given, site_map=tmp_path)
    assert str(as_it_is.column("observation_period", "observation_period_end_date")[0]) == extract


@pytest.mark.parametrize("profile", SHIFTED)
def test_an_open_encounter_ends_with_the_follow_up_and_not_with_the_extract(load, tmp_path, profile):
    (tmp_path / "site.yaml").write_text("extract_date: 2021-06-15\n")
    loaded = load(
        [patient("ada"), encounter("stay", status="in-progress", period={"start": "2021-05-01T08:00:00Z"})],
        site_map=tmp_path,
        profile=profile,
    )
    ((start, end),) = loaded.rows("visit_occurrence", "visit_start_date", "visit_end_date")
    assert (end - start).days == 31


@pytest.mark.parametrize("profile", SHIFTED)
def test_a_death_ends_the_follow_up(load, profile):
    given = [patient("ada", deceasedDateTime="2021-07-13T08:00:00Z"), encounter("stay"), patient("bo")]
    given.append(encounter("later", of="bo", period={"start": "2023-01-01", "end": "2023-01-02"}))
    loaded = load(given, profile=profile)
    ends = dict(loaded.rows("observation_period", "person_id", "observation_period_end_date"))
    assert ends[ADA] == loaded.column("death", "death_date")[0]


@pytest.mark.parametrize("profile", SHIFTED)
def test_an_end_on_a_day_alone_never_comes_before_its_start(load, profile):
    given = [
        patient("ada"),
        observation("first", "8867-4", 80, "/min", effectiveDateTime="2021-04-28T20:00:00Z"),
        encounter("stay", period={"start": "2021-05-01", "end": "2021-05-01T05:00:00Z"}),
        encounter("next", period={"start": "2021-05-03T21:00:00Z", "end": "2021-05-03"}),
    ]
    loaded = load(given, profile=profile)
    for start, end in loaded.rows("visit_occurrence", "visit_start_date", "visit_end_date"):
        assert start <= end


@pytest.mark.parametrize("profile", SHIFTED)
def test_the_same_input_in_another_order_gives_the_same_bytes(load, profile):
    given = [patient("ada"), encounter("stay"), observation("pulse", "8867-4", 80, "/min"), patient("bo")]
    one = load(given, profile=profile)
    other = load(files={"b.ndjson": lines(given[::-1][:2]), "a.ndjson": lines(given[:2])}, profile=profile)
    assert one.digests() == other.digests()
    assert one.digests() != load(given, profile=profile, secret=bytes(32)).digests()


def test_what_is_asked_for_goes_before_what_site_yaml_says(load, tmp_path):
    (tmp_path / "site.yaml").write_text("profile: limited-dataset\n")
    given = [patient("ada"), encounter("stay")]
    assert load(given, site_map=tmp_path).record()["profile"] == "limited-dataset"
    assert load(given, site_map=tmp_path, profile="safe-harbor").record()["profile"] == "safe-harbor"


@pytest.mark.parametrize("profile", SHIFTED)
def test_the_record_says_what_was_done_and_no_day(load, profile):
    record = load([patient("ada"), encounter("stay")], profile=profile).record()
    assert record["profile"] == profile
    assert record["recorded"] == "2021"
    assert record["births"] == "year alone, at most 90 years before the last date"
    assert SECRET.hex() not in json.dumps(record)


@pytest.mark.parametrize("profile", SHIFTED)
def test_an_end_after_the_follow_up_is_cut_as_it_would_tell_the_offset(load, tmp_path, profile):
    (tmp_path / "site.yaml").write_text("extract_date: 2021-06-30\n")
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50.9"}]}
    given = [
        patient("ada"),
        encounter("stay"),
        event("Condition", "open", code=code, onsetDateTime="2021-05-02", abatementDateTime="2099-12-31"),
        event("Condition", "past", code=code, onsetDateTime="2021-05-02", abatementDateTime="2021-05-09"),
        event(
            "MedicationAdministration",
            "drip",
            status="in-progress",
            medicationCodeableConcept={"coding": [{"system": "urn:x", "code": "y"}]},
            effectivePeriod={"start": "2021-05-03T10:00:00Z", "end": "2099-12-31T10:00:00Z"},
        ),
    ]
    loaded = load(given, site_map=tmp_path, profile=profile)
    ends = dict(loaded.rows("condition_occurrence", "condition_occurrence_id", "condition_end_date"))
    starts = dict(loaded.rows("condition_occurrence", "condition_occurrence_id", "condition_start_date"))
    assert ends[key("Condition/open")] is None
    assert (ends[key("Condition/past")] - starts[key("Condition/past")]).days == 7
    (drip,) = loaded.rows(
        "drug_exposure", "drug_exposure_start_date", "drug_exposure_end_date", "drug_exposure_end_datetime"
    )
    assert (drip[1] - drip[0]).days < 100
    assert drip[2] is None


@pytest.mark.parametrize("profile", SHIFTED)
def test_ages_are_capped_without_events_and_by_ends(load, profile):
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50.9"}]}
    given = [
        patient("ada", birthDate="1930-01-01"),
        event("Condition", "c", code=code, onsetDateTime="2005-02-03", abatementDateTime="2024-02-03"),
        patient("bo", birthDate="1890-01-01"),
        patient("cy"),
        encounter("now", of="cy", period={"start": "2024-06-01", "end": "2024-06-02"}),
    ]
    loaded = load(given, profile=profile)
    born = dict(loaded.rows("person", "person_id", "year_of_birth"))
    ((end,),) = loaded.rows("condition_occurrence", "condition_end_date")
    assert end.year - born[ADA] <= 90
    assert born[key("Patient/bo")] >= 2024 - 90
