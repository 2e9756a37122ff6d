"""The UCI heart disease files as four hospitals' FHIR R4: NDJSON by resource type, and each hospital's site map.

A row becomes a person, whose identity is invented: an ambulatory visit on one and the same day, what was measured in
it, and the diagnosis three days later, confirmed or refuted. What the file does not have has no resource; a 0 that UCI
uses for a missing number (cholesterol in Switzerland) is written as 0, for it is what FLamby trains on. FLamby's
split is an observation too.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from heart.protocol import HOSPITALS, Fold, HeartRow, assign_folds, read_rows

Resource = dict[str, object]

HOUSE = "urn:fedhealth:heart"
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
UCUM = "http://unitsofmeasure.org"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_CONDITION = "http://terminology.hl7.org/CodeSystem/condition-"

VISIT_DAY = "1988-07-01"
VISIT_YEAR = 1988
DIAGNOSED = "1988-07-04T09:00:00Z"
LAST_DAY = "1988-12-31"

CHEST_PAIN = {1: "typical-angina", 2: "atypical-angina", 3: "non-anginal-pain", 4: "asymptomatic"}
ECG = {0: "normal", 1: "st-t-abnormality", 2: "left-ventricular-hypertrophy"}

NAMED = {
    "typical-angina": "429559004",
    "atypical-angina": "371807002",
    "non-anginal-pain": "274668005",
    "asymptomatic": "161971004",
    "normal": "164854000",
    "st-t-abnormality": "428750005",
    "left-ventricular-hypertrophy": "164873001",
}
"""House code to SNOMED CT. Fewer than 11 people of a hospital have some of these, and then only what a site map names
stays in its CDM. Source of the chest pains: DICOM CID 3202."""


def write_hospitals(data: Path, out: Path, *, complete_only: bool) -> tuple[str, ...]:
    """Write ``out/<hospital>/fhir`` and ``out/<hospital>/site-map`` for every file of the data.

    Guarantees: the same files give the same bytes.

    Args:
      data: the folder of the files.
      out: where the hospitals' folders go.
      complete_only: whether only FLamby's 740 rows become persons, and the 180 others nothing.

    Returns:
      The hospitals' names.

    Raises:
      OSError: a file is missing, or a folder exists.
    """
    for file, name in HOSPITALS.items():
        rows = read_rows(data / f"processed.{file}.data")
        write_hospital(out / name, name, rows, complete_only=complete_only)
    return tuple(HOSPITALS.values())


def write_hospital(folder: Path, name: str, rows: Sequence[HeartRow], *, complete_only: bool = False) -> None:
    """Write one hospital's rows, and its site map, into a new folder."""
    (folder / "fhir").mkdir(parents=True)
    (folder / "site-map").mkdir()
    lines: dict[str, list[str]] = {}
    for number, (row, fold) in enumerate(zip(rows, assign_folds(tuple(rows)), strict=True), start=1):
        if complete_only and not row.is_complete:
            continue
        for resource in resources_of(row, f"heart-{name}-{number}", fold=fold):
            lines.setdefault(str(resource["resourceType"]), []).append(json.dumps(resource))
    for kind, each in lines.items():
        (folder / "fhir" / f"{kind}.ndjson").write_text("\n".join(each) + "\n", encoding="utf-8")
    (folder / "site-map" / "site.yaml").write_text(f"extract_date: {LAST_DAY}\n", encoding="utf-8")
    (folder / "site-map" / "codes.json").write_text(json.dumps(site_map(NAMED)), encoding="utf-8")


def site_map(named: Mapping[str, str]) -> Resource:
    """A ConceptMap from house codes to SNOMED CT."""
    elements = [
        {"code": code, "target": [{"code": target, "equivalence": "equivalent"}]}
        for code, target in named.items()
    ]
    group = {"source": HOUSE, "target": SNOMED, "element": elements}
    return {"resourceType": "ConceptMap", "status": "active", "group": [group]}


