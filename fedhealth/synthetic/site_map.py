"""The site map that undoes a hospital's dialect: ``site.yaml`` and a ConceptMap per local code system."""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from fedhealth.synthetic.codes import (
    DISPOSITION,
    HOUSE_DISPOSITIONS,
    ICD10,
    LOCAL_DIAGNOSES,
    LOCAL_DRUGS,
    LOCAL_LABS,
    RXNORM,
)
from fedhealth.synthetic.dialect import (
    ACT_CODE,
    HOUSE_UNITS,
    LOINC,
    UCUM,
    Dialect,
    lab_system,
    local_system,
)


def write_site_map(folder: Path, name: str, dialect: Dialect, *, extract_date: str) -> None:
    """Write a hospital's site map into a new folder.

    Args:
      folder: where it goes.
      name: the hospital.
      dialect: what is to be undone.
      extract_date: the last day that the extract covers, as ``YYYY-MM-DD``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    admissions = [dialect.classes[kind] for kind in ("inpatient", "elective") if kind in dialect.classes]
    settings = {
        "time_zone": dialect.packing.time_zone,
        "extract_date": extract_date,
        "unit_inference": dialect.unit_lost_every > 0,
        "admission_classes": [f"{system}|{code}" for system, code in admissions],
    }
    (folder / "site.yaml").write_text(
        yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    for file, (source, target, codes) in _maps(name, dialect).items():
        _write_map(folder / f"{file}.json", f"{name}-{file}", source, target, codes)


def _maps(name: str, dialect: Dialect) -> dict[str, tuple[str, str, Mapping[str, str]]]:
    """By file: source system, target system, target by local code."""
    found: dict[str, tuple[str, str, Mapping[str, str]]] = {}
    system, _ = dialect.classes["inpatient"]
    if system != ACT_CODE:
        targets = {"inpatient": "IMP", "emergency": "EMER", "ambulatory": "AMB"}
        classes = {dialect.classes[kind][1]: target for kind, target in targets.items()}
        found["encounter-class"] = (system, ACT_CODE, classes)
    if dialect.local_labs:
        found["laboratory"] = (lab_system(name), LOINC, _reverse(LOCAL_LABS))
    if dialect.local_diagnoses:
        found["diagnosis"] = (local_system(name, "diagnosis"), ICD10, _reverse(LOCAL_DIAGNOSES))
        found["drug"] = (local_system(name, "drug"), RXNORM, _reverse(LOCAL_DRUGS))
    if dialect.local_dispositions:
        found["disposition"] = (local_system(name, "disposition"), DISPOSITION, _reverse(HOUSE_DISPOSITIONS))
    used = {unit for unit, *_ in dialect.units.values()}
    if house := {unit: target for unit, target in HOUSE_UNITS.items() if unit in used}:
        found["unit"] = (local_system(name, "unit"), UCUM, house)
    return found


def _reverse(codes: Mapping[str, str]) -> dict[str, str]:
    return {local: standard for standard, local in codes.items()}


def _write_map(path: Path, identity: str, source: str, target: str, codes: Mapping[str, str]) -> None:
    elements = [
        {"code": code, "target": [{"code": to, "equivalence": "equivalent"}]}
        for code, to in sorted(codes.items())
    ]
    content = {
        "resourceType": "ConceptMap",
        "id": identity,
        "status": "active",
        "group": [{"source": source, "target": target, "element": elements}],
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
