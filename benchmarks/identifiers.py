"""Planted identifiers: how fast the de-identified load is, and how many of them come out (none may).

    python benchmarks/identifiers.py

One resource for each of the 18 Safe Harbor classes in every string field of every loaded type is harmonised under
``safe-harbor`` by one worker. Prints resources per CPU second, and the leaks found in tables, account and record.
"""

import sys
import tempfile
import time
from pathlib import Path

from fedhealth.cdm import harmonize
from fedhealth.synthetic.identifiers import find_leaks, write_planted

TARGET = 20_000


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        fhir, cdm = Path(folder) / "fhir", Path(folder) / "cdm"
        resources = write_planted(fhir)
        start = time.process_time()
        harmonize(fhir, cdm, site="planted", site_secret=bytes(32), profile="safe-harbor")
        rate = resources / (time.process_time() - start)
        leaks = find_leaks(cdm)
    print(f"{resources:,} resources, {rate:,.0f} per CPU second (target {TARGET:,}), {len(leaks)} leaks")
    for file, name in leaks:
        print(f"  {name} in {file}")
    return 0 if not leaks and rate >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
