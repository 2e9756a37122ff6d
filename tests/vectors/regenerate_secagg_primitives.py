"""Write secagg_primitives.json: known answers of the secure sum, computed without any of fedhealth's code.

    python tests/vectors/regenerate_secagg_primitives.py

HKDF is written out over HMAC (RFC 5869), the counter mode over single AES blocks, Shamir's polynomials and
the masked vector over Python integers. Run it only when the protocol's version changes.
"""

import hashlib
import hmac
import json
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

TARGET = Path(__file__).with_name("secagg_primitives.json")
PRIME = 2**521 - 1
TAG_PRIME = 2**61 - 1
SEED = bytes(range(32))
NIST_CTR_AES256 = {
    "source": "NIST SP 800-38A, F.5.5",
    "key": "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
    "counter": "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
    "plain": "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
    "cipher": "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
}
PLAN = {
    "schema_version": 1,
    "study_digest": "01" * 32,
    "run": "run-1",
    "round": 3,
    "purpose": "update",
    "step": 0,
    "attempt": 1,
    "model_digest": "02" * 32,
    "settings_digest": "03" * 32,
    "roster_digest": "04" * 32,
    "cohort": ["site-a", "site-b", "site-c", "site-d"],
    "threshold": 3,
    "min_survivors": 3,
    "ring_bits": 32,
    "length": 6,
    "colluders": 1,
    "lanes": 0,
    "counter": 9,
}
SITE = "site-b"
VECTOR = [0, 1, -1, 12345, -(2**28), 2**28]


def main() -> None:
    """Compute every answer and write the file."""
    canonical = json.dumps(PLAN, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(canonical).hexdigest()
    answers = {
        "aes_256_ctr": NIST_CTR_AES256,
        "derive": [
            {"key": SEED.hex(), "parts": parts, "size": size, "okm": derive(SEED, *parts, size=size).hex()}
            for parts, size in (([], 32), (["vector"], 32), (["seal", "a", "b"], 32), (["wide"], 96))
        ],
        "commit": {"label": "mask seed", "value": SEED.hex(), "digest": commit("mask seed", digest, SEED)},
        "mask": [
            {"seed": SEED.hex(), "ring_bits": bits, "words": words(SEED, bits=bits, count=6)}
            for bits in (8, 16, 32, 64)
        ],
        "shamir": _shamir(threshold=3, holders=5),
        "plan": {"fields": PLAN, "canonical": canonical.decode(), "digest": digest},
        "upload": _upload(digest),
    }
    TARGET.write_text(json.dumps(answers, indent=1) + "\n")


def derive(key: bytes, *parts: str, size: int = 32) -> bytes:
    """HKDF-SHA256 without salt; every part behind its length."""
    info = b"".join(
        len(part.encode()).to_bytes(4, "big") + part.encode() for part in ("fedhealth secagg 1", *parts)
    )
    extracted = hmac.digest(bytes(32), key, "sha256")
    block, out = b"", b""
    for number in range(1, 256):
        block = hmac.digest(extracted, block + info + bytes([number]), "sha256")
        out += block
        if len(out) >= size:
            break
    return out[:size]


def commit(label: str, plan_digest: str, value: bytes) -> str:
    """SHA-256 of label, plan and value."""
    return hashlib.sha256(f"fedhealth secagg 1 {label} {plan_digest} ".encode() + value).hexdigest()


def words(seed: bytes, *, bits: int, count: int) -> list[int]:
    """The first words of the mask: AES of the counters 0, 1, 2, ... read as little-endian words."""
    size = bits // 8 * count
    aes = Cipher(algorithms.AES(derive(seed, "vector")), modes.ECB()).encryptor()
    stream = b"".join(aes.update(number.to_bytes(16, "big")) for number in range(-(-size // 16)))
    width = bits // 8
    return [int.from_bytes(stream[i * width : (i + 1) * width], "little") for i in range(count)]


def tag_of(vector: list[int], digest: str) -> int:
    """The tag of the vector under the tag key SEED, in Python's integers."""
    inner, outer = factors("inner", digest, 4096), factors("outer", digest, -(-len(vector) // 4096))
    products = (outer[k // 4096] * inner[k % 4096] * value for k, value in enumerate(vector))
    pad = int.from_bytes(derive(SEED, "tag pad", digest, SITE), "big")
    return (sum(products) + pad) % TAG_PRIME


def factors(use: str, digest: str, count: int) -> list[int]:
    """Words of 64 bits, of which the three highest fall away."""
    aes = Cipher(algorithms.AES(derive(SEED, f"tag {use}", digest)), modes.ECB()).encryptor()
    stream = b"".join(aes.update(number.to_bytes(16, "big")) for number in range(-(-count // 2)))
    return [int.from_bytes(stream[i : i + 8], "little") % 2**61 for i in range(0, 8 * count, 8)]


def _shamir(*, threshold: int, holders: int) -> dict[str, object]:
    secret, polynomial_seed = SEED, bytes(range(100, 132))
    root = derive(polynomial_seed, "polynomial")
    wide = [int.from_bytes(derive(root, "coefficient", str(n), size=96), "big") for n in range(1, threshold)]
    coefficients = [int.from_bytes(secret, "big"), *(value % PRIME for value in wide)]
    shares = [
        sum(value * point**power for power, value in enumerate(coefficients)) % PRIME
        for point in range(1, holders + 1)
    ]
    return {
        "secret": secret.hex(),
        "polynomial_seed": polynomial_seed.hex(),
        "threshold": threshold,
        "shares": [share.to_bytes(66, "big").hex() for share in shares],
    }


def _upload(digest: str) -> dict[str, object]:
    """The masked vector of one site; a mask between two sites is added by the later one by name."""
    pair_keys = {
        name: bytes([number] * 32) for number, name in enumerate(["site-a", "site-c", "site-d"], start=1)
    }
    own_seed = bytes([9] * 32)
    seeds = [(own_seed, 1)]
    seeds += [(derive(key, "mask", digest), 1 if peer < SITE else -1) for peer, key in pair_keys.items()]
    total, tag = list(VECTOR), tag_of(VECTOR, digest)
    for seed, sign in seeds:
        mask = words(seed, bits=32, count=len(VECTOR))
        total = [value + sign * word for value, word in zip(total, mask, strict=True)]
    tag_masks = (sign * int.from_bytes(derive(seed, "tag"), "big") for seed, sign in seeds)
    return {
        "site": SITE,
        "pair_keys": {peer: key.hex() for peer, key in pair_keys.items()},
        "mask_seed": own_seed.hex(),
        "vector": VECTOR,
        "words": [value % 2**32 for value in total],
        "tag_key": SEED.hex(),
        "tag": tag,
        "masked_tag": (tag + sum(tag_masks)) % TAG_PRIME,
    }


if __name__ == "__main__":
    main()
