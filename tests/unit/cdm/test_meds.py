"""A CDM as a MEDS dataset: the package's own schemas accept it, and no event is lost, doubled, early or out of order."""

import json
from collections import Counter
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from meds import schema as meds
from simulator.hospital import Loaded, encounter, observation, patient

from fedhealth.cdm import harmonize
from fedhealth.cdm.meds import export_meds
from fedhealth.errors import ConfigError, DataError
from fedhealth.synthetic.consortium import write_hospital
from fedhealth.vocabulary.concepts import STILL_PATIENT

ROW_PER_EVENT = (
    *("person", "visit_occurrence", "visit_detail", "condition_occurrence", "measurement"),
    *("drug_exposure", "procedure_occurrence", "observation", "death"),
)


@pytest.fixture(scope="module")
def cdm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meds")
    name, *_ = write_hospital(folder, 4, patients=80, seed=7)
    source = folder / name
    account = harmonize(
        source / "fhir", folder / "cdm", site=name, site_map=source / "site-map", site_secret=bytes(32)
    )
    return Loaded(folder / "cdm", account)


@pytest.fixture(scope="module")
def exported(cdm, tmp_path_factory):
    """The dataset in shards of about a thousand events."""
    out = tmp_path_factory.mktemp("out") / "meds"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedhealth.cdm.meds.SHARD_EVENTS", 1000)
        counts = export_meds(cdm.folder, out, created=datetime(2026, 1, 1, tzinfo=UTC))
    return out, counts


def events(out):
    for path in sorted((out / "data").glob("*.parquet")):
        yield pq.read_table(path)


def test_the_package_s_schemas_accept_every_file(exported):
    out, _ = exported
    for table in events(out):
        meds.DataSchema.validate(table)
    meds.SubjectSplitSchema.validate(pq.read_table(out / meds.subject_splits_filepath))
    meds.CodeMetadataSchema.validate(pq.read_table(out / meds.code_metadata_filepath))
    document = json.loads((out / meds.dataset_metadata_filepath).read_text())
    meds.DatasetMetadataSchema.validate(document)
    assert document["created_at"] == "2026-01-01T00:00:00+00:00"


def test_every_row_is_one_event(cdm, exported):
    out, counts = exported
    for table in ROW_PER_EVENT:
        assert counts.events.get(table, 0) == len(cdm.rows(table, "person_id")), table
    ended = [to for to in cdm.column("visit_occurrence", "discharged_to_concept_id") if to != STILL_PATIENT]
    assert counts.events["visit_occurrence_end"] == len(ended)
    assert counts.events.get("visit_detail_end", 0) == counts.events.get("visit_detail", 0)
    assert sum(table.num_rows for table in events(out)) == sum(counts.events.values())
    codes = Counter(code for table in events(out) for code in table.column("code").to_pylist())
    assert codes["MEDS_BIRTH"] == counts.subjects == len(cdm.rows("person", "person_id"))
    assert codes["MEDS_DEATH"] == len(cdm.rows("death", "person_id")) > 0
    assert set(codes) == set(pq.read_table(out / meds.code_metadata_filepath).column("code").to_pylist())


def test_numbers_and_times_are_those_of_the_measurements(cdm, exported):
    out, _ = exported
    rows = cdm.rows(
        "measurement", "person_id", "measurement_datetime", "measurement_concept_id", "value_as_number"
    )
    expected = Counter((who, when, f"OMOP/{what}") for who, when, what, _ in rows if what and when)
    found = Counter()
    for table in events(out):
        found.update(
            zip(*(table.column(name).to_pylist() for name in ("subject_id", "time", "code")), strict=True)
        )
    assert expected
    assert not expected - found
    total = sum(value for *_, value in rows if value is not None)
    numbers = [
        value
        for table in events(out)
        for value, code in zip(
            table.column("numeric_value").to_pylist(), table.column("unit").to_pylist(), strict=True
        )
        if value is not None and (code or "").startswith("OMOP/")
    ]
    assert sum(numbers) == pytest.approx(total, rel=1e-4)


def test_a_subject_is_in_one_shard_in_the_order_of_time(exported):
    out, counts = exported
    seen = set()
    shards = list(events(out))
    assert len(shards) == counts.shards > 3
    for table in shards:
        who, when = table.column("subject_id").to_pylist(), table.column("time").to_pylist()
        own = list(dict.fromkeys(who))
        assert own == sorted(own)
        assert not seen & set(own)
        seen |= set(own)
        keys = [
            (subject, time is not None, time or datetime.min) for subject, time in zip(who, when, strict=True)
        ]
        assert keys == sorted(keys)
    splits = pq.read_table(out / meds.subject_splits_filepath)
    assert seen == set(splits.column("subject_id").to_pylist())


