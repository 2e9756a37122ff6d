import hashlib
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fedhealth.errors import ConfigError
from fedhealth.synthetic import oracle_auc, write_consortium
from fedhealth.synthetic.consortium import write_hospital


@pytest.fixture(scope="module")
def consortium(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consortium")
    for index in range(6):
        write_hospital(folder, index, patients=40, seed=3)
    return folder


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def resources(consortium, hospital, kind):
    path = consortium / hospital / "fhir" / f"{kind}.ndjson"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(consortium, tmp_path):
    write_hospital(tmp_path / "same", 0, patients=40, seed=3)
    write_hospital(tmp_path / "other", 0, patients=40, seed=4)
    before = digests(consortium / "hospital-01")
    assert digests(tmp_path / "same" / "hospital-01") == before
    assert digests(tmp_path / "other" / "hospital-01") != before


def test_a_hospital_does_not_depend_on_how_many_others_there_are(consortium, tmp_path):
    written = write_consortium(tmp_path, hospitals=2, patients=40, seed=3)
    assert set(written.patients) == {"hospital-01", "hospital-02"}
    for name in written.patients:
        assert digests(tmp_path / name) == digests(consortium / name)


@pytest.mark.parametrize(
    "kind",
    [
        "Patient",
        "Encounter",
        "Condition",
        "Observation",
        "MedicationRequest",
        "MedicationAdministration",
        "Procedure",
        "Organization",
    ],
)
def test_every_kind_of_resource_is_valid_r4(consortium, kind):
    model = getattr(import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
    for hospital in ("hospital-01", "hospital-02", "hospital-06"):
        for resource in resources(consortium, hospital, kind)[:15]:
            model.model_validate(resource)


def test_dialects_differ_in_units_classes_panels_and_codes(consortium):
    units, classes, panels, systems = set(), set(), set(), set()
    for number in range(1, 7):
        hospital = f"hospital-{number:02d}"
        classes |= {each["class"]["code"] for each in resources(consortium, hospital, "Encounter")}
        for each in resources(consortium, hospital, "Observation"):
            panels.add("component" in each)
            systems.add(each["code"]["coding"][0]["system"])
            if "valueQuantity" in each:
                units.add(each["valueQuantity"]["unit"])
    assert {"mg/dL", "umol/L", "mEq/L", "mmol/L"} <= units
    assert {"IMP", "inpatient", "S"} <= classes
    assert panels == {True, False}
    assert "urn:hospital-04:lab" in systems


def test_the_bound_is_the_auc_of_the_probabilities(tmp_path):
    columns = {"encounter_id": ["a", "b", "c", "d"], "hours": [50.0] * 4, "died": [False] * 4}
    columns["p_death"] = [0.1] * 4

    def bound(probabilities, labels):
        table = pa.table({**columns, "p_readmission": probabilities, "readmitted": labels})
        (tmp_path / "hospital-01").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "hospital-01" / "truth.parquet")
        return oracle_auc([tmp_path / "hospital-01"])

    ordered = bound([0.1, 0.2, 0.8, 0.9], [False, False, True, True])
    assert ordered == {"readmission": 1.0, "death": None}
    assert bound([0.5] * 4, [False, True, False, True])["readmission"] == 0.5
    assert bound([0.9, 0.8, 0.2, 0.1], [False, False, True, True])["readmission"] == 0.0


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="something else"):
        write_consortium(tmp_path, hospitals=1, patients=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_of_an_earlier_consortium_nothing_stays_but_what_others_put_there(tmp_path):
    write_consortium(tmp_path / "old", hospitals=4, patients=15, seed=1)
    (tmp_path / "old" / "hospital-03" / "cdm").mkdir()
    write_consortium(tmp_path / "old", hospitals=2, patients=15, seed=2)
    write_consortium(tmp_path / "new", hospitals=2, patients=15, seed=2)
    assert digests(tmp_path / "old") == digests(tmp_path / "new")
    assert (tmp_path / "old" / "hospital-03" / "cdm").is_dir()
    assert not (tmp_path / "old" / "hospital-04").exists()


def test_an_unfinished_consortium_has_no_list_of_sites_and_can_be_written_again(tmp_path):
    write_consortium(tmp_path, hospitals=2, patients=15, seed=1)
    before = digests(tmp_path)

    def stop(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_consortium(tmp_path, hospitals=2, patients=15, seed=1, progress=stop)
    assert not (tmp_path / "consortium.yaml").exists()
    write_consortium(tmp_path, hospitals=2, patients=15, seed=1)
    assert digests(tmp_path) == before


def test_the_command_writes_every_hospital_and_names_the_next_step(tmp_path):
    command = [
        str(Path(sys.executable).parent / "fedhealth"),
        "synth",
        "--hospitals",
        "3",
        "--patients",
        "20",
    ]
    done = subprocess.run(
        [*command, "--out", "consortium"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    out = tmp_path / "consortium"
    listed = yaml.safe_load((out / "consortium.yaml").read_text())
    assert [site["name"] for site in listed["sites"]] == ["hospital-01", "hospital-02", "hospital-03"]
    for site in listed["sites"]:
        assert {path.suffix for path in (out / site["fhir"]).iterdir()} == {".ndjson"}
        assert len(resources(out, site["name"], "Patient")) >= 12
        assert (out / site["site_map"] / "site.yaml").is_file()
    assert "fedhealth study run STUDY.yaml --consortium consortium/consortium.yaml" in done.stdout


@pytest.mark.parametrize(("hospitals", "patients"), [(0, 10), (3, 0)])
def test_an_empty_consortium_is_refused(tmp_path, hospitals, patients):
    with pytest.raises(ConfigError, match="at least one"):
        write_consortium(tmp_path / "new", hospitals=hospitals, patients=patients)
    assert not (tmp_path / "new").exists()
