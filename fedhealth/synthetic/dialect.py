"""EHR dialects: units, class codes, panels, local laboratory codes; and the site map that undoes them."""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
_US = {"creatinine": ("mg/dL", 1.0, 2), "glucose": ("mg/dL", 1.0, 0)}
_SI = {
    "creatinine": ("umol/L", 88.4016973, 0),
    "glucose": ("mmol/L", 1 / 18.016, 1),
    "urea_nitrogen": ("mmol/L", 1 / 2.801, 1),
    "haemoglobin": ("g/L", 10.0, 0),
    "calcium": ("mmol/L", 1 / 4.008, 2),
}
_OLD = {
    "sodium": ("mEq/L", 1.0, 0),
    "potassium": ("mEq/L", 1.0, 1),
    "chloride": ("mEq/L", 1.0, 0),
    "bicarbonate": ("mEq/L", 1.0, 0),
    "white_blood_cells": ("K/uL", 1.0, 1),
    "platelets": ("K/uL", 1.0, 0),
    "systolic_bp": ("mm Hg", 1.0, 0),
    "diastolic_bp": ("mm Hg", 1.0, 0),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a hospital writes things down.

    Attributes:
      units: by quantity, (unit, factor from the canonical unit, digits).
      fahrenheit: temperatures in degrees Fahrenheit.
      panels: blood pressure as a panel with components.
      classes: encounter class codes for inpatient, emergency and ambulatory, as (system, code).
      local_labs: laboratory codes are the hospital's own.
    """

    units: dict[str, tuple[str, float, int]]
    fahrenheit: bool
    panels: bool
    classes: dict[str, tuple[str, str]]
    local_labs: bool


def dialect_of(index: int, name: str) -> Dialect:
    """One of six dialects, by the hospital's number."""
    kind = index % 6
    local = f"urn:{name}:class"
    classes = [
        {"inpatient": (ACT_CODE, "IMP"), "emergency": (ACT_CODE, "EMER"), "ambulatory": (ACT_CODE, "AMB")},
        {
            "inpatient": (local, "inpatient"),
            "emergency": (local, "emergency"),
            "ambulatory": (local, "outpatient"),
        },
        {"inpatient": (local, "S"), "emergency": (local, "N"), "ambulatory": (local, "P")},
    ][kind % 3]
    units = [_US, _SI, _OLD, _SI | _OLD, _US | _OLD, _SI][kind]
    return Dialect(
        units=dict(units),
        fahrenheit=kind in (0, 2, 4),
        panels=kind in (1, 2, 5),
        classes=classes,
        local_labs=kind in (3, 5),
    )


def lab_system(name: str) -> str:
    """The hospital's own code system of laboratory tests."""
    return f"urn:{name}:lab"


def write_site_map(
    folder: Path, name: str, dialect: Dialect, *, lab_codes: dict[str, str], extract_date: str
) -> None:
    """Write ``site.yaml`` and a ConceptMap for every local code system of the hospital."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"time_zone": "UTC", "extract_date": extract_date, "unit_inference": False}
    system, code = dialect.classes["inpatient"]
    settings |= {"admission_classes": [f"{system}|{code}"]}
    (folder / "site.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    if system != ACT_CODE:
        targets = {"inpatient": "IMP", "emergency": "EMER", "ambulatory": "AMB"}
        codes = {dialect.classes[kind][1]: target for kind, target in targets.items()}
        _write_map(folder / "encounter-class.json", f"{name}-class", system, ACT_CODE, codes)
    if dialect.local_labs:
        codes = {local: loinc for loinc, local in lab_codes.items()}
        _write_map(folder / "laboratory.json", f"{name}-lab", lab_system(name), LOINC, codes)


def _write_map(path: Path, identity: str, source: str, target: str, codes: dict[str, str]) -> None:
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
