"""Marked values are planted in the data of six hospitals; nothing outside a hospital's own folder may hold one."""

import base64
import gzip
import json
import os
import pickle
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from simulator.search import a_moment, a_number, a_text, a_whole_number, files_with, found_in

from fedhealth.cdm import harmonize
from fedhealth.synthetic import write_consortium

ROOT = Path(__file__).parents[2]
FEDHEALTH = str(Path(sys.executable).parent / "fedhealth")
SITES = tuple(f"hospital-{number:02d}" for number in range(1, 7))
MARKED, BROKEN_ROWS, MARKED_TOO, WRONG_UNITS, WRONG_COLUMN, CUT_FILE = SITES
NUMBER = 173.90210347
MOMENT = datetime(1932, 5, 18, 3, 14, 15)
TEXTS = {
    "patient id": "zqmark-patient-7",
    "record number": "ZQMARKMRN7",
    "family name": "Zqmarkovski",
    "address": "7 Zqmark Alley",
    "telephone": "555-7739021",
    "stay id": "zqmark-stay-7",
    "note": "Zqmark fell from a ladder",
    "display": "Zqmark disease, local text",
    "birth date": "1931-04-17",
    "text where DuckDB wants a number": "zqmark-not-a-number",
    "number that no double holds": "7.73902103e999",
    "text where pydantic wants a date": "zqmark-not-a-date",
    "line that is no JSON": "zqmark-cut-off",
    "unit of a failing expectation": "zqmark-unit",
    "name of a file": "zqmark-of-the-alley",
    "text in a column of years": "zqmark-year",
}
NEEDLES = {name: a_text(text) for name, text in TEXTS.items()}
NEEDLES |= {"part of a text": a_text("zqmark"), "number": a_number(NUMBER), "moment": a_moment(MOMENT)}
HOSPITALS_OWN = ("data/", "omop/", "night/", "finished/sites/", "refused/sites/")
CONTROLS = {"year": "qxcontrol-year", "date": "qxcontrol-date"}  # raised without the boundary: must be found