def resources_of(row: HeartRow, identity: str, *, fold: Fold | None) -> Iterator[Resource]:
    """One person: Patient, Encounter, Observations, Condition; ids begin with ``identity``.

    The age at the visit is the row's. Observations are made within the visit, the diagnosis after it.
    """
    yield {
        "resourceType": "Patient",
        "id": identity,
        "gender": "male" if row.is_male else "female",
        "birthDate": f"{VISIT_YEAR - row.age}-01-01",
    }
    yield {
        "resourceType": "Encounter",
        "id": f"{identity}-visit",
        "status": "finished",
        "class": {"system": ACT_CODE, "code": "AMB"},
        "subject": {"reference": f"Patient/{identity}"},
        "period": {"start": f"{VISIT_DAY}T09:00:00Z", "end": f"{VISIT_DAY}T11:00:00Z"},
    }
    for name, (category, code, value) in _observed(row, fold).items():
        yield _observation(identity, name, category, code, value)
    yield _diagnosis(row, identity)


def _observed(row: HeartRow, fold: Fold | None) -> dict[str, tuple[str, tuple[str, str], Resource]]:
    """By name: category, code and value of what the row has."""
    vital, laboratory, exam = "vital-signs", "laboratory", "exam"
    found: dict[str, tuple[str, tuple[str, str], Resource | None]] = {
        "pressure": (vital, (LOINC, "8480-6"), _quantity(row.systolic_bp, "mm[Hg]")),
        "cholesterol": (laboratory, (LOINC, "2093-3"), _quantity(row.cholesterol, "mg/dL")),
        "sugar": (laboratory, (LOINC, "1558-6"), _limit(row.is_sugar_over_120)),
        "rate": (exam, (HOUSE, "thalach"), _quantity(row.max_heart_rate, "/min")),
        "depression": (exam, (HOUSE, "oldpeak"), _quantity(row.st_depression, "mm")),
        "pain": (exam, (HOUSE, "cp"), _coded(CHEST_PAIN, row.chest_pain)),
        "ecg": (exam, (HOUSE, "restecg"), _coded(ECG, row.ecg)),
        "angina": (exam, (HOUSE, "exang"), _flag(row.has_exercise_angina)),
        "split": ("survey", (HOUSE, "split"), None if fold is None else _concept(fold)),
    }
    return {
        name: (category, code, value) for name, (category, code, value) in found.items() if value is not None
    }


def _quantity(value: float | None, unit: str) -> Resource | None:
    if value is None:
        return None
    return {"valueQuantity": {"value": value, "unit": unit, "system": UCUM, "code": unit}}


def _limit(is_over: bool | None) -> Resource | None:
    """Fasting sugar of which the file says only on which side of 120 mg/dL it lies."""
    if is_over is None:
        return None
    quantity = {
        "value": 120,
        "comparator": ">" if is_over else "<=",
        "unit": "mg/dL",
        "system": UCUM,
        "code": "mg/dL",
    }
    return {"valueQuantity": quantity}


def _coded(codes: Mapping[int, str], value: int | None) -> Resource | None:
    return None if value is None else _concept(codes[value])


def _concept(code: str) -> Resource:
    return {"valueCodeableConcept": {"coding": [{"system": HOUSE, "code": code}]}}


def _flag(value: bool | None) -> Resource | None:
    return None if value is None else {"valueBoolean": value}


def _observation(identity: str, name: str, category: str, code: tuple[str, str], value: Resource) -> Resource:
    system, written = code
    return {
        "resourceType": "Observation",
        "id": f"{identity}-{name}",
        "status": "final",
        "category": [{"coding": [{"system": _CATEGORY, "code": category}]}],
        "code": {"coding": [{"system": system, "code": written}]},
        "subject": {"reference": f"Patient/{identity}"},
        "encounter": {"reference": f"Encounter/{identity}-visit"},
        "effectiveDateTime": f"{VISIT_DAY}T10:00:00Z",
        **value,
    }


def _diagnosis(row: HeartRow, identity: str) -> Resource:
    """Coronary heart disease as the angiography had it: confirmed, or refuted and then without a clinical status."""
    status = "confirmed" if row.is_diseased else "refuted"
    clinical = {"clinicalStatus": {"coding": [{"system": f"{_CONDITION}clinical", "code": "active"}]}}
    return {
        "resourceType": "Condition",
        "id": f"{identity}-chd",
        **(clinical if row.is_diseased else {}),
        "verificationStatus": {"coding": [{"system": f"{_CONDITION}ver-status", "code": status}]},
        "category": [{"coding": [{"system": f"{_CONDITION}category", "code": "encounter-diagnosis"}]}],
        "code": {"coding": [{"system": ICD10, "code": "I25.10"}]},
        "subject": {"reference": f"Patient/{identity}"},
        "encounter": {"reference": f"Encounter/{identity}-visit"},
        "recordedDate": DIAGNOSED,
    }
