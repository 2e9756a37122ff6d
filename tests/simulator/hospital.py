"""A hand-written hospital of two made-up people as FHIR R4 resources, and what harmonisation makes of it."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from fedhealth.cdm import Accounting
from fedhealth.cdm.keys import keyed_ids

SECRET = bytes(range(32))
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
PRIORITY = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
ADMIT = "http://terminology.hl7.org/CodeSystem/admit-source"
DISPOSITION = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
UCUM = "http://unitsofmeasure.org"

Resource = dict[str, Any]


def coded(system: str, code: str) -> Resource:
    """A CodeableConcept of one coding."""
    return {"coding": [{"system": system, "code": code}]}


def patient(name: str, /, **fields: Any) -> Resource:
    return {"resourceType": "Patient", "id": name, "gender": "female", "birthDate": "1950-03-04"} | fields


def encounter(name: str, of: str = "ada", **fields: Any) -> Resource:
    """A finished stay from 8:00 on 1 May to 16:00 on 4 May 2021."""
    return {
        "resourceType": "Encounter",
        "id": name,
        "status": "finished",
        "class": {"system": ACT, "code": "IMP"},
        "subject": {"reference": f"Patient/{of}"},
        "period": {"start": "2021-05-01T08:00:00Z", "end": "2021-05-04T16:00:00Z"},
    } | fields


def event(kind: str, name: str, of: str = "ada", **fields: Any) -> Resource:
    return {"resourceType": kind, "id": name, "subject": {"reference": f"Patient/{of}"}} | fields


def observation(name: str, loinc: str, value: Any = None, unit: str = "", **fields: Any) -> Resource:
    """A vital sign at 9:00 on 1 May 2021, linked to no encounter."""
    quantity = {"value": value, "unit": unit, "system": UCUM, "code": unit}
    return (
        event(
            "Observation",
            name,
            status="final",
            category=[coded(CATEGORY, "vital-signs")],
            code=coded(LOINC, loinc),
            effectiveDateTime="2021-05-01T09:00:00Z",
        )
        | ({} if value is None else {"valueQuantity": quantity})
        | fields
    )


def small_hospital() -> list[Resource]:
    """One stay through the emergency department and intensive care, one clinic visit, one of every event."""
    stay = {"encounter": {"reference": "Encounter/stay"}}
    pressures = [
        {
            "code": coded(LOINC, loinc),
            "valueQuantity": {"value": value, "unit": "mmHg", "system": UCUM, "code": "mm[Hg]"},
        }
        for loinc, value in (("8480-6", 120), ("8462-4", 80))
    ]
    return [
        {"resourceType": "Organization", "id": "house", "name": "House of Examples"},
        patient(
            "ada",
            name=[{"family": "Quillfeather", "given": ["Ada"]}],
            address=[{"line": ["7 Zinnober Lane"], "city": "Umbrashire"}],
            telecom=[{"system": "phone", "value": "555-0199"}],
            identifier=[{"system": "urn:mrn", "value": "MRN-77001"}],
            text={
                "status": "generated",
                "div": '<div xmlns="http://www.w3.org/1999/xhtml">Quillfeather</div>',
            },
        ),
        patient("bo", gender="male", birthDate="1990-11", deceasedDateTime="2021-07-01"),
        encounter(
            "stay",
            priority=coded(PRIORITY, "EM"),
            serviceProvider={"reference": "Organization/house"},
            hospitalization={
                "admitSource": coded(ADMIT, "emd"),
                "dischargeDisposition": coded(DISPOSITION, "home"),
            },
        ),
        encounter(
            "unit",
            **{"class": {"system": ACT, "code": "ACUTE"}},
            partOf={"reference": "Encounter/stay"},
            period={"start": "2021-05-02T00:00:00Z", "end": "2021-05-03T00:00:00Z"},
        ),
        encounter(
            "clinic",
            of="bo",
            **{"class": {"system": ACT, "code": "AMB"}},
            period={"start": "2021-06-01T10:00:00+02:00", "end": "2021-06-01T11:00:00+02:00"},
        ),
        event(
            "Condition",
            "failure",
            **stay,
            verificationStatus=coded(VERIFICATION, "confirmed"),
            code={**coded(ICD10, "I50.9"), "text": "as told by Quillfeather"},
            onsetDateTime="2021-05-01",
        ),
        observation("pulse", "8867-4", 88, "/min", effectiveDateTime="2021-05-02T06:00:00Z"),
        observation("sugar", "2345-7", 5.5, "mmol/L", **stay, note=[{"text": "Quillfeather was fasting"}]),
        observation("pressure", "85354-9", **stay, component=pressures),
        observation(
            "smoking",
            "72166-2",
            category=[coded(CATEGORY, "social-history")],
            valueCodeableConcept=coded(SNOMED, "266919005"),
            effectiveDateTime="2020-01-15",
        ),
        {"resourceType": "Medication", "id": "tablet", "code": coded(RXNORM, "4603")},
        event(
            "MedicationRequest",
            "order",
            **stay,
            status="active",
            intent="order",
            medicationReference={"reference": "Medication/tablet"},
            authoredOn="2021-05-01T10:00:00Z",
            dosageInstruction=[{"text": "one for Quillfeather", "route": coded(SNOMED, "26643006")}],
        ),
        event(
            "MedicationAdministration",
            "dose",
            status="completed",
            context={"reference": "Encounter/stay"},
            medicationCodeableConcept=coded(RXNORM, "4603"),
            effectivePeriod={"start": "2021-05-01T11:00:00Z", "end": "2021-05-01T12:00:00Z"},
            dosage={"dose": {"value": 40, "unit": "mg", "system": UCUM, "code": "mg"}},
        ),
        event(
            "Procedure",
            "echo",
            **stay,
            status="completed",
            code=coded(SNOMED, "40701008"),
            performedDateTime="2021-05-02T12:00:00Z",
        ),
    ]


def key(reference: str, secret: bytes = SECRET) -> int:
    """The id that a resource has in the CDM."""
    return int(keyed_ids([reference], site_secret=secret)[0])


def lines(resources: list[Resource]) -> bytes:
    return b"".join(json.dumps(resource).encode() + b"\n" for resource in resources)


def bundle(resources: list[Resource], kind: str = "collection") -> bytes:
    entries = [{"resource": resource} for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}).encode()


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder, which is returned."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@dataclass(frozen=True)
class Loaded:
    """A CDM folder and its account."""

    folder: Path
    account: Accounting

    def rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        """The rows of a table of the CDM (or of ``private/``), sorted."""
        names = ", ".join(columns) or "*"
        with duckdb.connect(":memory:") as database:
            path = self.folder / f"{table}.parquet"
            return database.execute(f"SELECT {names} FROM '{path}' ORDER BY ALL").fetchall()

    def describe(self, table: str) -> list[tuple[str, str]]:
        """Names and types of the columns of a table."""
        with duckdb.connect(":memory:") as database:
            found = database.execute(f"DESCRIBE FROM '{self.folder / table}.parquet'").fetchall()
        return [(name, kind) for name, kind, *_ in found]

    def digests(self) -> dict[str, str]:
        """SHA-256 of every Parquet file of the CDM proper."""
        return {path.name: sha256(path.read_bytes()).hexdigest() for path in self.folder.glob("*.parquet")}

    def record(self) -> dict[str, Any]:
        """The de-identification record."""
        return json.loads((self.folder / "deidentification.json").read_text())

    def column(self, table: str, column: str) -> list[Any]:
        return [row[0] for row in self.rows(table, column)]

    def one(self, table: str, *columns: str) -> tuple[Any, ...]:
        """The only row of a table."""
        (row,) = self.rows(table, *columns)
        return row

    def reasons(self, resource_type: str) -> dict[str, int]:
        """Why resources of a type were left out: ``excluded:reason`` or ``quarantined:reason``, and how many."""
        count = self.account.resources[resource_type]
        return {f"excluded:{reason}": n for reason, n in count.excluded.items()} | {
            f"quarantined:{reason}": n for reason, n in count.quarantined.items()
        }
