"""Which faults of an export does a site notice, and what does it cry out over for nothing? Prints a table, or JSON.

    python benchmarks/planted_faults.py --seeds 101 102 103 [--patients 150] [--json FILE]

Per seed, 15 synthetic hospitals in their dialects, and one after another each fault planted into one of them. A
finding is a loss of the harmonisation (`find_losses`), a failed check of the gate, fatal or convention, or a drift
(`find_drift`). A fault is found when its hospital has a finding that it has not without the fault and that
names one of the fault's areas. A false alarm is a finding of another hospital, with the fault in the
consortium's reference, or of any hospital without one. What every hospital's vocabulary lacks (`STANDING`) is named
apart. Tune on seeds 1 to 5 alone.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from fedhealth.aggregation.profiles import Profile, reference_of
from fedhealth.cdm import harmonize
from fedhealth.errors import DataError
from fedhealth.synthetic.consortium import write_hospital
from fedhealth.synthetic.faults import FAULTS, plant
from fedhealth.validation.drift import find_drift
from fedhealth.validation.gate import validate_cdm
from fedhealth.validation.losses import find_losses
from fedhealth.validation.profile import profile_cdm

HOSPITALS = 15
SECRET = bytes(32)
STANDING = (
    "gate/drug_exposure/standardConceptRecordCompleteness:drug_concept_id",
    "gate/procedure_occurrence/standardConceptRecordCompleteness:procedure_concept_id",
)
"""Warnings of every hospital: no map of drugs or procedures to concepts is shipped."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a hospital finds by itself, and what it gives to the sum."""

    codes: frozenset[str]
    profile: Profile | None


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one planted fault."""

    seed: int
    fault: str
    hospital: int
    found_by: list[str]
    also: list[str]
    false_alarms: list[str]


def main() -> None:
    """Plant, look, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--faults", nargs="+", choices=tuple(FAULTS), default=tuple(FAULTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    unprovoked: list[str] = []
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as crew:
        for seed in arguments.seeds:
            print(f"seed {seed}", file=sys.stderr, flush=True)
            found, alarms = _score(crew, seed, arguments.patients, arguments.faults)
            rows += found
            unprovoked += alarms
    result = _result(rows, unprovoked, arguments.patients)
    print("\n".join(_table(rows, arguments.seeds)))
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def _score(
    crew: ProcessPoolExecutor, seed: int, patients: int, faults: Sequence[str]
) -> tuple[list[Row], list[str]]:
    look = partial(_look, seed=seed, patients=patients)
    clean = list(crew.map(look, range(HOSPITALS)))
    alone = [_codes(clean, index) for index in range(HOSPITALS)]
    unprovoked = [
        f"{seed}/{index + 1}: {code}"
        for index, codes in enumerate(alone)
        for code in sorted(codes - {*STANDING})
    ]
    places = {name: (7 * number + seed) % HOSPITALS for number, name in enumerate(FAULTS) if name in faults}
    broken = crew.map(look, places.values(), places)
    rows = []
    for (name, place), seen in zip(places.items(), broken, strict=True):
        sites = [*clean[:place], seen, *clean[place + 1 :]]
        new = _codes(sites, place) - alone[place]
        named = {code for code in new if any(area in code for area in FAULTS[name].areas)}
        false = [
            f"{index + 1}: {code}"
            for index in range(HOSPITALS)
            if index != place
            for code in sorted(_codes(sites, index) - {*STANDING})
        ]
        rows.append(Row(seed, name, place + 1, sorted(named), sorted(new - named), false))
    return rows, unprovoked


def _look(index: int, fault: str | None = None, *, seed: int, patients: int) -> Seen:
    """Write, harmonise, judge and profile one hospital."""
    with tempfile.TemporaryDirectory() as folder:
        corrupt = None if fault is None else partial(plant, fault)
        name, *_ = write_hospital(Path(folder), index, patients=patients, seed=seed, corrupt=corrupt)
        hospital = Path(folder) / name
        try:
            account = harmonize(
                hospital / "fhir",
                hospital / "cdm",
                site=name,
                site_map=hospital / "site-map",
                site_secret=SECRET,
            )
        except DataError as error:
            return Seen(frozenset({f"harmonize/{error.problem}"}), None)
        report = validate_cdm(hospital / "cdm")
        codes = {loss.code for loss in find_losses(account)}
        codes |= {f"gate/{check.table}/{check.name}" for check in (*report.failures, *report.warnings)}
        return Seen(frozenset(codes), profile_cdm(hospital / "cdm"))


def _codes(sites: Sequence[Seen], index: int) -> set[str]:
    """All findings of one hospital in its consortium."""
    own = sites[index].profile
    if own is None:
        return set(sites[index].codes)
    total = sum(site.profile.to_vector() for site in sites if site.profile is not None)
    return {*sites[index].codes, *(drift.code for drift in find_drift(own, reference_of(total)))}


def _result(rows: Sequence[Row], unprovoked: Sequence[str], patients: int) -> dict[str, object]:
    kinds = dict.fromkeys(row.fault for row in rows)
    always = [name for name in kinds if all(row.found_by for row in rows if row.fault == name)]
    return {
        "claim": "planted_faults",
        "patients": patients,
        "kinds": len(kinds),
        "kinds_found_always": len(always),
        "planted": len(rows),
        "found": sum(bool(row.found_by) for row in rows),
        "by_drift_alone": sum(
            bool(row.found_by) and all(code.startswith("drift/") for code in row.found_by) for row in rows
        ),
        "false_alarms": sum(len(row.false_alarms) for row in rows),
        "alarms_without_fault": list(unprovoked),
        "standing_warnings": list(STANDING),
        "rows": [{field: getattr(row, field) for field in Row.__dataclass_fields__} for row in rows],
    }


def _table(rows: Sequence[Row], seeds: Sequence[int]) -> list[str]:
    lines = [
        f"| fault | {' | '.join(map(str, seeds))} | found by | false |",
        f"|---|{'---|' * (len(seeds) + 2)}",
    ]
    for name in dict.fromkeys(row.fault for row in rows):
        own = [row for row in rows if row.fault == name]
        marks = " | ".join("yes" if row.found_by else "no" for row in own)
        by = sorted({code for row in own for code in row.found_by})
        false = sum(len(row.false_alarms) for row in own)
        lines.append(f"| {name} | {marks} | {', '.join(by[:3])}{' ...' if len(by) > 3 else ''} | {false} |")
    return lines


if __name__ == "__main__":
    main()
