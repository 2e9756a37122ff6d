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
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from simulator.search import files_with, forms_of, forms_of_number, found_in

from fedhealth.synthetic import write_consortium

ROOT = Path(__file__).parents[2]
FEDHEALTH = str(Path(sys.executable).parent / "fedhealth")
NUMBER = 173.90210347
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
    "moment": "2024-04-17T03:14:15",
    "text where DuckDB wants a number": "zqmark-not-a-number",
    "text where pydantic wants a date": "zqmark-not-a-date",
    "a line that is no JSON": "zqmark-cut-off",
    "text in a column of years": "zqmark-year",
    "value of a failing expectation": "zqmark-unit",
}
NEEDLES = {name: forms_of(text) for name, text in TEXTS.items()} | {"number": forms_of_number(NUMBER)}


class TestTheSearch:
    """The search must be able to fail."""

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda text: text,
            lambda text: b"before " + base64.b64encode(text + b" and more") + b" after",
            lambda text: b"key=" + base64.urlsafe_b64encode(b"\xff\xfe\xfd" + text),
            lambda text: text.hex().encode(),
            gzip.compress,
            zlib.compress,
            lambda text: b"header" + gzip.compress(base64.b64encode(text)),
            lambda text: pickle.dumps({"error": ValueError(text.decode())}),
            lambda text: base64.b64encode(gzip.compress(pickle.dumps([text.decode()]))),
            lambda text: text.decode().encode("utf-16-le"),
        ],
    )
    def test_it_finds_a_text_through(self, wrap):
        assert "note" in found_in(wrap(TEXTS["note"].encode()), NEEDLES)
        assert "note" not in found_in(wrap(b"nobody fell from anything"), NEEDLES)

    @pytest.mark.parametrize("wrap", [repr, json.dumps])
    def test_it_finds_a_number_as_text(self, wrap):
        assert "number" in found_in(wrap([1, NUMBER]).encode(), NEEDLES)

    def test_it_finds_a_number_as_a_double_and_in_a_pickle(self):
        assert "number" in found_in(b"abc" + struct.pack("<d", NUMBER), NEEDLES)
        assert "number" in found_in(pickle.dumps({"x": NUMBER}), NEEDLES)

    def test_it_looks_into_parquet_zip_and_sqlite(self, tmp_path):
        table = pa.table({"text": [TEXTS["address"]] * 3, "value": [NUMBER, 1.0, 2.0]})
        pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
        with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.txt", TEXTS["telephone"] * 5)
        connection = sqlite3.connect(tmp_path / "c.db")
        connection.execute("CREATE TABLE logs (message BLOB)")
        connection.execute("INSERT INTO logs VALUES (?)", (gzip.compress(TEXTS["display"].encode()),))
        connection.commit()
        connection.close()
        assert files_with(tmp_path, NEEDLES) == {
            "a.parquet": {"address", "number"},
            "b.zip": {"telephone"},
            "c.db": {"display"},
        }


def change_lines(path, change, every=1):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[::every]:
        change(line)
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def plant_values(fhir):
    """In rows that load: one patient marked all over, and a heart rate that nobody else has."""
    text = "".join(path.read_text() for path in [fhir / "Patient.ndjson"])
    first = json.loads(text.splitlines()[0])["id"]
    for path in fhir.glob("*.ndjson"):
        path.write_text(path.read_text().replace(first, TEXTS["patient id"]))

    def mark(patient):
        if patient["id"] == TEXTS["patient id"]:
            patient["name"] = [{"family": TEXTS["family name"]}]
            patient["identifier"][0]["value"] = TEXTS["record number"]
            patient["address"] = [{"line": [TEXTS["address"]]}]
            patient["telecom"] = [{"system": "phone", "value": TEXTS["telephone"]}]
            patient["birthDate"] = TEXTS["birth date"]

    change_lines(fhir / "Patient.ndjson", mark)

    def annotate(observation):
        observation["note"] = [{"text": TEXTS["note"]}]
        if observation["code"]["coding"][0]["code"] == "8867-4":
            observation["valueQuantity"]["value"] = NUMBER
            observation["effectiveDateTime"] = (
                observation["effectiveDateTime"][:10] + TEXTS["moment"][10:] + "Z"
            )

    change_lines(fhir / "Observation.ndjson", annotate, every=7)
    change_lines(fhir / "Condition.ndjson", lambda it: it["code"].update(text=TEXTS["display"]))
    change_lines(fhir / "Encounter.ndjson", lambda it: it.update(identifier=[{"value": TEXTS["stay id"]}]))


def plant_broken_rows(fhir):
    """In rows that DuckDB's casts and the pydantic models refuse, and one that is no JSON."""

    def no_number(observation):
        observation.get("valueQuantity", {}).update(value=TEXTS["text where DuckDB wants a number"])

    change_lines(fhir / "Observation.ndjson", no_number, every=50)
    change_lines(
        fhir / "Patient.ndjson",
        lambda it: it.update(birthDate=TEXTS["text where pydantic wants a date"]),
        every=9,
    )
    with (fhir / "Condition.ndjson").open("a") as lines:
        lines.write('{"resourceType": "Condition", "id": "' + TEXTS["a line that is no JSON"] + "\n")


