"""What does encryption cost over masks? Prints a table of ratios, all from one run.

    python benchmarks/homomorphic.py [--lengths 75000 1000000] [--sites 15]

One secure sum in memory, of vectors under masks and of ciphertexts whose keys are under masks, with all steps, from the
shares to the exact sum; signatures and the exchange are not in it. CPU seconds of the median site and of the coordinator;
the two take turns, and the median of the blocks counts. A sum that is not exact to the bit ends it.

Where `tenseal` can be imported, a sum of CKKS ciphertexts stands beside them: N = 8192, primes of 60, 40 and 60 bits, one public
key. Whoever holds the secret key to it can read every site's vector, the sum is not exact, and nobody checks who is in it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulator.sums import make_plan, make_sites, secrets_of

from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.encrypted import EncryptedSum
from fedhealth.secagg.ntt import SIZE
from fedhealth.secagg.plan import threshold_for
from fedhealth.secagg.rlwe import LARGEST_SUM, CipherSum, encrypt, secret_key

BLOCKS = 3
CKKS_SLOTS = 4096


class Cost(NamedTuple):
    """CPU seconds of the median site and of the coordinator; bytes that a site uploads."""

    site_s: float
    coordinator_s: float
    upload: int


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[75_000, 1_000_000])
    parser.add_argument("--sites", type=int, default=15)
    arguments = parser.parse_args()
    print(
        "| parameters | sites | dropped | mode | site / masks | coordinator / masks | bytes / masks |", end=""
    )
    print(" site ms | coordinator ms | upload MB |\n|---|---|---|---|---|---|---|---|---|---|")
    for length in arguments.lengths:
        for dropped in (0, arguments.sites - threshold_for(arguments.sites)):
            _print_case(length=length, sites=arguments.sites, dropped=dropped)
        _print_ckks(length=length, sites=arguments.sites)


def _print_case(*, length: int, sites: int, dropped: int) -> None:
    modes = {"masks": _masked, "he": _encrypted}
    blocks = [{mode: run(length, sites, dropped) for mode, run in modes.items()} for _ in range(BLOCKS + 1)]
    found = {  # the first block warms up
        mode: Cost(
            *(statistics.median(column) for column in zip(*(b[mode] for b in blocks[1:]), strict=True))
        )
        for mode in modes
    }
    for mode, cost in found.items():
        ratios = " | ".join(f"{ours / theirs:.2f}" for ours, theirs in zip(cost, found["masks"], strict=True))
        print(f"| {length} | {sites} | {dropped} | {mode} | {ratios} | {_written(cost)} |", flush=True)


def _print_ckks(*, length: int, sites: int) -> None:
    try:
        import tenseal
    except ImportError:
        return
    cost, error = _ckks(tenseal, length, sites)
    told = f"ckks, one key, largest error {error:.0e} of the largest value"
    print(f"| {length} | {sites} | 0 | {told} | | | | {_written(cost)} |", flush=True)


def _written(cost: Cost) -> str:
    return f"{cost.site_s * 1e3:.1f} | {cost.coordinator_s * 1e3:.1f} | {cost.upload / 1e6:.2f}"


class _Clock:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - start


def _vectors(names: tuple[str, ...], length: int) -> dict[str, np.ndarray]:
    generator, room = np.random.default_rng(0), LARGEST_SUM // len(names)
    return {name: generator.integers(-room, room, length, endpoint=True) for name in names}


def _masked(length: int, sites: int, dropped: int) -> Cost:
    plan = make_plan(sites, length=length)
    machine = CoordinatorSum(plan)
    return _sum_of(plan, machine, machine, length=length, dropped=dropped, encrypts=False)


def _encrypted(length: int, sites: int, dropped: int) -> Cost:
    plan = make_plan(sites, length=SIZE)
    posted: dict[str, bytes] = {}
    machine = CoordinatorSum(plan)
    uploads = EncryptedSum(machine, CipherSum(plan, length), posted.__getitem__)
    return _sum_of(plan, machine, uploads, length=length, dropped=dropped, encrypts=True, posted=posted)


def _sum_of(plan, machine, uploads, *, length, dropped, encrypts, posted=None):
    """One sum, from the shares to the opened vector."""
    clock, sizes, vectors = _Clock(), {}, _vectors(plan.cohort, length)
    parties, shares, said, opens = make_sites(plan), {}, {}, {}
    for name, party in parties.items():
        with clock.of(name):
            shares[name] = party.share()
    with clock.of("coordinator"):
        machine.receive_shares(shares)
    for name in plan.cohort[dropped:]:
        with clock.of(name):
            vector, bound_to, ciphertext = vectors[name], b"", b""
            if encrypts:
                seed = secrets_of(name).cipher_seed
                ciphertext, vector = encrypt(plan, vector, seed=seed), secret_key(plan, seed=seed)
                bound_to, posted[name] = sha256(ciphertext).digest(), ciphertext
            upload = parties[name].mask(shares, vector) + bound_to
        with clock.of("coordinator"):
            uploads.receive_masked(name, upload)
        sizes[name] = len(shares[name]) + len(ciphertext) + len(upload)
    survivors = machine.propose()
    for name in survivors:
        with clock.of(name):
            said[name] = parties[name].agree(survivors)
    for name in survivors:
        with clock.of(name):
            opens[name] = parties[name].open(said)
        sizes[name] += len(said[name]) + len(opens[name])
    with clock.of("coordinator"):
        opened = uploads.unmask(opens)
    if not (opened.vector == sum(vectors[name] for name in survivors)).all():
        raise SystemExit("the sum is wrong")
    site_s = statistics.median(clock.spent[name] for name in survivors)
    return Cost(site_s, clock.spent["coordinator"], max(sizes.values()))


def _ckks(tenseal, length: int, sites: int) -> tuple[Cost, float]:
    """A sum of CKKS ciphertexts, and its largest error as a part of its largest value."""
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 60], n_threads=1)
    context.global_scale = 2**40
    names = tuple(f"site-{number}" for number in range(sites))
    clock, total, size, generator = _Clock(), None, 0, np.random.default_rng(0)
    exact = np.zeros(length)
    for name in names:
        vector = generator.standard_normal(length)
        exact += vector
        with clock.of(name):
            cut = [vector[start : start + CKKS_SLOTS] for start in range(0, length, CKKS_SLOTS)]
            sent = [tenseal.ckks_vector(context, part).serialize() for part in cut]
        size = sum(map(len, sent))
        with clock.of("coordinator"):
            read = [tenseal.ckks_vector_from(context, part) for part in sent]
            total = (
                read if total is None else [ours + theirs for ours, theirs in zip(total, read, strict=True)]
            )
    with clock.of("coordinator"):
        opened = np.concatenate([part.decrypt() for part in total])
    site_s = statistics.median(clock.spent[name] for name in names)
    error = float(np.abs(opened - exact).max() / np.abs(exact).max())
    return Cost(site_s, clock.spent["coordinator"], size), error


if __name__ == "__main__":
    main()
