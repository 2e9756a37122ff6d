"""How fast, and in how much memory, is FHIR NDJSON turned into OMOP Parquet? Prints one line of JSON.

    python benchmarks/harmonize.py [--patients 1000] [--copies 1] [--validate sample] [--blocks 3]

One synthetic hospital (about 80 Observations a patient), written ``--copies`` times with other ids: with ``--patients
12000 --copies 10`` about ten million Observations. It is harmonised from its files to its finished CDM folder by one
worker and by two, in alternating blocks with `orjson.loads`, `json.loads` and the R4B models of fhir.resources over its
Observations (the models over the first 2,000). Each harmonisation is a process of its own.

`rate` is Observations per CPU second of one worker, so that neighbours on the machine do not count; `two_workers` is the ratio of
their times on the clock, which neighbours do lower; `peak_gib` is what one worker's process held at most. Medians of the blocks.
"""

import argparse
import importlib
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fedhealth.cdm import harmonize
from fedhealth.config import FhirValidation
from fedhealth.synthetic.consortium import write_hospital

SECRET = bytes(32)
LOCAL_LABS = 3  # the number of a hospital with local laboratory codes, other units and a site map
MODELLED = 2000
PARSED = 200_000


@dataclass(frozen=True, slots=True)
class _Cost:
    """What a harmonisation took: seconds of its process, seconds on the clock, and its peak of memory."""

    cpu: float
    wall: float
    peak_gib: float


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--validate", choices=("all", "sample", "off"), default="sample")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name, *_ = write_hospital(Path(folder), LOCAL_LABS, patients=arguments.patients, seed=0)
        hospital = Path(folder) / name
        for copy in range(1, arguments.copies):
            _copy(hospital, copy)
        print(json.dumps(_measure(hospital, arguments.validate, arguments.blocks)))


def _copy(hospital: Path, number: int) -> None:
    """Write the hospital's patients and all about them once more, with other ids."""
    old, new = f"{hospital.name}-p".encode(), f"{hospital.name}-{number}p".encode()
    for path in sorted((hospital / "fhir").glob("[A-Z]*.ndjson")):
        with path.open("rb") as source, (hospital / "fhir" / f"{number}-{path.name}").open("wb") as target:
            target.writelines(line.replace(old, new) for line in source)


def _measure(hospital: Path, validate: FhirValidation, blocks: int) -> dict[str, object]:
    observations = sum(1 for _ in _lines(hospital))
    costs: dict[int, list[_Cost]] = {1: [], 2: []}
    parsing: dict[str, list[float]] = {}
    for _ in range(blocks):
        for workers, each in costs.items():
            each.append(_harmonized(hospital, validate, workers, observations))
        for name, seconds in _parsers(hospital):
            parsing.setdefault(name, []).append(seconds)
    cpu = statistics.median(cost.cpu for cost in costs[1])
    walls = {workers: statistics.median(cost.wall for cost in each) for workers, each in costs.items()}
    return {
        "claim": "observations_per_core_second",
        "rate": round(observations / cpu),
        **{
            f"over_{name}": round(cpu / observations / statistics.median(each), 2)
            for name, each in parsing.items()
        },
        "two_workers": round(walls[1] / walls[2], 2),
        "peak_gib": round(max(cost.peak_gib for cost in costs[1]), 2),
        "observations": observations,
        "cpu_s": round(cpu, 2),
        "validate": validate,
    }


def _lines(hospital: Path) -> Iterator[bytes]:
    for path in sorted((hospital / "fhir").glob("*Observation.ndjson")):
        with path.open("rb") as stream:
            yield from stream


def _harmonized(hospital: Path, validate: FhirValidation, workers: int, observations: int) -> _Cost:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_harmonize, hospital, validate, workers, observations).result()


def _harmonize(hospital: Path, validate: FhirValidation, workers: int, observations: int) -> _Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    account = harmonize(
        hospital / "fhir",
        hospital / "cdm",
        site=hospital.name,
        site_map=hospital / "site-map",
        site_secret=SECRET,
        validate=validate,
        workers=workers,
    )
    if account.resources["Observation"].loaded != observations:
        raise AssertionError("not every Observation was loaded: the rate would mean nothing")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return _Cost(time.process_time() - cpu, time.perf_counter() - wall, peak)


def _parsers(hospital: Path) -> Iterator[tuple[str, float]]:
    """CPU seconds per Observation of parsers of JSON alone, and of the models."""
    lines = [line for line, _ in zip(_lines(hospital), range(PARSED), strict=False)]
    model = importlib.import_module("fhir.resources.R4B.observation").Observation
    yield "orjson_loads", _seconds(importlib.import_module("orjson").loads, lines)
    yield "json_loads", _seconds(json.loads, lines)
    yield "fhir_resources", _seconds(model.model_validate_json, lines[:MODELLED])


def _seconds(parse: Callable[[bytes], object], lines: list[bytes]) -> float:
    parse(lines[0])  # builds what is built once
    start = time.process_time()
    for line in lines:
        parse(line)
    return (time.process_time() - start) / len(lines)


if __name__ == "__main__":
    main()
