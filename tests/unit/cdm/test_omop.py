"""A hospital's own OMOP as a CDM of ours: the same rows under other ids, the same de-identification, an exact account."""

import gzip
import json

import duckdb
import pytest
from simulator.hospital import SECRET, Loaded, key

from fedhealth.cdm import harmonize
from fedhealth.cdm.accounting import read_accounting
from fedhealth.cdm.consent import read_consents
from fedhealth.cdm.omop import import_omop
from fedhealth.cdm.tables import TABLES
from fedhealth.errors import ConfigError, DataError
from fedhealth.synthetic.consortium import generate_hospital
from fedhealth.validation import validate_cdm
from fedhealth.validation.losses import find_losses

PERSON = "person_id,gender_concept_id,year_of_birth,race_concept_id,ethnicity_concept_id,person_source_value"
VISIT = "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date,visit_type_concept_id"
MEASURED = (
    "measurement_id,person_id,measurement_concept_id,measurement_date,measurement_type_concept_id,"
    "value_as_number,visit_occurrence_id,measurement_source_value,unit_source_value"
)
ADA, BO = "1,8532,1950,0,0,MRN-77001", "2,8507,1990,0,0,MRN-77002"
STAY = "10,1,9201,2021-05-01,2021-05-04,32817"


def write(folder, **tables):
    folder.mkdir(exist_ok=True)
    for name, (header, *rows) in tables.items():
        (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


@pytest.fixture
def take(tmp_path):
    """Import the OMOP of CSV tables."""

    def run(site_map=None, profile=None, secret=SECRET, **tables):
        source = write(tmp_path / "source", **tables)
        account = import_omop(
            str(source),
            tmp_path / "cdm",
            site="house",
            site_map=site_map,
            site_secret=secret,
            profile=profile,
        )
        return Loaded(tmp_path / "cdm", account)

    return run


@pytest.fixture(scope="module")
def harmonised(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "fhir").mkdir()
    for kind, lines in generate_hospital(4, patients=40, seed=5)[2].items():
        (folder / "fhir" / f"{kind}.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    harmonize(folder / "fhir", folder / "cdm", site="house", site_secret=SECRET, validate="off")
    return folder / "cdm"


def without_ids(folder, table):
    columns = [
        column.name
        for column in TABLES[table].columns
        if not column.name.endswith("_id") or column.name.endswith("concept_id")
    ]
    with duckdb.connect(":memory:") as database:
        names = ", ".join(columns)
        return database.execute(f"SELECT {names} FROM '{folder / table}.parquet' ORDER BY ALL").fetchall()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_cdm_of_ours_taken_as_anothers_has_the_same_rows_under_other_ids(harmonised, tmp_path, form):
    source = harmonised
    if form == "csv":
        source = tmp_path / "csv"
        source.mkdir()
        with duckdb.connect(":memory:") as database:
            for table in TABLES:
                database.execute(
                    f"COPY (FROM '{harmonised / table}.parquet') TO '{source / table.upper()}.CSV' (HEADER)"
                )
    account = import_omop(str(source), tmp_path / "cdm", site="house", site_secret=SECRET)
    for table in TABLES:
        if table != "cdm_source":
            assert without_ids(tmp_path / "cdm", table) == without_ids(harmonised, table), table
    assert account.tables["measurement"] > 1000
    assert all(count.read == count.loaded for count in account.resources.values())
    assert read_accounting(tmp_path / "cdm") == account
    report = validate_cdm(tmp_path / "cdm")
    assert report.passed, report.reason


def test_the_links_between_the_tables_stay(harmonised, tmp_path):
    import_omop(str(harmonised), tmp_path / "cdm", site="house", site_secret=SECRET)
    query = (
        "SELECT v.visit_start_date, v.visit_concept_id, m.measurement_date, m.value_as_number, p.year_of_birth "
        "FROM '{0}/measurement.parquet' m JOIN '{0}/visit_occurrence.parquet' v USING (visit_occurrence_id, person_id) "
        "JOIN '{0}/person.parquet' p USING (person_id) ORDER BY ALL"
    )
    with duckdb.connect(":memory:") as database:
        ours = database.execute(query.format(tmp_path / "cdm")).fetchall()
        theirs = database.execute(query.format(harmonised)).fetchall()
    assert ours == theirs
    assert len(ours) > 500


def test_ids_are_keyed_and_the_hospitals_own_are_in_private_only(take):
    loaded = take(person=[PERSON, ADA], visit_occurrence=[VISIT, STAY])
    assert loaded.column("person", "person_id") == [key("Person/1")]
    assert loaded.one("visit_occurrence", "visit_occurrence_id", "person_id") == (
        key("Visit/10"),
        key("Person/1"),
    )
    assert ("visit_occurrence", key("Visit/10"), "10") in loaded.rows("private/id_map")
    assert take(person=[PERSON, ADA], visit_occurrence=[VISIT, STAY], secret=bytes(32)).column(
        "person", "person_id"
    ) != [key("Person/1")]


def test_what_we_do_not_know_is_not_read(take):
    loaded = take(
        person=[PERSON, ADA],
        visit_occurrence=[VISIT + ",provider_id,note", STAY + ",7,SECRETWORD"],
        note=["note_id,person_id,note_text", "1,1,SECRETWORD"],
    )
    for path in loaded.folder.rglob("*"):
        if path.suffix == ".parquet":
            with duckdb.connect(":memory:") as database:
                text = str(database.execute(f"FROM '{path}'").fetchall())
            assert "SECRETWORD" not in text
            assert "MRN-77001" not in text


def test_rows_that_cannot_be_used_are_quarantined_with_their_reason(take):
    loaded = take(
        person=[PERSON, ADA, BO, BO, "3,x,1990,0,0,y"],
        visit_occurrence=[
            VISIT,
            STAY,
            "11,9,9201,2021-05-01,2021-05-02,32817",
            "12,1,9201,soon,2021-05-02,32817",
        ],
        measurement=[
            MEASURED,
            "1,1,3027018,2021-05-02,32817,80,10,8867-4,/min",
            "2,1,3027018,2021-05-02,32817,high,99,8867-4,/min",
            "3,2,3027018,2021-05-02,32817,70,,8867-4,/min",
        ],
        death=["person_id,death_date,death_type_concept_id", "1,2021-06-02,32817", "1,2021-06-01,32817"],
    )
    assert loaded.reasons("person") == {"quarantined:duplicate_key": 2, "quarantined:missing_required": 1}
    assert loaded.reasons("visit_occurrence") == {
        "quarantined:dangling_person": 1,
        "quarantined:missing_required": 1,
    }
    assert loaded.reasons("measurement") == {"quarantined:dangling_person": 1}
    assert loaded.reasons("death") == {"quarantined:duplicate_key": 1}
    assert loaded.column("death", "death_date")[0].isoformat() == "2021-06-01"
    assert loaded.account.notes == {"value_unreadable": 3}  # a concept, a day, a number
    assert sorted(loaded.rows("measurement", "value_as_number", "visit_occurrence_id"), key=str) == [
        (80.0, key("Visit/10")),
        (None, None),
    ]
    assert len(loaded.rows("private/quarantine")) == 7


def test_dates_and_births_follow_the_profile(take):
    tables = {
        "person": [PERSON, "1,8532,1920,0,0,x"],
        "visit_occurrence": [
            VISIT + ",discharged_to_concept_id",
            STAY + ",8536",
            "11,1,9201,2021-08-01,2022-01-01,32817,32220",
        ],
    }
    loaded = take(profile="safe-harbor", **tables)
    starts = loaded.column("visit_occurrence", "visit_start_date")
    assert str(min(starts)) == "2021-01-01"
    assert (max(starts) - min(starts)).days == 92
    ends = dict(loaded.rows("visit_occurrence", "visit_start_date", "visit_end_date"))
    assert (ends[max(starts)] - max(starts)).days == 92  # still a patient: the extract's day is not told
    assert loaded.column("person", "year_of_birth") == [max(starts).year - 90]
    assert loaded.record()["profile"] == "safe-harbor"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("8867-4", "8867-4"),
        ("I50.9", "I50.9"),
        ("http://loinc.org|8867-4", "http://loinc.org|8867-4"),
        ("Quillfeather", "other"),
        ("MRN77001", "other"),
        ("urn:x|Quillfeather", "|other"),
    ],
)
def test_source_values_follow_the_rule_of_rare_codes(take, value, shown):
    row = f"1,1,3027018,2021-05-02,32817,80,10,{value},Quill feather"
    loaded = take(person=[PERSON, ADA], visit_occurrence=[VISIT, STAY], measurement=[MEASURED, row])
    assert loaded.one("measurement", "measurement_source_value", "unit_source_value") == (shown, "other")


