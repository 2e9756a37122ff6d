"""What does a secure sum cost over its key streams alone? Prints a table of ratios, all from one run.

    python benchmarks/secure_round.py [--lengths 75000 1000000] [--sites 15 40]

The floor is AES-256-CTR over one buffer that exists already. A site with n - 1 peers needs n streams of its
vector's size; the coordinator one for each survivor, and one for each pair of a dropped and a surviving
site. Real masks, shares and commitments in memory, on one thread; signatures and the exchange are not in
it. CPU seconds, so that neighbours on the machine count less; floor and sum take turns and the median of
the blocks counts. A sum that is not exact to the bit ends it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulator.sums import make_plan, make_sites, make_vectors

from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.plan import threshold_for

BLOCKS = 5


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[75_000, 1_000_000])
    parser.add_argument("--sites", type=int, nargs="+", default=[15, 40])
    arguments = parser.parse_args()
    print("| parameters | sites | dropped | site / floor | coordinator / floor | site ms | coordinator ms |")
    print("|---|---|---|---|---|---|---|")
    for length in arguments.lengths:
        for sites in arguments.sites:
            for dropped in (0, sites - threshold_for(sites)):
                print(_row(length=length, sites=sites, dropped=dropped), flush=True)


def _row(*, length: int, sites: int, dropped: int) -> str:
    blocks = []
    for block in range(BLOCKS + 1):
        stream = _stream_s(4 * length, times=sites)
        site, coordinator = _sum_s(length=length, sites=sites, dropped=dropped)
        if block:  # the first block warms up
            blocks.append((stream, site, coordinator))
    stream, site, coordinator = (statistics.median(column) for column in zip(*blocks, strict=True))
    survivors = sites - dropped
    site_ratio = site / (stream * sites)
    coordinator_ratio = coordinator / (stream * survivors * (1 + dropped))
    return (
        f"| {length} | {sites} | {dropped} | {site_ratio:.1f} | {coordinator_ratio:.1f}"
        f" | {site * 1e3:.1f} | {coordinator * 1e3:.1f} |"
    )


def _stream_s(size: int, *, times: int) -> float:
    """CPU seconds of one AES-256-CTR key stream into a buffer that exists already: the mean of ``times``."""
    zeros, buffer = bytes(size), bytearray(size + 15)
    start = time.thread_time()
    for _ in range(times):
        Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor().update_into(zeros, buffer)
    return (time.thread_time() - start) / times


class _Clock:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.thread_time() - start


def _sum_s(*, length: int, sites: int, dropped: int) -> tuple[float, float]:
    """CPU seconds of the median surviving site and of the coordinator, from R1 to the opened sum."""
    plan, clock = make_plan(sites, length=length), _Clock()
    parties, vectors = {}, make_vectors(plan)
    coordinator, shares, said, opens = CoordinatorSum(plan), {}, {}, {}
    for name, party in make_sites(plan).items():
        parties[name] = party
        with clock.of(name):
            shares[name] = party.share()
    with clock.of("coordinator"):
        coordinator.receive_shares(shares)
    for name in plan.cohort[dropped:]:
        with clock.of(name):
            upload = parties[name].mask(shares, vectors[name])
        with clock.of("coordinator"):
            coordinator.receive_masked(name, upload)
    survivors = coordinator.propose()
    for name in survivors:
        with clock.of(name):
            said[name] = parties[name].agree(survivors)
    for name in survivors:
        with clock.of(name):
            opens[name] = parties[name].open(said)
    with clock.of("coordinator"):
        opened = coordinator.unmask(opens)
    if not (opened.vector == sum(vectors[name] for name in survivors)).all():
        raise SystemExit("the sum is wrong")
    return statistics.median(clock.spent[name] for name in survivors), clock.spent["coordinator"]


if __name__ == "__main__":
    main()
