"""Studies that ask for what the sites do not have: one line and a fix, or a model without what one site lacks."""

import json
import math
from collections import defaultdict

import pytest
import yaml
from simulator.commands import refused, run

from fedhealth.synthetic import write_consortium

SITES = ("hospital-01", "hospital-02", "hospital-03", "hospital-04")
WITHOUT = "hospital-04"
RESULT = "urn:example:outcome|six-months"
STUDY = {
    "schema_version": 1,
    "name": "asked",
    "cohort": {"min_patients": 20},
    "prediction": {"at": "admission", "plus_h": 24},
    "outcomes": {"death": {"kind": "death", "within": "stay"}},
    "features": {"preset": "default-128"},
    "model": {"kind": "multitask", "shared": [16], "heads": [8], "dropout": []},
    "training": {"rounds": 2, "local": {"epochs": 1}},
    "privacy": {"mode": "none", "legal_basis": "synthetic data"},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four hospitals of which two record how a patient is after six months, and the last has three patients."""
    folder = tmp_path_factory.mktemp("data")
    write_consortium(folder, hospitals=4, patients=120, seed=5)
    for site in SITES[:2]:
        lines = [json.dumps(each) for each in results(read(folder, site, "Encounter"))]
        (folder / site / "fhir" / "results.ndjson").write_text("\n".join(lines) + "\n")
    few = {f"Patient/{each['id']}" for each in read(folder, WITHOUT, "Patient")[:3]}
    for path in (folder / WITHOUT / "fhir").glob("*.ndjson"):
        kept = [line for line in path.read_text().splitlines() if belongs(json.loads(line), few)]
        path.write_text("\n".join(kept) + "\n")
    return folder


def read(folder, site, kind):
    text = (folder / site / "fhir" / f"{kind}.ndjson").read_text()
    return [json.loads(line) for line in text.splitlines()]


def results(stays):
    """An observation of every patient a day after the last stay: well for two in three."""
    last = {}
    for stay in stays:
        if "end" in stay.get("period", {}):
            of = stay["subject"]["reference"]
            last[of] = max(last.get(of, ""), stay["period"]["end"])
    for number, (of, end) in enumerate(sorted(last.items())):
        yield {
            "resourceType": "Observation",
            "id": f"result-{number}",
            "status": "final",
            "code": {"coding": [{"system": "urn:example:outcome", "code": "six-months"}]},
            "subject": {"reference": of},
            "effectiveDateTime": end,
            "valueCodeableConcept": {
                "coding": [{"system": "urn:example:outcome", "code": "well" if number % 3 else "ill"}]
            },
        }


def belongs(resource, few):
    if resource["resourceType"] == "Patient":
        return f"Patient/{resource['id']}" in few
    return "subject" not in resource or resource["subject"]["reference"] in few


def study_run(place, data, **sections):
    (place / "study.yaml").write_text(yaml.safe_dump(STUDY | sections))
    where = ("--consortium", data / "consortium.yaml", "--workdir", "work")
    return run(place, "study", "run", "study.yaml", *where)


LATER = {
    "kind": "observation",
    "codes": [RESULT],
    "within_days": 400,
    "positive": ["ill"],
    "negative": ["well"],
}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"features": {"conditions": [{"name": "gout", "codes": ["urn:example:nothing|1"]}]}},
            ("features.conditions.gout", "fewer than 11 people"),
        ),
        (
            {"outcomes": {**STUDY["outcomes"], "later": {**LATER, "codes": ["urn:example:nothing|1"]}}},
            ("the outcome later", "fewer than 11 people"),
        ),
        (
            {"cohort": {"min_patients": 1, "age": {"min": 119, "max": 120}}},
            ("0 sites are ready", "cohort_too_small"),
        ),
    ],
    ids=["feature nobody has", "one task without labels", "nobody of that age"],
)
def test_what_nobody_has_or_is_gets_one_line(tmp_path, data, sections, words):
    refused(study_run(tmp_path, data, **sections), 1, *words)
    assert not (tmp_path / "work" / "report.json").exists()


def test_a_site_of_three_patients_sits_out_and_the_others_learn_every_task(tmp_path, data):
    result = study_run(tmp_path, data, outcomes={**STUDY["outcomes"], "later": LATER})
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    states = defaultdict(set)
    for site in report["sites"]:
        states[site["state"], site["reason"]].add(site["name"])
    assert states == {("trained", None): set(SITES[:3]), ("abstained", "cohort_too_small"): {WITHOUT}}
    areas = {row["outcome"]: row["value"] for row in report["comparison"]}
    assert areas.keys() == {"death", "later"}
    assert all(math.isfinite(area) for area in areas.values())
    assert "NaN" not in (tmp_path / "work" / "report.json").read_text()