def test_a_day_without_a_time_counts_as_its_end(load, tmp_path):
    code = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"}]}
    subject = {"reference": "Patient/p"}
    loaded = load(
        [
            {"resourceType": "Patient", "id": "p", "birthDate": "1950-02-04"},
            {
                "resourceType": "Condition",
                "id": "c",
                "subject": subject,
                "code": code,
                "onsetDateTime": "2024-03-01",
            },
        ]
    )
    export_meds(loaded.folder, tmp_path / "out")
    (table,) = events(tmp_path / "out")
    assert table.column("time").to_pylist() == [
        datetime(1950, 2, 4),
        datetime(2024, 3, 1, 23, 59, 59, 999999),
    ]


def test_what_no_number_says_is_in_the_text(load, tmp_path):
    flag = observation("flag", "8867-4", 1, "/min", code={"coding": [{"system": "urn:q", "code": "smoker"}]})
    del flag["valueQuantity"]
    below = observation("below", "2345-7", 5, "mg/dL")
    below["valueQuantity"]["comparator"] = "<"
    loaded = load(
        [
            patient("ada"),
            flag | {"valueBoolean": True},
            flag
            | {"id": "measured", "valueBoolean": False, "category": [{"coding": [{"code": "laboratory"}]}]},
            below,
            observation("huge", "2345-7", 1e300, "mg/dL"),
            observation("plain", "2345-7", 7, "mg/dL"),
        ]
    )
    export_meds(loaded.folder, tmp_path / "out")
    (table,) = events(tmp_path / "out")
    values = zip(*(table.column(name).to_pylist() for name in ("numeric_value", "text_value")), strict=True)
    assert Counter(value for value in values if value != (None, None)) == Counter(
        [(None, "true"), (None, "false"), (5.0, "<5.0"), (None, "1e+300"), (7.0, None)]
    )


def test_an_open_visit_and_its_open_details_have_no_end(load, tmp_path):
    start = {"start": "2021-05-02T10:00:00Z"}
    until = start | {"end": "2021-05-03T10:00:00Z"}
    loaded = load(
        [
            patient("ada"),
            encounter("open", status="in-progress", period=start),
            encounter("there", partOf={"reference": "Encounter/open"}, period=start),
            encounter("left", partOf={"reference": "Encounter/open"}, period=until),
            encounter("closed", period={"start": "2021-01-02T10:00:00Z", "end": "2021-01-04T10:00:00Z"}),
            encounter(
                "inside", partOf={"reference": "Encounter/closed"}, period={"start": "2021-01-02T10:00:00Z"}
            ),
        ]
    )
    counts = export_meds(loaded.folder, tmp_path / "out").events
    assert (counts["visit_occurrence"], counts["visit_occurrence_end"]) == (2, 1)
    assert (counts["visit_detail"], counts["visit_detail_end"]) == (3, 2)


def test_the_same_cdm_gives_the_same_bytes_and_replaces_only_an_export(cdm, tmp_path):
    when = datetime(2026, 1, 1, tzinfo=UTC)
    for name in ("a", "b", "b"):
        export_meds(cdm.folder, tmp_path / name, created=when)
    files = [
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")) for name in "ab"
    ]
    assert files[0] == files[1]
    assert all(
        (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files[0]
    )
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        export_meds(cdm.folder, tmp_path / "c")


def test_a_cdm_without_a_table_is_refused_and_nothing_is_left(cdm, tmp_path):
    broken = tmp_path / "cdm"
    broken.mkdir()
    for path in cdm.folder.glob("*.parquet"):
        (broken / path.name).symlink_to(path)
    (broken / "person.parquet").unlink()
    with pytest.raises(DataError, match="missing_table"):
        export_meds(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_events_of_nobody_are_refused(cdm, tmp_path):
    broken = tmp_path / "cdm"
    broken.mkdir()
    for path in cdm.folder.glob("*.parquet"):
        (broken / path.name).symlink_to(path)
    (broken / "person.parquet").unlink()
    person = pq.read_table(cdm.folder / "person.parquet")
    pq.write_table(person.sort_by("person_id").slice(1), broken / "person.parquet")
    with pytest.raises(DataError, match="dangling_person"):
        export_meds(broken, tmp_path / "out")
