"""Bad input: one clear line with a fix, exit code 2 (1 where the work says no), nothing half-written."""

import gzip
import json
import shutil
import socket
from pathlib import Path

import pytest
from simulator.commands import refused, run

from fedhealth.synthetic import write_consortium

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "infra" / "studies" / "demo-readmission.yaml"
SITES = ("hospital-01", "hospital-02", "hospital-03")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_consortium(folder, hospitals=3, patients=60, seed=5)
    return folder


@pytest.fixture
def place(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_text("this is no folder")
    return tmp_path


def sites(data, **changes):
    folders = {name: data / name / "fhir" for name in SITES} | {
        name.replace("_", "-"): folder for name, folder in changes.items()
    }
    return [f"--site={name}={folder}" for name, folder in folders.items() if folder is not None]


def study_with(place, text, by):
    content = STUDY.read_text()
    assert text in content
    path = place / "study.yaml"
    path.write_text(content.replace(text, by))
    return path


def left_in(place):
    return sorted(path.name for path in place.iterdir() if path.name not in ("empty", "a-file", "study.yaml"))


def test_a_missing_folder(place, data):
    result = run(
        place, "study", "run", STUDY, *sites(data, hospital_02=place / "nowhere"), "--workdir", "work"
    )
    refused(result, 2, "hospital-02", "nowhere", "does not exist")
    assert left_in(place) == []


def test_an_empty_site(place, data):
    result = run(place, "study", "run", STUDY, *sites(data, hospital_02=place / "empty"), "--workdir", "work")
    refused(result, 2, "hospital-02", "no FHIR file")
    assert left_in(place) == []


def test_two_sites_only(place, data):
    result = run(place, "study", "run", STUDY, *sites(data, hospital_02=None), "--workdir", "work")
    refused(result, 1, "2 sites", "fewer than 3")
    assert left_in(place) == []
    refused(run(place, "demo", "--hospitals", "2", "--workdir", "work"), 1, "2 sites")
    assert left_in(place) == []


def test_the_same_site_twice(place, data):
    twice = [*sites(data), f"--site=hospital-01={data / 'hospital-02' / 'fhir'}"]
    refused(run(place, "study", "run", STUDY, *twice, "--workdir", "work"), 2, "hospital-01", "twice")
    assert left_in(place) == []


@pytest.mark.parametrize(
    ("text", "by", "words"),
    [
        ("cohort:", "colour: blue\ncohort:", ("colour", "not a key", "cohort")),
        ("kind: mlp", "kind: lstm", ("model", "hidden", "lstm")),
        ("rounds: 10", "rounds: ten", ("training.rounds",)),
        ("cohort:", "cohort: [", ("not valid YAML",)),
        ("within_days: 30", "within_days: 0", ("within_days",)),
    ],
)
def test_a_study_that_is_wrong_is_named_with_its_place(place, data, text, by, words):
    study = study_with(place, text, by)
    refused(run(place, "study", "run", study, *sites(data), "--workdir", "work"), 2, *words)
    assert left_in(place) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("study", "run", STUDY), 2, ("--site", "--consortium")),
        (("study", "run", "nowhere.yaml", "--site=a=empty"), 2, ("nowhere.yaml", "cannot be read")),
        (("study", "run", STUDY, "--site=a"), 2, ("NAME=DIR",)),
        (("study", "run", STUDY, "--consortium=nowhere.yaml"), 2, ("nowhere.yaml",)),
        (("demo", "--workdir", "a-file"), 2, ("a-file", "cannot be made")),
        (("harmonize", "--fhir", "nowhere", "--cdm", "cdm"), 2, ("nowhere", "does not exist")),
        (("harmonize", "--fhir", "empty", "--cdm", "cdm"), 2, ("empty", "no FHIR file")),
        (("validate", "--cdm", "nowhere"), 2, ("no CDM folder",)),
        (("validate", "--cdm", "empty"), 1, ("gate is closed",)),
        (("audit", "verify", "empty"), 2, ("holds no run",)),
        (("audit", "verify", "nowhere"), 2, ("does not exist",)),
        (("synth", "--out", "a-file"), 2, ("a-file", "something else")),
        (("synth", "--out", "."), 2, ("something else",)),
        (("doctor", "--json", "nowhere/result.json"), 2, ("--json", "cannot be written")),
    ],
)
def test_a_wrong_argument(place, arguments, code, words):
    refused(run(place, *arguments), code, *words)
    assert left_in(place) == []


