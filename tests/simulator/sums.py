"""One secure sum in memory: real keys, masks and shares; the test decides who is silent and who lies."""

import hashlib

import numpy as np

from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.plan import SumPlan, threshold_for
from fedhealth.secagg.site import SiteSum, SumSecrets
from fedhealth.secagg.tags import LARGEST

DIGEST = "ab" * 32
TAG_KEY = bytes(range(32))


def names(count):
    return tuple(f"site-{number:02d}" for number in range(1, count + 1))


def make_plan(sites, **changes):
    settings = {
        "study_digest": DIGEST,
        "run": "run-1",
        "round": 1,
        "purpose": "update",
        "step": 0,
        "attempt": 0,
        "model_digest": DIGEST,
        "settings_digest": DIGEST,
        "roster_digest": DIGEST,
        "cohort": names(sites),
        "threshold": threshold_for(sites),
        "min_survivors": threshold_for(sites),
        "ring_bits": 32,
        "length": 40,
        "counter": 0,
    }
    return SumPlan(**settings | changes)


def key_of(*parts):
    """A fixed key for tests: the protocol gets its keys and secrets as arguments."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()


def secrets_of(site, seed=0):
    return SumSecrets(*(key_of("secret", seed, site, part) for part in range(5)))


def make_site(plan, name, seed=0):
    pairs = {peer: key_of("pair", *sorted((name, peer))) for peer in plan.cohort if peer != name}
    return SiteSum(plan, site=name, pair_keys=pairs, tag_key=TAG_KEY, secrets=secrets_of(name, seed))


def make_sites(plan, seed=0):
    return {name: make_site(plan, name, seed) for name in plan.cohort}


def make_vectors(plan, seed=0):
    """Any vectors that a plan lets through: residues in a ring that wraps, else what fits the sum."""
    generator = np.random.default_rng(seed)
    room = min(2 ** (plan.ring_bits - 1) - 1, LARGEST) // len(plan.cohort)
    low, high = (0, 2**plan.ring_bits - 1) if plan.wraps else (-room, room)
    return {name: generator.integers(low, high, plan.length, endpoint=True) for name in plan.cohort}


def make_lanes(plan, seed=0):
    """Any lanes whose sum fits."""
    generator = np.random.default_rng(seed + 1)
    room = (2**63 - 1) // len(plan.cohort)
    return {name: generator.integers(-room, room, plan.lanes, endpoint=True) for name in plan.cohort}


def run_sum(plan, sites, vectors, *, lanes=None, silent=None, order=sorted, forge=None):
    """From R1 to R4. ``silent`` names, by phase, the sites that vanish before they answer it.

    ``forge`` gets (phase, site, payload) and returns what the coordinator receives instead.
    """
    gone, forged = set(), forge or (lambda phase, site, payload: payload)
    coordinator = CoordinatorSum(plan)

    def answers(phase, among, answer):
        gone.update((silent or {}).get(phase, ()))
        return {site: forged(phase, site, answer(site)) for site in order(among) if site not in gone}

    shares = answers("share", plan.cohort, lambda site: sites[site].share())
    included = coordinator.receive_shares(shares)
    shown = {site: shares[site] for site in included}
    exact = lanes or make_lanes(plan)
    uploads = answers(
        "masked", included, lambda site: bytes(sites[site].mask(shown, vectors[site], exact[site]))
    )
    for site, upload in uploads.items():
        coordinator.receive_masked(site, upload)
    survivors = coordinator.propose()
    agreements = answers("agree", survivors, lambda site: sites[site].agree(survivors))
    opens = answers("open", agreements, lambda site: sites[site].open(agreements))
    return coordinator.unmask(opens)


def is_uniform(data):
    """Chi-square of the bytes: mean 255, standard deviation 22.6; 6 of them are passed once in 10^7."""
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    return float(((counts - len(data) / 256) ** 2).sum() / (len(data) / 256)) < 255 + 6 * 22.6
