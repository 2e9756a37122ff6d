"""The heart benchmark's way in: UCI rows as FHIR, FHIR as a CDM, and FLamby's protocol on the same rows."""

import os
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from fedhealth.cdm import harmonize
from fedhealth.features import build_rows
from fedhealth.study import load_study
from fedhealth.study.columns import numeric_columns

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FEDHEALTH_DATA", ROOT.parent / "shared" / "data")) / "uci-heart"
sys.path.insert(0, str(ROOT / "benchmarks"))

from heart.fhir import CHEST_PAIN, ECG, resources_of, write_hospital  # noqa: E402
from heart.plain import FLAMBY, federated_average  # noqa: E402
from heart.protocol import HOSPITALS, assign_folds, complete_arrays, read_rows  # noqa: E402

FILE = """\
61,1,4,150,0,1,2,99,1,-.5,2,?,?,3
44.0,0.0,1.0,118.0,242.0,0.0,1.0,149.0,0.0,0.3,2.0,1.0,3.0,0
35,0,2,?,?,?,?,?,?,?,?,?,?,0
52,1,3,140,199,0,0,162,0,1.2,1,0,7,0
70,1,1,0,211,?,1,120,1,2,?,?,?,1
"""
COMPLETE = [True, True, False, True, False]
OTHERS = 11 * "58,1,4,125,220,0,2,144,0,.4,2,?,?,1\n"
"""What else a hospital needs for its codes of observations to stay: enough people who carry them."""
VARIED = "".join(
    f"{40 + n},{n % 2},{n % 4 + 1},{110 + n},{200 + n},{n % 2},{n % 3},{150 - n},{n % 2},{n / 10},2,?,?,{n % 2}\n"
    for n in range(40)
)


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "processed.somewhere.data"
    file.write_text(FILE)
    return read_rows(file)


@pytest.fixture(scope="module")
def harmonised(tmp_path_factory):
    """The account and the CDM of a hospital of 16 people, two of whom alone have a typical angina."""
    folder = tmp_path_factory.mktemp("heart")
    (folder / "file").write_text(FILE + OTHERS)
    write_hospital(folder / "somewhere", "somewhere", read_rows(folder / "file"))
    return cdm_of(folder / "somewhere")


def cdm_of(hospital):
    accounting = harmonize(
        hospital / "fhir",
        hospital / "cdm",
        site="somewhere",
        site_map=hospital / "site-map",
        site_secret=bytes(32),
        validate="all",
    )
    return accounting, hospital / "cdm"


def ask(cdm, query):
    """Rows of a query in which a table stands as @table, by the birth year of the person."""
    for name in ("measurement", "observation", "condition_occurrence", "visit_occurrence", "person"):
        query = query.replace(f"@{name}", f"'{cdm / name}.parquet'")
    return duckdb.sql(query).fetchall()


def test_a_complete_row_says_all_that_the_file_says(rows):
    said = {
        each["id"].removeprefix("heart-x-1"): each for each in resources_of(rows[0], "heart-x-1", fold="test")
    }
    assert said[""]["gender"] == "male"
    assert said[""]["birthDate"] == "1927-01-01"
    assert said["-visit"]["class"]["code"] == "AMB"
    values = {
        each["code"]["coding"][0]["code"]: next(each[key] for key in each if key.startswith("value"))
        for each in said.values()
        if each["resourceType"] == "Observation"
    }
    assert {code: value.get("value") for code, value in values.items() if "value" in dict(_items(value))} == {
        "8480-6": 150.0,
        "2093-3": 0.0,
        "1558-6": 120,
        "thalach": 99.0,
        "oldpeak": -0.5,
    }
    assert values["1558-6"]["comparator"] == ">"
    assert {code: value["code"] for code, value in values.items() if "code" in dict(_items(value))} == {
        "8480-6": "mm[Hg]",
        "2093-3": "mg/dL",
        "1558-6": "mg/dL",
        "thalach": "/min",
        "oldpeak": "mm",
    }
    assert {
        code: value["coding"][0]["code"] for code, value in values.items() if "coding" in dict(_items(value))
    } == {
        "cp": "asymptomatic",
        "restecg": "left-ventricular-hypertrophy",
        "split": "test",
    }
    assert values["exang"] is True
    assert said["-chd"]["verificationStatus"]["coding"][0]["code"] == "confirmed"
    assert said["-chd"]["recordedDate"] > said["-visit"]["period"]["end"]


