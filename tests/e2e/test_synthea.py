"""A study over public Synthea FHIR: real files, whole organisations grouped into six hospitals, one command."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FEDHEALTH_DATA", ROOT.parent / "shared" / "data")) / "synthea-r4-ndjson"
STUDY = ROOT / "infra" / "studies" / "synthea-readmission.yaml"
FEDHEALTH = str(Path(sys.executable).parent / "fedhealth")
HOSPITALS = 6

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"the public Synthea data is not at {DATA}; set FEDHEALTH_DATA"
    ),
]


def lines_of(resource_type):
    with gzip.open(DATA / f"{resource_type}.ndjson.gz", "rt", encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def hospitals():
    """Organisations, the one with the most stays first, each into the hospital with the fewest stays so far."""
    stays = Counter({each["id"]: 0 for each in lines_of("Organization")})
    for encounter in lines_of("Encounter"):
        provider = encounter.get("serviceProvider", {}).get("reference", "").removeprefix("Organization/")
        stays[provider] += encounter["class"].get("code") == "IMP"
    groups = {f"hospital-{number:02d}": [] for number in range(1, HOSPITALS + 1)}
    sizes = Counter(dict.fromkeys(groups, 0))
    for organisation, count in stays.most_common():
        smallest = min(groups, key=lambda name: (sizes[name], name))
        groups[smallest].append(organisation)
        sizes[smallest] += count
    return groups


def run_study(folder, study, sites):
    options = []
    for name, organisations in sites.items():
        site_map = folder / "maps" / name
        site_map.mkdir(parents=True, exist_ok=True)
        (site_map / "site.yaml").write_text(yaml.safe_dump({"organizations": organisations}))
        options += ["--site", f"{name}={DATA}", "--site-map", f"{name}={site_map}"]
    dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return subprocess.run(
        [FEDHEALTH, "study", "run", str(study), *options, "--workdir", str(folder / "work")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthea")
    result = run_study(folder, STUDY, hospitals())
    return folder / "work", result


def test_it_ends_with_a_registered_model_and_a_verified_log(finished):
    workdir, result = finished
    assert result.returncode == 0, result.stderr
    report = json.loads((workdir / "report.json").read_text())
    assert report["model"]["name"] == "synthea-readmission"
    assert report["log"]["verified"] is True
    assert len(report["sites"]) == HOSPITALS


def test_the_auc_is_shown_with_its_interval_or_suppressed(finished):
    report = json.loads((finished[0] / "report.json").read_text())
    own = next(row for row in report["comparison"] if not row["is_reference"])
    if own["value"] is None:
        assert "suppressed" in finished[1].stdout
    else:
        assert 0.0 <= own["low"] <= own["value"] <= own["high"] <= 1.0


def test_nothing_is_lost_in_the_accounting_of_any_site(finished):
    read = Counter(path.name.split(".")[0] for path in DATA.glob("*.ndjson.gz"))
    lines = {name: sum(1 for _ in lines_of(name)) for name in read}
    for number in range(1, HOSPITALS + 1):
        path = finished[0] / "sites" / f"hospital-{number:02d}" / "cdm" / "accounting.json"
        accounting = json.loads(path.read_text())["resources"]
        assert {name: entry["read"] for name, entry in accounting.items()} == lines
        for entry in accounting.values():
            gone = sum(entry["excluded"].values()) + sum(entry["quarantined"].values())
            assert entry["read"] == entry["loaded"] + gone


def test_every_inpatient_stay_is_loaded_by_exactly_one_hospital(finished):
    loaded = Counter()
    for path in (finished[0] / "sites").glob("*/cdm/accounting.json"):
        accounting = json.loads(path.read_text())
        loaded["Encounter"] += accounting["resources"]["Encounter"]["loaded"]
    assert loaded["Encounter"] == sum(1 for _ in lines_of("Encounter"))
