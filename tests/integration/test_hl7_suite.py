"""HL7's validator suite through the whole of harmonisation, and the table in the docs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = Path(os.environ.get("FEDHEALTH_DATA", ROOT.parent / "shared" / "data")).resolve() / "fhir-test-cases"
PAGE = ROOT / "docs" / "reference" / "fhir-checks.md"

pytestmark = pytest.mark.skipif(not SUITE.exists(), reason="HL7's validator suite is not in FEDHEALTH_DATA")


@pytest.fixture(scope="module")
def printed():
    environment = os.environ | {"FEDHEALTH_DATA": str(SUITE.parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "hl7_suite.py")]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT
    ).stdout


def _shares(printed, name):
    (row,) = [line for line in printed.splitlines() if line.startswith(f"| {name} |")]
    invalid, found, valid, alarmed = (int(cell.split("(")[0]) for cell in row.strip("|").split("|")[1:])
    return found / invalid, alarmed / valid


@pytest.mark.parametrize("name", ["**resources**", "**with bundles**"])
def test_at_least_40_percent_of_the_invalid_are_found_and_at_most_2_percent_of_the_valid_alarm(printed, name):
    found, alarmed = _shares(printed, name)
    assert found >= 0.40
    assert alarmed <= 0.02


def test_the_table_in_the_docs_is_what_the_command_prints(printed):
    assert printed.strip() in PAGE.read_text()
