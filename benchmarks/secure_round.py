"""What a secure sum costs over the AES-256-CTR floor: seconds of one site and of the coordinator, as ratios.

The floor of a site with n - 1 peers is the time to make n key streams of the vector's size (one mask for each
peer and one of its own); the coordinator's is one for each survivor and one for each pair of a dropped and a surviving
site. Real keys, masks and shares, in memory; the sum is checked bit for bit. Run: ``python benchmarks/secure_round.py``.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulator.sums import make_plan, make_sites, make_vectors

from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.plan import threshold_for
from fedhealth.secagg.prg import apply_mask


def floor_s(length: int) -> float:
    """Seconds to mask a vector once: the best of nine, so that a ratio to it is never flattering."""
    vector = np.zeros(length, dtype=np.uint32)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        apply_mask(vector, bytes(32), sign=1)
        times.append(time.perf_counter() - start)
    return min(times)


def measure(sites: int, length: int, dropped: int) -> tuple[float, float]:
    """Seconds of the slowest site and of the coordinator, from R1 to the opened sum."""
    plan = make_plan(sites, length=length)
    parties, vectors = make_sites(plan), make_vectors(plan)
    spent = dict.fromkeys(plan.cohort, 0.0)
    central = 0.0

    def timed(name, call, *arguments):
        start = time.perf_counter()
        result = call(*arguments)
        spent[name] += time.perf_counter() - start
        return result

    coordinator = CoordinatorSum(plan)
    shares = {name: timed(name, party.share) for name, party in parties.items()}
    start = time.perf_counter()
    coordinator.receive_shares(shares)
    central += time.perf_counter() - start
    survivors = plan.cohort[dropped:]
    for name in survivors:
        upload = timed(name, parties[name].mask, shares, vectors[name])
        start = time.perf_counter()
        coordinator.receive_masked(name, upload)
        central += time.perf_counter() - start
    said = {name: timed(name, parties[name].agree, survivors) for name in survivors}
    opens = {name: timed(name, parties[name].open, said) for name in survivors}
    start = time.perf_counter()
    opened = coordinator.unmask(opens)
    central += time.perf_counter() - start
    if not (opened.vector == sum(vectors[name] for name in survivors)).all():
        raise SystemExit("the sum is wrong")
    return max(spent.values()), central


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lengths", type=int, nargs="+", default=[75_000, 1_000_000])
    parser.add_argument("--sites", type=int, nargs="+", default=[15, 40])
    arguments = parser.parse_args()
    print("parameters  sites  dropped  site/floor  coordinator/floor  site ms  coordinator ms")
    for length in arguments.lengths:
        for sites in arguments.sites:
            for dropped in (0, sites - threshold_for(sites)):
                one = floor_s(length)
                site, central = measure(sites, length, dropped)
                left = sites - dropped
                floors = one * sites, one * (left + dropped * left)
                print(
                    f"{length:10d} {sites:6d} {dropped:8d} {site / floors[0]:11.1f} {central / floors[1]:18.1f}"
                    f" {site * 1e3:8.1f} {central * 1e3:15.1f}"
                )


if __name__ == "__main__":
    main()
