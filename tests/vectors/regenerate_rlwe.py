"""Write rlwe.json: known answers of sums under encryption. Run it only when the protocol's version changes.

python tests/vectors/regenerate_rlwe.py
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulator.sums import key_of, make_plan

from fedhealth.secagg.ntt import SIZE, canonical, product, transform
from fedhealth.secagg.rlwe import CipherSum, encrypt, secret_key

PATH = Path(__file__).with_name("rlwe.json")
LENGTH = SIZE + 3


def vectors():
    """Everything that two implementations must agree on; long arrays by their SHA-256 as little-endian 64-bit integers."""
    plan = make_plan(3, length=SIZE)
    values = {name: np.arange(LENGTH) * (number - 1) for number, name in enumerate(plan.cohort)}
    keys = {name: secret_key(plan, seed=key_of("cipher", name)) for name in plan.cohort}
    ciphertexts = {name: encrypt(plan, values[name], seed=key_of("cipher", name)) for name in plan.cohort}
    total = CipherSum(plan, LENGTH)
    for name, ciphertext in ciphertexts.items():
        total.add(total.read(name, ciphertext))
    ramp = np.stack([np.arange(SIZE, dtype=np.float64)] * 2)
    return {
        "plan": plan.digest,
        "transform": _digest(canonical(transform(ramp))),
        "square": _digest(canonical(product(transform(ramp), transform(ramp)))),
        "keys": {name: {"head": key[:8].tolist(), "sha256": _digest(key)} for name, key in keys.items()},
        "ciphertexts": {
            name: {"head": data[:16].hex(), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in ciphertexts.items()
        },
        "sum": total.open(sum(keys.values()))[-4:].tolist(),
    }


def _digest(values):
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2) + "\n", encoding="utf-8")
