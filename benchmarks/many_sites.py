"""What does a secure sum cost each site and the coordinator when there are many? Prints a table, measured and extrapolated.

    python benchmarks/many_sites.py [--length 75000] [--cohorts 1x15 1x40 25x40]

A cohort of ``n`` sites sums among itself; with several cohorts the coordinator adds their sums up (a tree of depth two), so
what it opens is always the sum of a whole cohort. Everything is real and goes through one party at a time: E0 (ML-KEM-768 and
X25519 with every peer, once per roster), shares, masks, tags, envelopes with both signatures, their verification by the
readers, and the opening. With more than one cohort one is run whole, and the others with fresh keys of the sum but the
same signed identities. CPU seconds on one thread, so that neighbours count less. A sum that is not exact to the bit ends it.

Extrapolated are ten million entries: what grows with the vector is measured in one cohort at the given length and at a
million, and drawn out as a line.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulator.sums import TAG_KEY, make_plan, names, secrets_of

from fedhealth.exchange.envelope import Header, seal, timestamp, unseal
from fedhealth.identity import PartyKeys, Roster, encapsulate, pair_keys
from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.site import SiteSum
from fedhealth.secagg.tags import is_tagged

LONG, FAR = 1_000_000, 10_000_000


@dataclass(slots=True)
class Costs:
    """CPU seconds and bytes by party; ``enrol`` apart, which is once per roster."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    enrol: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    up: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    down: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @contextmanager
    def of(self, party: str, into: dict[str, float] | None = None) -> Iterator[None]:
        start = time.thread_time()
        yield
        (self.seconds if into is None else into)[party] += time.thread_time() - start


@dataclass(frozen=True, slots=True)
class Cohort:
    """The signed identities of one cohort and its pair keys."""

    keys: dict[str, PartyKeys]
    roster: Roster
    pairs: dict[str, dict[str, bytes]]


