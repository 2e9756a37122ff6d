"""What does a secure sum cost over its key streams alone? Prints a table of ratios, all from one run.

    python benchmarks/secure_round.py [--lengths 75000 1000000 10000000] [--sites 15 40] [--blocks 5]

The floor is AES-256-CTR over one buffer that exists already. A site with n - 1 peers needs n streams of its
vector's size; the coordinator one for each survivor, and one for each pair of a dropped and a surviving
site. Real masks, shares, commitments and tags in memory, on one thread; signatures and the exchange are not in
it (benchmarks/many_sites.py has them). CPU seconds, so that neighbours on the machine count less; floor and sum take
turns and the median of the blocks counts; vectors above two million entries get one block. Memory is what the
coordinator's calls allocate at their peak, over the bytes of one vector. A sum that is not exact to the bit, or whose
tag does not fit, ends it.

With Flower on the path (pip install flwr), one client of its SecAgg+ masks a vector of the same length for the
same number of neighbours: its masks come from a 32-bit seed by NumPy's generator.
"""

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulator.sums import TAG_KEY, make_plan, make_sites

from fedhealth.secagg.coordinator import CoordinatorSum, OpenedSum
from fedhealth.secagg.plan import SumPlan, threshold_for
from fedhealth.secagg.tags import is_tagged

LONG = 2_000_000


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[75_000, 1_000_000, 10_000_000])
    parser.add_argument("--sites", type=int, nargs="+", default=[15, 40])
    parser.add_argument("--blocks", type=int, default=5)
    arguments = parser.parse_args()
    print(
        "| parameters | sites | dropped | site / floor | coordinator / floor | site ms | coordinator ms "
        "| coordinator memory / vector | Flower client ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for length in arguments.lengths:
        blocks = arguments.blocks if length < LONG else 1
        for sites in arguments.sites:
            for dropped in (0, sites - threshold_for(sites)):
                print(_row(length=length, sites=sites, dropped=dropped, blocks=blocks), flush=True)


def _row(*, length: int, sites: int, dropped: int, blocks: int) -> str:
    memory = _peak(length=length, sites=sites, dropped=dropped)  # it also warms up
    measured = []
    for _ in range(blocks):
        stream = _stream_s(4 * length, times=min(sites, 5))
        measured.append((stream, *_sum_s(length=length, sites=sites, dropped=dropped)))
    stream, site, coordinator = (statistics.median(column) for column in zip(*measured, strict=True))
    survivors = sites - dropped
    site_ratio = site / (stream * sites)
    coordinator_ratio = coordinator / (stream * survivors * (1 + dropped))
    return (
        f"| {length} | {sites} | {dropped} | {site_ratio:.1f} | {coordinator_ratio:.1f}"
        f" | {site * 1e3:.1f} | {coordinator * 1e3:.1f} | {memory:.1f} | {_flower_ms(length, sites)} |"
    )


def _stream_s(size: int, *, times: int) -> float:
    """CPU seconds of one AES-256-CTR key stream into a buffer that exists already: the mean of ``times``."""
    zeros, buffer = bytes(size), bytearray(size + 15)
    start = time.process_time()
    for _ in range(times):
        Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor().update_into(zeros, buffer)
    return (time.process_time() - start) / times


class _Clock:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - start


def _vector(plan: SumPlan, number: int) -> np.ndarray:
    """One site's vector, made when it is needed, so that all of them are never in memory."""
    room = (2 ** (plan.ring_bits - 1) - 1) // len(plan.cohort)
    return np.random.default_rng(number).integers(-room, room, plan.length, endpoint=True)


def _sum_s(*, length: int, sites: int, dropped: int) -> tuple[float, float]:
    """CPU seconds of the median surviving site and of the coordinator, from R1 to the opened sum."""
    plan, clock = make_plan(sites, length=length), _Clock()
    opened, expected = _run(plan, dropped=dropped, clock=clock)
    _check(plan, opened, expected)
    return statistics.median(clock.spent[name] for name in opened.survivors), clock.spent["coordinator"]


def _peak(*, length: int, sites: int, dropped: int) -> float:
    """The most that the coordinator's calls have allocated at a time, in vectors of the ring."""
    plan, peaks = make_plan(sites, length=length), _Peaks()
    opened, expected = _run(plan, dropped=dropped, clock=peaks)
    _check(plan, opened, expected)
    return peaks.most / (4 * length)


class _Peaks(_Clock):
    """Bytes instead of seconds: what is allocated within the coordinator's calls, and stays from one to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._kept = 0

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        if name != "coordinator":
            yield
            return
        tracemalloc.start()
        yield
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.most = max(self.most, self._kept + peak)
        self._kept += now


def _run(plan: SumPlan, *, dropped: int, clock: _Clock) -> tuple[OpenedSum, np.ndarray]:
    parties, said, opens = make_sites(plan), {}, {}
    coordinator, shares, expected = CoordinatorSum(plan), {}, np.zeros(plan.length, dtype=np.int64)
    for name, party in parties.items():
        with clock.of(name):
            shares[name] = party.share()
    with clock.of("coordinator"):
        coordinator.receive_shares(shares)
    for number, name in enumerate(plan.cohort[dropped:]):
        vector = _vector(plan, number)
        expected += vector
        with clock.of(name):
            upload = parties[name].mask(shares, vector)
        parties[
            name
        ]._masked = b""  # a site of its own process would keep it; here n of them would fill the memory
        with clock.of("coordinator"):
            coordinator.receive_masked(name, upload)
    with clock.of("coordinator"):
        survivors = coordinator.propose()
    for name in survivors:
        with clock.of(name):
            said[name] = parties[name].agree(survivors)
    for name in survivors:
        with clock.of(name):
            opens[name] = parties[name].open(said)
    with clock.of("coordinator"):
        opened = coordinator.unmask(opens)
    return opened, expected


def _check(plan: SumPlan, opened: OpenedSum, expected: np.ndarray) -> None:
    is_exact = bool((opened.vector == expected).all())
    if not is_exact or not is_tagged(
        opened.vector, opened.tag, key=TAG_KEY, plan=plan, survivors=opened.survivors
    ):
        raise SystemExit("the sum is wrong")


def _flower_ms(length: int, sites: int) -> str:
    """CPU milliseconds in which a client of Flower's SecAgg+ makes and adds its masks; a dash without Flower."""
    if find_spec("flwr") is None:
        return "-"
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    start, total = time.process_time(), np.zeros(length, dtype=np.int64)
    for peer in range(sites):
        total += pseudo_rand_gen(int(peer).to_bytes(4, "big"), 1 << 32, [(length,)])[0]
    return f"{(time.process_time() - start) * 1e3:.0f}"


if __name__ == "__main__":
    main()