def test_text_values_are_codes_numbers_and_flags_or_go(take):
    header = "observation_id,person_id,observation_concept_id,observation_date,observation_type_concept_id,value_as_string"
    texts = ("Maria Quill", "Maria", "19870412", "true", "http://snomed.info/sct|266919005")
    people = [PERSON, *(f"{n},8532,1950,0,0,x" for n in range(1, 13))]
    rows = [f"{n}{i},{n},0,2021-05-02,32817,{text}" for n in range(1, 13) for i, text in enumerate(texts)]
    loaded = take(person=people, visit_occurrence=[VISIT, STAY], observation=[header, *rows])
    assert set(loaded.column("observation", "value_as_string")) == {"other", *texts[3:]}


IN_UNITS = MEASURED + ",unit_concept_id,range_low,range_high"


@pytest.mark.parametrize(
    ("value", "spelling", "concept", "canonical"),
    [
        ("90", "mg/dL", "8840", 90.0),
        ("5", "mmol/L", "8753", 90.08),
        ("5", "", "8753", 90.08),
        ("5", "mmol/l", "", 90.08),
        ("5", "mmol/l", "0", 90.08),
        ("90", "mmol/L", "8840", 90.0),  # the value is in the unit of the concept, whatever it once was
        ("5", "mmol/L", "4000000", 90.08),  # a concept that is not known says nothing
        ("5", "", "4000000", None),
        ("90", "mg/dL", "8876", None),  # millimetres of mercury
        ("5", "", "", None),
        ("5", "furlong", "0", None),
        ("1e308", "mmol/L", "8753", None),
    ],
)
def test_numbers_are_brought_to_the_unit_of_their_concept(take, value, spelling, concept, canonical):
    row = f"1,1,3004501,2021-05-02,32817,{value},10,2345-7,{spelling},{concept},4,6"
    loaded = take(person=[PERSON, ADA], visit_occurrence=[VISIT, STAY], measurement=[IN_UNITS, row])
    number, unit, low = loaded.one("measurement", "value_as_number", "unit_concept_id", "range_low")
    if canonical is None:
        assert (number, unit, low) == (None, 0, None)
        assert sum(loaded.account.values.quarantined.values()) == 1
        assert loaded.rows("private/quarantine", "resource_type", "line") == [("measurement", 1)]
    else:
        assert number == pytest.approx(canonical)
        assert unit == 8840
        assert low == pytest.approx(4 * canonical / float(value))
        assert loaded.account.values.loaded == 1
        assert loaded.account.values.converted == (canonical != float(value))


