"""All 18 classes of identifiers in every string of every loaded type: none comes out in tables, account, pages or output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedhealth.synthetic.identifiers import IDENTIFIERS, find_leaks, string_fields, write_planted

pytestmark = pytest.mark.slow


def run(*arguments, ends=(0,)):
    found = subprocess.run(
        [str(Path(sys.executable).with_name("fedhealth")), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode in ends, found.stderr[-2000:]
    return found.stdout + found.stderr


def test_the_fields_reach_what_is_read_and_every_class_is_there():
    assert len(IDENTIFIERS) == 18
    fields = {".".join(name for name, _ in path) for path, _ in string_fields("Observation")}
    read = (
        "code.coding.code",
        "valueQuantity.unit",
        "component.valueCodeableConcept.coding.system",
        "note.text",
    )
    assert set(read) <= fields
    people = {".".join(name for name, _ in path) for path, _ in string_fields("Patient")}
    assert {
        "name.family",
        "extension.extension.valueCoding.code",
        "photo.data",
        "contact.telecom.value",
    } <= people


def test_the_search_finds_what_is_there(tmp_path):
    write_planted(tmp_path)
    assert {name for _, name in find_leaks(tmp_path)} == set(IDENTIFIERS)


@pytest.mark.parametrize("profile", ["safe-harbor", "limited-dataset"])
def test_no_identifier_comes_out(tmp_path, profile):
    (tmp_path / "out").mkdir()
    planted = write_planted(tmp_path / "fhir")
    said = run(
        *("harmonize", "--fhir", tmp_path / "fhir", "--cdm", tmp_path / "out" / "cdm", "--profile", profile),
        *("--json", tmp_path / "out" / "account.json", "--workers", 2),
    )
    said += run(
        "validate", "--cdm", tmp_path / "out" / "cdm", "--docs", tmp_path / "out" / "docs", ends=(0, 1)
    )
    said += run("export", "meds", "--cdm", tmp_path / "out" / "cdm", "--out", tmp_path / "out" / "meds")
    (tmp_path / "out" / "said.txt").write_text(said)
    account = json.loads((tmp_path / "out" / "account.json").read_text())
    loaded = sum(count["loaded"] for count in account["resources"].values())
    assert planted > 300_000
    assert loaded > 0.85 * planted
    assert len(list((tmp_path / "out" / "docs").rglob("*.html"))) > 10
    assert find_leaks(tmp_path / "out") == []