class TestTheSearch:
    """The search must be able to fail."""

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda text: text,
            lambda text: b"before " + base64.b64encode(text + b" and more") + b" after",
            lambda text: b"path/" + base64.urlsafe_b64encode(b"\xff\xfe\xfd" + text),
            lambda text: base64.encodebytes(b"." * 50 + text),
            lambda text: json.dumps(base64.encodebytes(b"." * 50 + text).decode()).encode(),
            lambda text: base64.encodebytes(gzip.compress(os.urandom(90) + text)),
            lambda text: text.hex().encode(),
            gzip.compress,
            zlib.compress,
            lambda text: pa.compress(os.urandom(999).hex().encode() + text, "zstd", asbytes=True) + b"tail",
            lambda text: pickle.dumps({"error": ValueError(text.decode())}),
            lambda text: base64.b64encode(gzip.compress(pickle.dumps([text.decode()]))),
            lambda text: text.decode().encode("utf-16-le"),
            lambda text: text.replace(b" ", b"%20"),
            lambda text: text.replace(b" ", b"+"),
            bytes.upper,
        ],
    )
    def test_it_finds_a_text_through(self, wrap):
        assert "note" in found_in(wrap(TEXTS["note"].encode()), NEEDLES)
        assert "note" not in found_in(wrap(b"nobody fell from anything"), NEEDLES)

    @pytest.mark.parametrize(
        "form",
        [
            lambda number: repr([1, number]).encode(),
            lambda number: f"{number:.4f}".encode(),
            lambda number: f"{number:.18e}".encode(),
            lambda number: str(pa.scalar(number, pa.float32()).as_py()).encode(),
            lambda number: str(pa.array([number], pa.float32()).to_numpy()[0]).encode(),
            lambda number: b"abc" + struct.pack("<d", number),
            lambda number: b"abc" + struct.pack(">d", number),
            lambda number: b"abcde" + struct.pack("<4f", 0.0, 98.6, 1.0, number),
            lambda number: struct.pack(">4f", number, float("nan"), 0.0, 1.0),
            lambda number: struct.pack("<3f", 37.2, number, 5e5) + b"abcde",
            lambda number: pickle.dumps({"x": number}),
        ],
    )
    def test_it_finds_a_number_as(self, form):
        assert "number" in found_in(form(NUMBER), NEEDLES)
        assert "number" not in found_in(form(173.9017), NEEDLES)

    def test_four_bytes_among_random_ones_are_no_number(self):
        noise = bytes.fromhex("ff7f80017f3f91c2e5d4b3a2")
        assert "number" not in found_in(noise + struct.pack("<f", NUMBER) + noise, NEEDLES)

    def test_it_finds_a_moment(self):
        texts = (b"1932-05-18T03:14:15Z", b"1932-05-18 03:14:15", b"-1187297145000")
        for form in (*texts, pickle.dumps(MOMENT), struct.pack("<q", -1187297145_000_000)):
            assert "moment" in found_in(b"at " + form + b", so", NEEDLES)

    @pytest.mark.parametrize("form", ["%d", "%016x"])
    def test_it_finds_a_whole_number_as(self, form):
        needles = {"key": a_whole_number(0x6A09E667F3BCC908)}
        assert found_in(b"a" + (form % 0x6A09E667F3BCC908).encode(), needles) == {"key"}
        assert found_in(b"a" + (form % 0x6A09E667F3BCC907).encode(), needles) == set()

    def test_it_looks_into_parquet_zip_and_sqlite(self, tmp_path):
        columns = {"text": [TEXTS["address"]] * 3, "value": [NUMBER, 1.0, 2.0], "at": [MOMENT, None, None]}
        options = {"compression": "brotli", "use_dictionary": False, "write_statistics": False}
        pq.write_table(pa.table(columns), tmp_path / "a.parquet", **options)
        with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.txt", TEXTS["telephone"] * 5)
        (tmp_path / TEXTS["telephone"]).write_text("nothing inside")
        longer_than_a_page = gzip.compress(os.urandom(6000).hex().encode() + b"ZQMARKMRN7")
        with closing(sqlite3.connect(tmp_path / "c.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE logs (message BLOB, size REAL)")
            connection.execute("INSERT INTO logs VALUES (?, ?)", (longer_than_a_page, NUMBER))
            connection.commit()
            held = files_with(tmp_path, NEEDLES)
        assert held == {
            "a.parquet": {"address", "part of a text", "number", "moment"},
            "b.zip": {"telephone"},
            "c.db": {"record number", "part of a text", "number"},
            "c.db-wal": {"number"},
            TEXTS["telephone"]: {"telephone"},
        }


def change_lines(path, change, every=1):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[::every]:
        change(line)
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def change_quantities(fhir, every=1, **changes):
    change_lines(fhir / "Observation.ndjson", lambda it: it.get("valueQuantity", {}).update(changes), every)


def plant_values(fhir):
    """In rows that load: one patient marked all over, and a heart rate that nobody else has."""
    first = json.loads((fhir / "Patient.ndjson").read_text().splitlines()[0])["id"]
    for path in fhir.glob("*.ndjson"):
        path.write_text(path.read_text().replace(first, TEXTS["patient id"]))

    def mark(patient):
        if patient["id"] == TEXTS["patient id"]:
            patient["identifier"][0]["value"] = TEXTS["record number"]
            patient.update(
                name=[{"family": TEXTS["family name"]}],
                address=[{"line": [TEXTS["address"]]}],
                telecom=[{"system": "phone", "value": TEXTS["telephone"]}],
                birthDate=TEXTS["birth date"],
            )

    def annotate(observation):
        observation["note"] = [{"text": TEXTS["note"]}]
        if observation["code"]["coding"][0]["code"] == "8867-4":
            observation["valueQuantity"]["value"] = NUMBER

    def back_date(observation):
        if observation["subject"]["reference"].endswith(TEXTS["patient id"]):
            observation["effectiveDateTime"] = f"{MOMENT:%Y-%m-%dT%H:%M:%SZ}"

    change_lines(fhir / "Patient.ndjson", mark)
    change_lines(fhir / "Observation.ndjson", annotate, every=7)
    change_lines(fhir / "Observation.ndjson", back_date, every=5)
    change_lines(fhir / "Condition.ndjson", lambda it: it["code"].update(text=TEXTS["display"]))
    change_lines(fhir / "Encounter.ndjson", lambda it: it.update(identifier=[{"value": TEXTS["stay id"]}]))


def plant_broken_rows(fhir):
    """In rows that DuckDB's casts and the pydantic models refuse, and one that is no JSON."""
    change_quantities(fhir, every=40, value="too large")
    change_quantities(fhir, every=50, value=TEXTS["text where DuckDB wants a number"])
    observations = fhir / "Observation.ndjson"
    text = observations.read_text()
    observations.write_text(text.replace('"too large"', TEXTS["number that no double holds"]))
    wrong_date = TEXTS["text where pydantic wants a date"]
    change_lines(fhir / "Patient.ndjson", lambda it: it.update(birthDate=wrong_date), every=9)
    with (fhir / "Condition.ndjson").open("a") as lines:
        lines.write('{"resourceType": "Condition", "id": "' + TEXTS["line that is no JSON"] + "\n")


def plant_wrong_units(fhir):
    """Units that no map knows, with the marker in them, and patients born in the future: the gate must fail."""
    marker = TEXTS["unit of a failing expectation"]
    change_quantities(fhir, unit=marker, code=marker, value=1e9)
    change_lines(fhir / "Patient.ndjson", lambda it: it.update(birthDate="2031-04-17"))


def cut_a_file_named_after_a_patient(fhir):
    """A file that ends too early, under the kind of name that exports by patient have."""
    plant_values(fhir)
    whole = (fhir / "Observation.ndjson").read_bytes()
    (fhir / "Observation.ndjson").unlink()
    (fhir / f"{TEXTS['name of a file']}.ndjson.gz").write_bytes(gzip.compress(whole)[:-2000])


def write_what_readers_quote(folder, *, year, date):
    """A CDM whose years of birth are a text, and a patient whose birth date is none."""
    person = pq.read_table(folder / "person.parquet")
    years = pa.array([year] * len(person))
    person = person.drop_columns("year_of_birth").append_column("year_of_birth", years)
    pq.write_table(person, folder / "person.parquet")
    patient = {"resourceType": "Patient", "id": "a", "birthDate": date}
    (folder / "patient.json").write_text(json.dumps(patient))


def run(folder, name, *command, exit_code=0, **environment):
    """Run a command; what it prints and its temporary files are kept in the folder."""
    dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    printed, scratch = folder / "printed" / name, folder / "scratch"
    with tempfile.TemporaryDirectory(prefix="fh") as short, printed.open("w") as output:
        temporary = Path(short, "tmp")  # sockets are made in it, whose paths must be short
        temporary.symlink_to(scratch)
        env = kept | environment | {"TMPDIR": str(temporary)}
        done = subprocess.run(command, env=env, cwd=scratch, timeout=400, stdout=output, stderr=output)
    assert done.returncode == exit_code, printed.read_text()


def run_study(folder, name, sites, *options, exit_code=0):
    for site in sites:
        data = folder / "data" / site
        source = folder / "omop" if site == WRONG_COLUMN else data / "fhir"
        options += (f"--site={site}={source}", f"--site-map={site}={data / 'site-map'}")
    options += ("--validate", "all", "--workdir", folder / name)
    run(folder, name, FEDHEALTH, "study", "run", folder / "study.yaml", *options, exit_code=exit_code)


def run_night(folder):
    """The deployed load of two hospitals, and readers in front of and behind the boundary."""
    folders = (folder / name for name in ("omop", "control", "night"))
    sources = (f"{site}={folder / 'data' / site}" for site in (WRONG_UNITS, CUT_FILE))
    home = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    command = (sys.executable, "-m", "simulator.worker", *folders, *sources)
    run(folder, "night", *command, PYTHONPATH=f"{ROOT / 'tests'}:{ROOT}", **home)


def write_study_of_one_round(path):
    document = yaml.safe_load((ROOT / "infra" / "studies" / "demo-readmission.yaml").read_text())
    document["training"]["rounds"], document["cohort"]["min_patients"] = 1, 11
    document["aggregation"]["quorum"] = 0.5
    path.write_text(yaml.safe_dump(document))


def plant(folder):
    write_consortium(folder / "data", hospitals=6, patients=60, seed=11)
    fhir = {site: folder / "data" / site / "fhir" for site in SITES}
    plant_values(fhir[MARKED])
    plant_values(fhir[MARKED_TOO])
    plant_broken_rows(fhir[BROKEN_ROWS])
    plant_wrong_units(fhir[WRONG_UNITS])
    cut_a_file_named_after_a_patient(fhir[CUT_FILE])
    site_map = fhir[WRONG_COLUMN].with_name("site-map")
    harmonize(fhir[WRONG_COLUMN], folder / "omop", site="own", site_map=site_map, site_secret=bytes(32))
    shutil.copytree(folder / "omop", folder / "control")
    write_what_readers_quote(folder / "control", **CONTROLS)
    year, date = TEXTS["text in a column of years"], TEXTS["text where pydantic wants a date"]
    write_what_readers_quote(folder / "omop", year=year, date=date)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """After a study that ends well, one that is refused, and a night of loads, all over planted data."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "printed").mkdir()
    (folder / "scratch").mkdir()
    plant(folder)
    write_study_of_one_round(folder / "study.yaml")
    run_study(folder, "finished", SITES, "--references")
    run_study(folder, "refused", (WRONG_UNITS, WRONG_COLUMN, CUT_FILE), exit_code=1)
    run_night(folder)
    return folder


@pytest.fixture(scope="module")
def held(place):
    """Planted values, and keyed ids of a hospital's patients, by the file that holds them."""
    person = place / "finished" / "sites" / MARKED / "cdm" / "person.parquet"
    keys = pq.read_table(person)["person_id"].to_pylist()[:5]
    return files_with(place, NEEDLES | {"keyed id": a_whole_number(*keys)})


def within(held, folder):
    return set().union(*(names for file, names in held.items() if file.startswith(folder)))


@pytest.mark.slow
class TestAPlantedConsortium:
    def test_every_value_was_planted(self, held):
        assert within(held, "data/") == set(NEEDLES) - {"text in a column of years"}
        assert "text in a column of years" in held["omop/person.parquet"]

    def test_the_hospitals_read_the_planted_values(self, place, held):
        own = f"finished/sites/{MARKED}"
        assert within(held, f"{own}/rows/") == {"number", "keyed id"}  # float32, from which it is trained
        assert {"number", "moment"} <= held[f"{own}/cdm/measurement.parquet"]
        assert "patient id" in held[f"{own}/cdm/private/id_map.parquet"]
        assert "unit of a failing expectation" in within(held, f"finished/sites/{WRONG_UNITS}/cdm/")
        account = place / "finished" / "sites" / BROKEN_ROWS / "cdm" / "accounting.json"
        resources = json.loads(account.read_text())["resources"]
        assert resources["Patient"]["quarantined"]["r4b_invalid"] > 0
        assert resources["unknown"]["quarantined"]["not_json"] > 0

    def test_a_hospital_fails_or_abstains_with_a_code_alone(self, place):
        report = json.loads((place / "finished" / "report.json").read_text())
        states = {each["name"]: f"{each['state']} {each['reason']}" for each in report["sites"]}
        assert {states[site] for site in (MARKED, BROKEN_ROWS, MARKED_TOO)} == {"trained None"}
        assert states[WRONG_UNITS].startswith("abstained validation/")
        assert states[WRONG_COLUMN] == "abstained validation/person/cdmDatatype"
        assert states[CUT_FILE].startswith("failed ")
        assert "unreadable_file" in states[CUT_FILE]
        assert "0 sites are ready" in (place / "printed" / "refused").read_text()

    def test_the_gates_own_report_holds_no_value(self, place, held):
        for site in (WRONG_UNITS, WRONG_COLUMN):
            report = f"finished/sites/{site}/validation.json"
            assert json.loads((place / report).read_text())["passed"] is False
            assert report not in held

    def test_prefect_keeps_what_is_raised_in_front_of_the_boundary(self, place):
        kept = files_with(place / "prefect", {name: a_text(text) for name, text in CONTROLS.items()})
        assert kept["prefect.db"] == set(CONTROLS)
        assert within(kept, "storage/") == set(CONTROLS)

    def test_what_is_raised_behind_the_boundary_is_in_the_hospitals_own_log(self, held):
        raised = {"name of a file", "text in a column of years", "text where pydantic wants a date"}
        assert raised <= held[f"night/{CUT_FILE}/site.log"]

    def test_nothing_outside_a_hospital_holds_a_planted_value_or_a_keyed_id(self, held):
        assert {file: names for file, names in held.items() if not file.startswith(HOSPITALS_OWN)} == {}