def _items(value):
    return value.items() if isinstance(value, dict) else ()


def test_what_the_file_does_not_have_has_no_resource(rows):
    said = list(resources_of(rows[2], "heart-x-3", fold=None))
    observed = {each["code"]["coding"][0]["code"] for each in said if each["resourceType"] == "Observation"}
    assert observed == {"cp"}
    (diagnosis,) = [each for each in said if each["resourceType"] == "Condition"]
    assert diagnosis["verificationStatus"]["coding"][0]["code"] == "refuted"
    assert "clinicalStatus" not in diagnosis


def test_the_same_rows_give_the_same_bytes(tmp_path, rows):
    for name in ("a", "b"):
        write_hospital(tmp_path / name, "x", rows)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_complete_cases_alone_are_the_same_persons(tmp_path, rows):
    for name, complete_only in (("all", False), ("complete", True)):
        write_hospital(tmp_path / name, "x", rows, complete_only=complete_only)
    lines = [
        (tmp_path / name / "fhir" / "Patient.ndjson").read_text().splitlines() for name in ("all", "complete")
    ]
    assert lines[1] == [line for line, is_complete in zip(lines[0], COMPLETE, strict=True) if is_complete]


def test_all_of_it_is_valid_fhir_and_loaded(harmonised):
    accounting, _ = harmonised
    for counts in accounting.resources.values():
        assert counts.read == counts.loaded > 0
    assert list(accounting.findings) == []
    assert accounting.resources["Patient"].read == 16
    assert accounting.values.loaded == accounting.values.read


def test_numbers_arrive_in_their_tables_and_units(harmonised):
    _, cdm = harmonised
    query = (
        "SELECT split_part(measurement_source_value, '|', 2), unit_source_value, value_as_number, operator_concept_id "
        "FROM @measurement m JOIN @person p USING (person_id) WHERE year_of_birth = {year}"
    )
    assert sorted(ask(cdm, query.format(year=1988 - 61))) == [
        ("1558-6", "mg/dL", 120.0, 4172704),
        ("2093-3", "mg/dL", 0.0, None),
        ("8480-6", "mm[Hg]", 150.0, None),
        ("oldpeak", "mm", -0.5, None),
        ("thalach", "/min", 99.0, None),
    ]
    assert ("1558-6", "mg/dL", 120.0, 4171754) in ask(cdm, query.format(year=1988 - 44))
    assert ask(cdm, query.format(year=1988 - 35)) == []


def test_codes_stay_though_fewer_than_11_people_carry_them(harmonised):
    _, cdm = harmonised
    query = (
        "SELECT split_part(observation_source_value, '|', 2), value_as_string FROM @observation o "
        "JOIN @person p USING (person_id) WHERE year_of_birth = {year} AND observation_source_value NOT LIKE '%split'"
    )
    assert sorted(ask(cdm, query.format(year=1988 - 44))) == [
        ("cp", "urn:fedhealth:heart|typical-angina"),
        ("exang", "false"),
        ("restecg", "urn:fedhealth:heart|st-t-abnormality"),
    ]


def test_the_diagnosis_follows_the_visit_and_is_confirmed_or_refuted(harmonised):
    _, cdm = harmonised
    found = ask(
        cdm,
        "SELECT year_of_birth, condition_source_value, condition_status_concept_id, "
        "condition_start_datetime > visit_end_datetime, date_sub('year', birth_datetime, visit_start_datetime) "
        "FROM @condition_occurrence JOIN @visit_occurrence v USING (visit_occurrence_id, person_id) "
        "JOIN @person USING (person_id) WHERE year_of_birth <> 1930 ORDER BY year_of_birth DESC",
    )
    icd, confirmed, refuted = "http://hl7.org/fhir/sid/icd-10-cm|I25.10", 32893, 2_000_000_001
    assert found == [
        (1988 - age, icd, status, True, age)
        for age, status in ((35, refuted), (44, refuted), (52, refuted), (61, confirmed), (70, confirmed))
    ]