def test_numbers_that_cannot_be_read_are_a_loss(take):
    rows = [f"{n};1;3004501;2021-05-02;32817;5,{n};10;2345-7;mmol/L" for n in range(1, 10)]
    loaded = take(
        person=[PERSON, ADA], visit_occurrence=[VISIT, STAY], measurement=[MEASURED.replace(",", ";"), *rows]
    )
    assert loaded.account.values.quarantined == {"unreadable": 9}
    assert [loss.code for loss in find_losses(loaded.account) if loss.of == "values"] == [
        "losses/values/unreadable"
    ]


def test_a_missing_unit_is_inferred_where_the_site_allows_it(take, tmp_path):
    (tmp_path / "map").mkdir()
    (tmp_path / "map" / "site.yaml").write_text("unit_inference: true\n")
    rows = [
        "1,1,3020891,2021-05-02,32817,98.6,10,8310-5,,0,,",
        "2,1,3020891,2021-05-02,32817,37,10,8310-5,,0,,",
    ]
    loaded = take(
        tmp_path / "map", person=[PERSON, ADA], visit_occurrence=[VISIT, STAY], measurement=[IN_UNITS, *rows]
    )
    assert loaded.column("measurement", "value_as_number") == pytest.approx([37.0, 37.0])
    assert (loaded.account.values.read, loaded.account.values.inferred) == (2, 2)