def test_a_truncated_gzip(place, data):
    whole = (data / "hospital-01" / "fhir" / "Observation.ndjson").read_bytes()
    (place / "empty" / "Observation.ndjson.gz").write_bytes(gzip.compress(whole)[:-3000])
    result = run(place, "harmonize", "--fhir", "empty", "--cdm", "cdm")
    refused(result, 2, "Observation.ndjson.gz", "cannot be read to its end", "gzip -t")
    assert not (place / "cdm").exists()


def test_lines_that_are_no_json(place):
    (place / "empty" / "Patient.ndjson").write_text("this is\nno json\n")
    result = run(place, "harmonize", "--fhir", "empty", "--cdm", "cdm")
    refused(result, 2, "none of the 2 lines", "FHIR R4")
    assert not (place / "cdm").exists()


def test_another_fhir_version(place):
    stay = {"resourceType": "Encounter", "id": "a", "status": "finished", "incomingReferral": []}
    (place / "empty" / "Encounter.ndjson").write_text(json.dumps(stay | {"class": {"code": "IMP"}}) + "\n")
    result = run(place, "harmonize", "--fhir", "empty", "--cdm", "cdm")
    refused(result, 2, "fhir_version", "as FHIR R4")
    assert not (place / "cdm").exists()


def test_a_port_in_use(place, data):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = ("study", "run", STUDY, *sites(data), "--workdir", "work")
        refused(run(place, *command, PREFECT_SERVER_API_PORT=port), 2, port, "PREFECT_SERVER_API_PORT")
        url = f"http://127.0.0.1:{port}/api"
        refused(run(place, *command, PREFECT_API_URL=url), 2, url, "unset PREFECT_API_URL")
    assert left_in(place) == []


@pytest.mark.slow
def test_one_class_in_the_whole_consortium_is_refused_by_the_study(place, data):
    study = study_with(place, "min_patients: 20", "min_patients: 1")
    study.write_text(study.read_text().replace("within_days: 30", "within_days: 1"))
    for resource in SITES:  # nobody comes back: one stay a patient
        for path in (data / resource / "fhir").glob("Encounter.ndjson"):
            first = {}
            for line in path.read_text().splitlines():
                stay = json.loads(line)
                first.setdefault(stay["subject"]["reference"], line)
            path.write_text("\n".join(first.values()) + "\n")
    maps = [f"--site-map={name}={data / name / 'site-map'}" for name in SITES]
    result = run(place, "study", "run", study, *sites(data), *maps, "--workdir", "work")
    refused(result, 1, "one class")
    assert not (place / "work" / "report.json").exists()


def test_debug_shows_the_traceback(place):
    result = run(place, "--debug", "harmonize", "--fhir", "nowhere", "--cdm", "cdm")
    assert "Traceback" in result.stderr


def test_what_was_lost_beyond_exceptions_is_named_on_screen(place):
    write_consortium(place / "fresh", hospitals=1, patients=60, seed=5)
    source = place / "fresh" / "hospital-01" / "fhir"
    options = ("--fhir", "twice", "--cdm", "twice-cdm", "--site-map", str(source.with_name("site-map")))
    shutil.copytree(source, place / "twice")
    clean = run(place, "harmonize", *options)
    assert clean.returncode == 0, clean.stderr
    assert "more was lost" not in clean.stdout
    shutil.copy(source / "Observation.ndjson", place / "twice" / "again.ndjson")
    result = run(place, "harmonize", *options)
    assert result.returncode == 0, result.stderr
    assert "losses/Observation/duplicate" in result.stdout.replace("\n", "")
