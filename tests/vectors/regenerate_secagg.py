"""Write secagg.json: known answers of the secure sum. Run it only when the protocol's version changes.

python tests/vectors/regenerate_secagg.py
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulator.sums import key_of, make_lanes, make_plan, make_sites, make_vectors, run_sum, secrets_of

from fedhealth.secagg.prg import apply_mask, commit, derive, ring_dtype
from fedhealth.secagg.shamir import split

PATH = Path(__file__).with_name("secagg.json")


def vectors():
    """Everything that two implementations must agree on, as hex."""
    plan = make_plan(3, length=8)
    sites, values = make_sites(plan), make_vectors(plan)
    shares = {name: site.share() for name, site in sites.items()}
    masks = {}
    for bits in (6, 16, 32, 64):
        mask = np.zeros(8, dtype=ring_dtype(bits))
        apply_mask(mask, key_of("mask"), sign=1)
        masks[str(bits)] = mask.tobytes().hex()
    return {
        "plan": {"bytes": plan.to_bytes().hex(), "digest": plan.digest},
        "derive": derive(key_of("derive"), "mask", plan.digest).hex(),
        "commit": commit("mask seed", plan.digest, key_of("commit")).hex(),
        "masks": masks,
        "shamir": [
            share.hex()
            for share in split(key_of("secret"), threshold=2, holders=3, polynomial_seed=key_of("polynomial"))
        ],
        "share_message_sha256": {
            name: hashlib.sha256(message).hexdigest() for name, message in shares.items()
        },
        "vectors": {name: vector.tolist() for name, vector in values.items()},
        "uploads": {name: site.mask(shares, values[name]).hex() for name, site in sites.items()},
        "sum": run_sum(plan, make_sites(plan), values).vector.tolist(),
        "secrets": {name: secrets_of(name).to_bytes().hex() for name in plan.cohort},
        "small_ring": _small_ring(),
    }


def _small_ring():
    """A sum of residues modulo 2^6 with two exact lanes beside them."""
    plan = make_plan(3, length=9, ring_bits=6, lanes=2)
    sites, values, lanes = make_sites(plan), make_vectors(plan), make_lanes(plan)
    shares = {name: site.share() for name, site in sites.items()}
    opened = run_sum(plan, make_sites(plan), values, lanes=lanes)
    return {
        "plan": {"bytes": plan.to_bytes().hex(), "digest": plan.digest},
        "vectors": {name: vector.tolist() for name, vector in values.items()},
        "lanes": {name: each.tolist() for name, each in lanes.items()},
        "uploads": {name: site.mask(shares, values[name], lanes[name]).hex() for name, site in sites.items()},
        "sum": opened.vector.tolist(),
        "lanes_sum": opened.lanes.tolist(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2) + "\n", encoding="utf-8")