def test_a_measurement_without_a_unit_of_ours_stays_as_it_came(take):
    row = "1,1,3006923,2021-05-02,32817,21,10,1742-6,U/L,8645,7,55"
    loaded = take(person=[PERSON, ADA], visit_occurrence=[VISIT, STAY], measurement=[IN_UNITS, row])
    assert loaded.one("measurement", "value_as_number", "unit_concept_id", "range_high") == (21.0, 8645, 55.0)
    assert loaded.account.values.read == 0


def test_codes_without_a_concept_are_reported(take):
    rows = [f"{n},1,0,2021-05-02,32817,80,10,8867-4,/min" for n in range(3)]
    loaded = take(person=[PERSON, ADA], visit_occurrence=[VISIT, STAY], measurement=[MEASURED, *rows])
    assert [(u.code, u.unit, u.n) for u in loaded.account.unmapped] == [("8867-4", "/min", 3)]


def test_the_sites_settings_count(take, tmp_path):
    (tmp_path / "map").mkdir()
    (tmp_path / "map" / "site.yaml").write_text("consent_default: opt-in\nextract_date: 2021-12-31\n")
    loaded = take(site_map=tmp_path / "map", person=[PERSON, ADA], visit_occurrence=[VISIT, STAY])
    assert read_consents(loaded.folder)[1].default == "opt-in"
    assert str(loaded.column("observation_period", "observation_period_end_date")[0]) == "2021-12-31"


def test_the_same_source_gives_the_same_bytes_in_any_order(take, tmp_path):
    people = [PERSON, ADA, BO]
    one = take(person=people, visit_occurrence=[VISIT, STAY]).digests()
    assert take(person=[people[0], *people[:0:-1]], visit_occurrence=[VISIT, STAY]).digests() == one


def test_what_is_no_omop_is_refused_with_one_fix(take, tmp_path):
    with pytest.raises(ConfigError, match="no such OMOP folder"):
        import_omop(str(tmp_path / "nowhere"), tmp_path / "x", site="house", site_secret=SECRET)
    with pytest.raises(ConfigError, match="no table visit_occurrence"):
        take(person=[PERSON, ADA])
    with pytest.raises(DataError, match="lacks gender_concept_id"):
        take(person=["person_id,year_of_birth", "1,1950"], visit_occurrence=[VISIT, STAY])
    with pytest.raises(DataError, match="no person"):
        take(person=[PERSON, "x,8532,1950,0,0,SECRETWORD"], visit_occurrence=[VISIT, STAY])
    assert not (tmp_path / "cdm").exists()


