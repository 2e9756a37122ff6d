"""Write secagg.json: known answers of the secure sum. Run it only when the protocol's version changes.

python tests/vectors/regenerate_secagg.py
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulator.sums import key_of, make_plan, make_sites, make_vectors, run_sum, secrets_of

from fedhealth.secagg.prg import RING_DTYPES, apply_mask, commit, derive
from fedhealth.secagg.shamir import split

PATH = Path(__file__).with_name("secagg.json")


def vectors():
    """Everything that two implementations must agree on, as hex."""
    plan = make_plan(3, length=8)
    sites, values = make_sites(plan), make_vectors(plan)
    shares = {name: site.share() for name, site in sites.items()}
    masks = {}
    for bits, dtype in RING_DTYPES.items():
        mask = np.zeros(8, dtype=dtype)
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
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2) + "\n", encoding="utf-8")