def main() -> None:
    """Measure every layout at two lengths and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=75_000)
    parser.add_argument("--cohorts", nargs="+", default=["1x15", "1x40", "25x40"], metavar="COUNTxSITES")
    arguments = parser.parse_args()
    print(
        "| sites | parameters | | site ms | coordinator ms | site sends MB | site reads MB | coordinator reads MB "
        "| E0 of a site ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for layout in arguments.cohorts:
        count, sites = map(int, layout.split("x"))
        cohort, costs = _enrolled(sites)
        near = _measured(cohort, costs, count=count, length=arguments.length)
        long = _measured(cohort, costs, count=1, length=LONG)
        one = near if count == 1 else _measured(cohort, costs, count=1, length=arguments.length)
        name, enrol = f"{count * sites}", statistics.median(costs.enrol.values())
        _print(name, arguments.length, "measured", near, enrol)
        slope = (long - one) / (LONG - arguments.length)
        far = near + slope * np.array([1, count, 1, 1, count]) * (FAR - arguments.length)
        _print(name, FAR, "extrapolated", far, enrol)


def _print(sites: str, length: int, how: str, row: np.ndarray, enrol: float) -> None:
    site, coordinator, up, down, read = row
    print(
        f"| {sites} | {length} | {how} | {site * 1e3:.0f} | {coordinator * 1e3:.0f} | {up / 1e6:.2f} "
        f"| {down / 1e6:.2f} | {read / 1e6:.1f} | {enrol * 1e3:.0f} |",
        flush=True,
    )


def _enrolled(sites: int) -> tuple[Cohort, Costs]:
    """Keys of a cohort, and E0 of each of its sites."""
    costs = Costs()
    with tempfile.TemporaryDirectory() as folder:
        keys = {
            name: PartyKeys.load_or_create(Path(folder) / name, name=name, role="site")
            for name in names(sites)
        }
        hub = PartyKeys.load_or_create(Path(folder) / "hub", name="hub", role="coordinator")
    roster = Roster.of((hub.public, *(each.public for each in keys.values())))
    own, pairs = {}, {}
    for name, each in keys.items():
        with costs.of(name, costs.enrol):
            own[name] = encapsulate(each, roster)
    payloads = {name: each.payload for name, each in own.items()}
    for name, each in keys.items():
        with costs.of(name, costs.enrol):
            pairs[name] = pair_keys(each, roster, own[name], payloads)
    return Cohort(keys | {"hub": hub}, roster, pairs), costs


def _measured(cohort: Cohort, enrolled: Costs, *, count: int, length: int) -> np.ndarray:
    """Median site's seconds, the coordinator's, and the bytes that a site sends and reads and the coordinator reads."""
    costs, total, expected = (
        Costs(enrol=enrolled.enrol),
        np.zeros(length, np.int64),
        np.zeros(length, np.int64),
    )
    for number in range(count):
        plan = make_plan(len(cohort.roster.sites), length=length, counter=number)
        opened, truth = _sum(plan, cohort, costs, seed=number)
        with costs.of("hub"):
            total += opened
        expected += truth
    if not (total == expected).all():
        raise SystemExit("the sum is wrong")
    sites = [costs.seconds[site] / count for site in cohort.roster.sites]
    sent = [costs.up[site] / count for site in cohort.roster.sites]
    read = [costs.down[site] / count for site in cohort.roster.sites]
    figures = (statistics.median(each) for each in (sites, sent, read))
    site, up, down = figures
    return np.array([site, costs.seconds["hub"], up, down, costs.down["hub"]])


def _sum(plan: SumPlan, cohort: Cohort, costs: Costs, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    machines, truth = {}, np.zeros(plan.length, np.int64)
    coordinator = CoordinatorSum(plan)
    posted: dict[tuple[str, str], bytes] = {}

    def post(phase: str, site: str, payload: bytes) -> None:
        header = Header(
            key=f"runs/run-1/sums/1/update/0/0/{phase}/{site}",
            kind=phase,
            plan=plan.digest,
            sender=site,
            payload_digest=sha256(payload).hexdigest(),
            payload_bytes=len(payload),
            time=timestamp(0),
        )
        posted[phase, site] = seal(payload, header, keys=cohort.keys[site])
        costs.up[site] += len(posted[phase, site])

    def read(phase: str, site: str, reader: str) -> bytes:
        data = posted[phase, site]
        costs.down[reader] += len(data)
        return unseal(data, roster=cohort.roster).payload

    for site in plan.cohort:
        with costs.of(site):
            machines[site] = SiteSum(
                plan,
                site=site,
                pair_keys=cohort.pairs[site],
                tag_key=TAG_KEY,
                secrets=secrets_of(site, seed),
            )
            post("share", site, machines[site].share())
    with costs.of("hub"):
        coordinator.receive_shares({site: read("share", site, "hub") for site in plan.cohort})
    for number, site in enumerate(plan.cohort):
        vector = _vector(plan, seed * 1000 + number)
        truth += vector
        with costs.of(site):
            shares = {peer: read("share", peer, site) for peer in plan.cohort}
            post("masked", site, machines[site].mask(shares, vector))
        with costs.of("hub"):
            coordinator.receive_masked(site, read("masked", site, "hub"))
        del posted["masked", site]
        machines[
            site
        ]._masked = b""  # a process of its own would keep it; here all of them would fill the memory
    with costs.of("hub"):
        survivors = coordinator.propose()
    for site in survivors:
        with costs.of(site):
            post("agree", site, machines[site].agree(survivors))
    for site in survivors:
        with costs.of(site):
            said = {peer: read("agree", peer, site) for peer in survivors}
            post("open", site, machines[site].open(said))
    with costs.of("hub"):
        opened = coordinator.unmask({site: read("open", site, "hub") for site in survivors})
    if not is_tagged(opened.vector, opened.tag, key=TAG_KEY, plan=plan, survivors=survivors):
        raise SystemExit("the tag does not fit")
    return opened.vector, truth


def _vector(plan: SumPlan, number: int) -> np.ndarray:
    """One site's vector, made when it is needed."""
    room = (2 ** (plan.ring_bits - 1) - 1) // len(plan.cohort)
    return np.random.default_rng(number).integers(-room, room, plan.length, endpoint=True)


if __name__ == "__main__":
    main()
