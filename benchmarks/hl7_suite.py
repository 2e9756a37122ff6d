"""What of HL7's validator suite is found by harmonisation? Prints a table, or with --json the counts and every file.

    python benchmarks/hl7_suite.py [--json]

Each resource of the suite that counts goes through `harmonize` (SQL checks, and the models with `validate="all"`),
beside others of other ids and one valid patient. It is found when the private quarantine or findings name its file
with a reason that says it breaks R4; reasons of OMOP's (no id, no subject who is there, no time, no birth date, no
code) do not count.

What counts is said in docs/reference/fhir-checks.md: JSON resources of R4 (version 4.x in the index) of the types that are
read, and bundles, whose number of expected errors is stated. A file that the suite calls valid under some options
and invalid under others is left out.
"""

import argparse
import json
import os
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from fedhealth.cdm import harmonize
from fedhealth.fhir.resources import SHAPES

SECRET = bytes(32)
TYPES = (*SHAPES, "Bundle")
NEEDED_BY_OMOP = frozenset(
    (
        *(
            "missing_id",
            "missing_birth_date",
            "missing_subject",
            "dangling_subject",
            "missing_time",
            "missing_code",
        ),
        *(
            "other_organization",
            "dangling_part_of",
            "part_of_cycle",
            "unit",
            "unit_missing",
            "value_not_loaded",
        ),
    )
)
COMPANION = {"resourceType": "Patient", "id": "companion-of-the-suite", "birthDate": "1950-01-01"}


@dataclass(frozen=True, slots=True)
class Case:
    """A file of the suite that counts."""

    file: str
    resource_type: str
    is_valid: bool


def main() -> None:
    """Run the suite and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    suite = Path(os.environ.get("FEDHEALTH_DATA", "../shared/data")) / "fhir-test-cases"
    cases, left_out = read_cases(suite)
    found = find(read_texts(suite, cases))
    if arguments.json:
        print(json.dumps(_counts(cases, found, left_out), indent=1))
    else:
        print(table(cases, found))


def read_cases(suite: Path) -> tuple[list[Case], dict[str, int]]:
    """The files that count, and how many do not for which reason."""
    stated: dict[str, set[bool]] = defaultdict(set)
    types: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for entry in json.loads((suite / "index.json").read_text()):
        name, errors = entry["file"], entry["expected_errors"]
        if not name.endswith(".json"):
            left_out["not_json_format"] += 1
        elif not (entry["version"] or "").startswith("4"):
            left_out["other_version"] += 1
        elif entry["resourceType"] not in TYPES:
            left_out["other_type"] += 1
        elif errors is None:
            left_out["errors_not_stated"] += 1
        else:
            stated[name].add(errors == 0)
            types[name] = entry["resourceType"]
    left_out["valid_or_not_by_options"] = sum(len(verdicts) > 1 for verdicts in stated.values())
    cases = [Case(name, types[name], True in said) for name, said in sorted(stated.items()) if len(said) == 1]
    return cases, dict(left_out)


def read_texts(suite: Path, cases: list[Case]) -> dict[str, str]:
    """The text of every case; a resource without an id gets one, as a server would give it."""
    texts = {}
    for number, case in enumerate(cases):
        text = (suite / "validator" / case.file).read_text(encoding="utf-8-sig")
        if case.resource_type != "Bundle" and "id" not in json.loads(text):
            text = text.replace("{", f'{{"id": "suite-{number}", ', 1)
        texts[case.file] = text
    return texts


def find(texts: dict[str, str]) -> dict[str, list[str]]:
    """What harmonisation says of resources by file name: ``reason path``, each once."""
    found: dict[str, set[str]] = {name: set() for name in texts}
    for batch in _batches(texts):
        with tempfile.TemporaryDirectory() as folder:
            fhir, cdm = Path(folder) / "fhir", Path(folder) / "cdm"
            fhir.mkdir()
            for number, name in enumerate(batch):
                (fhir / f"{number}.json").write_text(texts[name])
            (fhir / "companion.ndjson").write_text(json.dumps(COMPANION) + "\n")
            harmonize(fhir, cdm, site="suite", site_secret=SECRET, validate="all")
            for table_name in ("quarantine", "findings"):
                for row in pq.read_table(cdm / "private" / f"{table_name}.parquet").to_pylist():
                    if row["reason_code"] not in NEEDED_BY_OMOP:
                        name = batch[int(row["file"].removesuffix(".json"))]
                        found[name].add(f"{row['reason_code']} {row['json_path']}")
    return {name: sorted(reasons) for name, reasons in found.items()}


def _batches(texts: dict[str, str]) -> list[list[str]]:
    """Files in groups in which no id comes twice, or one would count as a version of the other."""
    batches: list[tuple[set[str], list[str]]] = []
    for name, text in texts.items():
        ids = _ids(json.loads(text))
        for taken, names in batches:
            if not taken & ids:
                taken |= ids
                names.append(name)
                break
        else:
            batches.append((ids, [name]))
    return [names for _, names in batches]


def _ids(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {str(node["id"])} if "resourceType" in node and "id" in node else set()
        return own.union(*(_ids(value) for value in node.values()))
    return set().union(*(_ids(item) for item in node)) if isinstance(node, list) else set()


def table(cases: list[Case], found: dict[str, list[str]]) -> str:
    """The counts per type as Markdown."""
    lines = [
        "| type | invalid | of them found | valid | of them alarmed |",
        "|---|--:|--:|--:|--:|",
    ]
    groups = [(name, [case for case in cases if case.resource_type == name]) for name in TYPES]
    resources = [case for case in cases if case.resource_type != "Bundle"]
    for name, group in [*groups, ("**resources**", resources), ("**with bundles**", cases)]:
        if group:
            invalid = [case for case in group if not case.is_valid]
            valid = [case for case in group if case.is_valid]
            lines.append(
                f"| {name} | {len(invalid)} | {_share(invalid, found)} | {len(valid)} | {_share(valid, found)} |"
            )
    return "\n".join(lines)


def _share(cases: list[Case], found: dict[str, list[str]]) -> str:
    hits = sum(bool(found[case.file]) for case in cases)
    return f"{hits} ({100 * hits / len(cases):.0f} %)" if cases else "0"


def _counts(cases: list[Case], found: dict[str, list[str]], left_out: dict[str, int]) -> dict[str, object]:
    groups = {
        "resources": [case for case in cases if case.resource_type != "Bundle"],
        "with_bundles": cases,
    }
    shares: dict[str, object] = {}
    for name, group in groups.items():
        for kind, is_valid in (("invalid", False), ("valid", True)):
            own = [case for case in group if case.is_valid is is_valid]
            hits = sum(bool(found[case.file]) for case in own)
            shares[f"{name}_{kind}"] = {"files": len(own), "found": hits, "share": round(hits / len(own), 3)}
    files = [
        {"file": case.file, "type": case.resource_type, "valid": case.is_valid, "found": found[case.file]}
        for case in cases
    ]
    return {**shares, "left_out_entries": left_out, "files": files}


if __name__ == "__main__":
    main()
