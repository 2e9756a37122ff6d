"""How fast is FHIR NDJSON turned into OMOP Parquet on one core, compared with only parsing its JSON? Prints one line.

    python benchmarks/harmonize.py [--patients 1000] [--validate sample]

One synthetic hospital, harmonised on one DuckDB thread from its files to its finished CDM folder (about 90 % of its
resources are Observations), and `json.loads` (and `orjson.loads`, if it is installed) over the same lines in the
same process, in alternating blocks. Seconds are CPU seconds of the process, so that neighbours on the machine do
not count; the median of the blocks counts.
"""

import argparse
import importlib
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fedhealth.cdm import harmonize
from fedhealth.config import FhirValidation
from fedhealth.synthetic.consortium import write_hospital

BLOCKS = 3
SECRET = bytes(32)
LOCAL_LABS = 3  # the number of a hospital with local laboratory codes, other units and a site map


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--validate", choices=("all", "sample", "off"), default="sample")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name, *_ = write_hospital(Path(folder), LOCAL_LABS, patients=arguments.patients, seed=0)
        print(json.dumps(_measure(Path(folder) / name, arguments.validate)))


def _measure(hospital: Path, validate: FhirValidation) -> dict[str, object]:
    lines = [
        line for path in sorted((hospital / "fhir").iterdir()) for line in path.read_bytes().splitlines()
    ]
    observations = (hospital / "fhir" / "Observation.ndjson").read_bytes().count(b"\n")
    work: dict[str, Callable[[], object]] = {"harmonize": lambda: _harmonize(hospital, validate)}
    work |= {name: _parser(name, lines) for name in ("json", "orjson") if importlib.util.find_spec(name)}
    seconds: dict[str, list[float]] = {kind: [] for kind in work}
    for block in range(BLOCKS + 1):
        for kind, run in work.items():
            start = time.process_time()
            run()
            if block:  # the first block warms up
                seconds[kind].append(time.process_time() - start)
    median = {kind: statistics.median(each) for kind, each in seconds.items()}
    ratios = {
        f"over_{kind}_loads": round(median["harmonize"] / each, 2)
        for kind, each in median.items()
        if kind != "harmonize"
    }
    return {
        "claim": "observations_per_core_second",
        "rate": round(observations / median["harmonize"]),
        **ratios,
        "observations": observations,
        "resources": len(lines),
        "cpu_s": round(median["harmonize"], 2),
        "validate": validate,
    }


def _harmonize(hospital: Path, validate: FhirValidation) -> None:
    account = harmonize(
        hospital / "fhir",
        hospital / "cdm",
        site=hospital.name,
        site_map=hospital / "site-map",
        site_secret=SECRET,
        validate=validate,
    )
    if account.resources["Observation"].loaded != account.resources["Observation"].read:
        raise AssertionError("not every Observation was loaded: the rate would mean nothing")


def _parser(name: str, lines: list[bytes]) -> Callable[[], None]:
    loads = importlib.import_module(name).loads

    def run() -> None:
        for line in lines:
            loads(line)

    return run


if __name__ == "__main__":
    main()