def columns_of(rows, study):
    """FLamby's 13 columns, the diagnosis and the fold, from what a site trains on."""
    numbers = dict(zip((column.name for column in numeric_columns(study)), rows.features.T, strict=True))

    def level(category, code):
        return rows.levels[:, category] == rows.level_names[category].index(code)

    house, pain, ecg, angina = "urn:fedhealth:heart|", 0, 1, 2
    return np.column_stack(
        [
            numbers["age"],
            1 - numbers["sex"],
            numbers["systolic_bp_last"],
            numbers["cholesterol_last"],
            numbers["sugar_over_120_last"],
            numbers["max_heart_rate_last"],
            level(angina, "true"),
            numbers["st_depression_last"],
            *(level(pain, house + CHEST_PAIN[each]) for each in (2, 3, 4)),
            *(level(ecg, house + ECG[each]) for each in (1, 2)),
            rows.labels[:, 0],
            rows.is_test,
        ]
    )


def in_order(table):
    return table[np.lexsort(table.T)]


def test_what_the_study_trains_on_is_what_flamby_trains_on(tmp_path):
    file = tmp_path / "file"
    file.write_text(FILE + VARIED)
    write_hospital(tmp_path / "somewhere", "somewhere", read_rows(file), complete_only=True)
    study = load_study(ROOT / "infra" / "studies" / "heart.yaml")
    found, _ = build_rows(cdm_of(tmp_path / "somewhere")[1], study, site_secret=bytes(32))
    arrays = complete_arrays(read_rows(file))
    theirs = np.column_stack([arrays.features, arrays.is_diseased, arrays.is_test])
    assert len(theirs) == 43
    np.testing.assert_allclose(in_order(columns_of(found, study)), in_order(theirs), rtol=1e-6)


def test_flambys_columns_are_the_raw_numbers_and_the_levels_but_the_first(rows):
    arrays = complete_arrays(rows)
    assert [row.is_complete for row in rows] == COMPLETE
    assert arrays.features.tolist() == [
        [61, 1, 150, 0, 1, 99, 1, -0.5, 0, 0, 1, 0, 1],
        [44, 0, 118, 242, 0, 149, 0, 0.3, 0, 0, 0, 1, 0],
        [52, 1, 140, 199, 0, 162, 0, 1.2, 0, 1, 0, 0, 0],
    ]
    assert arrays.is_diseased.tolist() == [True, False, False]
    assert [fold is not None for fold in assign_folds(rows)] == COMPLETE


def test_a_line_of_another_length_is_refused(tmp_path):
    file = tmp_path / "processed.wrong.data"
    file.write_text("61,1,4,150\n")
    with pytest.raises(ValueError, match="14 fields"):
        read_rows(file)


public = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the UCI heart data is not at {DATA}; set FEDHEALTH_DATA"
)


@pytest.fixture(scope="module")
def hospitals():
    return [complete_arrays(read_rows(DATA / f"processed.{file}.data")) for file in HOSPITALS]


@public
def test_the_public_files_have_flambys_sizes(hospitals):
    sizes = [(int((~each.is_test).sum()), int(each.is_test.sum())) for each in hospitals]
    assert sizes == [(199, 104), (172, 89), (30, 16), (85, 45)]


@public
def test_flambys_published_figure_is_reproduced(hospitals):
    found = [federated_average(hospitals, FLAMBY, seed=seed) for seed in range(42, 47)]
    assert np.mean([each.mean_site for each in found]) == pytest.approx(0.685, abs=0.005)
    assert np.mean([each.pooled for each in found]) == pytest.approx(0.748, abs=0.005)