GOOD = "\n".join(
    [PERSON, *(f"{n},8532,1950,0,0,SECRETWORD-{n * 7919 % 10007}" for n in range(20_000))]
).encode()
BROKEN = {
    "a header of no more than half a block": ("person.csv.gz", gzip.compress(GOOD)[:12]),
    "a cut-off end": ("person.csv.gz", gzip.compress(GOOD)[:-2000]),
    "no gzip": ("person.csv.gz", GOOD),
    "a header in Latin-1": ("person.csv", f"{PERSON},größe\n{ADA},1\n".encode("latin-1")),
    "a row in Latin-1": ("person.csv", GOOD + "\n20001,8532,195ö,0,0,SECRETWORD\n".encode("latin-1")),
    "a row that is too short": ("person.csv", GOOD + b"\n20001,8532\n"),
    "a row that is too long": ("person.csv", GOOD + b"\n20001,8532,1950,0,0,SECRETWORD,1,1\n"),
    "no Parquet": ("person.parquet", GOOD),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_file_that_cannot_be_read_is_named_and_none_of_its_values(tmp_path, broken):
    source = write(tmp_path / "source", visit_occurrence=[VISIT, STAY])
    name, data = BROKEN[broken]
    (source / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        import_omop(str(source), tmp_path / "cdm", site="house", site_secret=SECRET)
    assert str(caught.value).startswith(f"the file {name} cannot be read to its end")
    assert "Fix: export or copy it again" in str(caught.value)
    assert "SECRETWORD" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_record_is_written(take):
    record = take(person=[PERSON, ADA], visit_occurrence=[VISIT, STAY]).record()
    assert (record["site"], record["profile"]) == ("house", "local-only")
    assert SECRET.hex() not in json.dumps(record)


def test_apostrophes_and_late_quotes_are_read_as_they_stand(take):
    header = "observation_id,person_id,observation_concept_id,observation_date,observation_type_concept_id,value_as_string"
    texts = ("'abc", "abc'", '"a, ""b"""', '"two\nlines"')
    rows = [f"{n},1,0,2021-05-02,32817,{texts[n % 2]}" for n in range(30_000)]
    rows += [f"{30_000 + n},1,0,2021-05-02,32817,{text}" for n, text in enumerate(texts[2:])]
    loaded = take(person=[PERSON, ADA], visit_occurrence=[VISIT, STAY], observation=[header, *rows])
    count = loaded.account.resources["observation"]
    assert (count.read, count.loaded) == (30_002, 30_002)


@pytest.mark.parametrize("profile", ["local-only", "limited-dataset", "safe-harbor"])
def test_dates_that_are_none_stop_nothing_and_move_nobodys_follow_up(take, profile):
    person = PERSON + ",month_of_birth,day_of_birth"
    loaded = take(
        profile=profile,
        person=[person, ADA + ",13,1", BO + ",2,30", "3,8532,195000000,0,0,x,1,1"],
        visit_occurrence=[
            VISIT,
            STAY,
            "11,2,9201,2021-05-01,9999-12-31,32817",
            "12,2,9201,2021-05-01,20210-07-14,32817",
            "13,2,9201,2021-05-01,2099-12-31,32817",
        ],
    )
    assert loaded.account.resources["person"].quarantined == {"missing_required": 1}
    assert loaded.account.resources["visit_occurrence"].quarantined == {"missing_required": 2}
    ends = loaded.column("observation_period", "observation_period_end_date")
    assert max(ends).year <= 2022


def test_local_concepts_become_none_and_care_sites_stay(take):
    condition = (
        "condition_occurrence_id,person_id,condition_concept_id,condition_start_date,condition_type_concept_id,"
        "condition_source_concept_id"
    )
    loaded = take(
        person=[PERSON + ",care_site_id", ADA + ",5"],
        visit_occurrence=[VISIT + ",care_site_id", STAY + ",5"],
        care_site=["care_site_id,place_of_service_concept_id,care_site_name", "5,0,SECRETWORD"],
        condition_occurrence=[condition, "1,1,2000000017,2021-05-02,32817,2000000018"],
    )
    assert loaded.one("condition_occurrence", "condition_concept_id", "condition_source_concept_id") == (0, 0)
    assert loaded.one("visit_occurrence", "care_site_id") == loaded.one("care_site", "care_site_id")
    assert loaded.column("care_site", "care_site_name") == [None]