def plant_in_units(fhir):
    """Units that no map knows, with the marker in them: the gate must fail."""

    def mark(observation):
        if "valueQuantity" in observation:
            quantity = observation["valueQuantity"]
            quantity.update(unit=TEXTS["value of a failing expectation"], value=quantity["value"] * 1e6)
            quantity.pop("code", None)

    change_lines(fhir / "Observation.ndjson", mark)
    change_lines(fhir / "Patient.ndjson", lambda it: it.update(birthDate="2031-04-17"))


def break_column(cdm):
    """A CDM whose years of birth are texts: DuckDB quotes the text in its error."""
    person = pq.read_table(cdm / "person.parquet")
    index = person.column_names.index("year_of_birth")
    texts = pa.array([TEXTS["text in a column of years"]] * len(person))
    pq.write_table(person.set_column(index, "year_of_birth", texts), cdm / "person.parquet")


def command(*arguments, env=None, cwd=None):
    dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return subprocess.run(
        arguments, env=kept | (env or {}), cwd=cwd, capture_output=True, text=True, timeout=400, check=False
    )


def one_round(folder):
    document = yaml.safe_load((ROOT / "infra" / "studies" / "demo-readmission.yaml").read_text())
    document["training"]["rounds"], document["cohort"]["min_patients"] = 1, 11
    document["aggregation"]["quorum"] = 0.5
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Everything outside the hospitals after a study over planted data and two failing nightly loads."""
    folder = tmp_path_factory.mktemp("planted")
    data, work, out = folder / "data", folder / "work", folder / "outside"
    write_consortium(data, hospitals=6, patients=100, seed=11)
    site = {number: data / f"hospital-{number:02d}" for number in range(1, 7)}
    for number in (1, 3):
        plant_values(site[number] / "fhir")
    plant_broken_rows(site[2] / "fhir")
    plant_in_units(site[4] / "fhir")
    cdm = folder / "omop" / "cdm"
    made = command(
        *(FEDHEALTH, "harmonize", "--fhir", str(site[5] / "fhir"), "--cdm", str(cdm)),
        *("--site-map", str(site[5] / "site-map")),
    )
    assert made.returncode == 0, made.stderr
    break_column(cdm)
    plant_values(site[6] / "fhir")
    whole = (site[6] / "fhir" / "Observation.ndjson").read_bytes()
    (site[6] / "fhir" / "Observation.ndjson").unlink()
    (site[6] / "fhir" / "Observation.ndjson.gz").write_bytes(gzip.compress(whole)[:-2000])

    sources = {n: cdm if n == 5 else site[n] / "fhir" for n in site}
    options = [f"--site=hospital-{n:02d}={source}" for n, source in sources.items()]
    options += [f"--site-map=hospital-{n:02d}={site[n] / 'site-map'}" for n in site if n != 5]
    study = one_round(folder)
    ran = command(
        FEDHEALTH,
        "study",
        "run",
        str(study),
        *options,
        "--references",
        "--validate",
        "all",
        "--workdir",
        str(work),
    )
    assert ran.returncode == 0, ran.stderr
    nightly = [nightly_load(folder, site[n], f"hospital-{n:02d}") for n in (4, 6)]

    for name in ("prefect", "mlflow", "exchange", "coordinator", "studies"):
        if (work / name).exists():
            shutil.copytree(work / name, out / name)
    for name in ("report.json", "report.html", "roster.json"):
        shutil.copy(work / name, out / name)
    shutil.copytree(folder / "nightly-prefect", out / "nightly-prefect")
    printed = [ran.stdout, ran.stderr, *(each.stdout + each.stderr for each in nightly)]
    (out / "printed.txt").write_text("\n".join(printed))
    return out, work, nightly


def nightly_load(folder, site, name):
    """The deployed flow, whose failures Prefect stores."""
    environment = {
        "PREFECT_HOME": str(folder / "nightly-prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "FEDHEALTH_SITE": name,
        "FEDHEALTH_SITE_DIR": str(folder / "nightly" / name),
        "FEDHEALTH_SITE_FHIR": str(site / "fhir"),
        "FEDHEALTH_SITE_MAP": str(site / "site-map"),
    }
    code = "from flows.site.prepare_data import prepare_data; prepare_data(fhir_validation='all')"
    return command(sys.executable, "-c", code, env=environment, cwd=ROOT)


@pytest.mark.slow
def test_the_planted_rows_were_read_and_made_the_gate_and_the_readers_fail(outside):
    out, work, nightly = outside
    held = files_with(work / "sites" / "hospital-01" / "cdm", NEEDLES)
    assert any("number" in names for names in held.values())
    states = {each["name"]: each for each in json.loads((out / "report.json").read_text())["sites"]}
    assert [states[f"hospital-{n:02d}"]["state"] == "trained" for n in range(1, 7)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ], states
    assert nightly[1].returncode != 0


@pytest.mark.slow
def test_nothing_outside_a_hospital_holds_a_planted_value(outside):
    assert files_with(outside[0], NEEDLES) == {}
