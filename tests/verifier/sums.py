"""Replays a masked sum from the exchange, as docs/explanation/secure-sum.md ("The bytes") describes it; no ciphertexts."""

import json
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from verifier.history import Roster, need, open_object, refusing

VERSION, PRIME = "fedhealth secagg 1", 2**521 - 1


def derive(key: bytes, *parts: str, size: int = 32) -> bytes:
    info = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in (VERSION, *parts))
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(key)


def commitment(label: str, plan: str, value: bytes) -> bytes:
    return sha256(f"{VERSION} {label} {plan} ".encode() + value).digest()


class Shape(NamedTuple):
    """How a site's numbers lie in its words: ``length`` of ``bits``, and ``lanes`` of 64."""

    bits: int
    length: int
    lanes: int

    @property
    def width(self) -> int:
        """Bytes of the words in which masks are added to the vector."""
        return next(size for size in (1, 2, 4, 8) if 8 * size >= self.bits)


def words(data: bytes, shape: Shape) -> np.ndarray:
    """An upload as integers modulo 2^64, whose lowest bits are those of the ring."""
    end = -(-shape.length * shape.bits // 8)
    need(len(data) == end + 8 * shape.lanes, "an upload has a wrong size")
    stream = np.unpackbits(np.frombuffer(data[:end], np.uint8), bitorder="little")
    need(not stream[shape.length * shape.bits :].any(), "an upload has bits left over")
    bits = stream[: shape.length * shape.bits].reshape(shape.length, shape.bits).astype(np.uint64)
    vector = (bits << np.arange(shape.bits, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    return np.concatenate([vector, np.frombuffer(data[end:], "<u8")])


def mask(seed: bytes, shape: Shape) -> np.ndarray:
    """PRG(seed): little-endian words of AES-256-CTR from counter 0, of the vector and then of the lanes."""
    parts = []
    for use, count, width in (("vector", shape.length, shape.width), ("lanes", shape.lanes, 8)):
        cipher = Cipher(algorithms.AES(derive(seed, use)), modes.CTR(bytes(16))).encryptor()
        parts.append(np.frombuffer(cipher.update(bytes(count * width)), f"<u{width}").astype(np.uint64))
    return np.concatenate(parts)


def signed(total: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Vector and lanes as the signed integers that the words stand for."""
    above = np.uint64(64 - shape.bits)
    vector = (total[: shape.length] << above).view(np.int64) >> above.astype(np.int64)
    return vector, total[shape.length :].view(np.int64)


def is_tagged(opened: "ReplayedSum", tag_key: bytes, plan: str) -> bool:
    """Whether the last two lanes are the tag of the rest, for who has the sites' key."""
    prime, (low, high) = 2**61 - 1, opened.lanes[-2:].tolist()
    cipher = Cipher(algorithms.AES(derive(tag_key, "tag", plan)), modes.CTR(bytes(16))).encryptor()
    factors = np.frombuffer(cipher.update(bytes(8 * len(opened.vector))), "<u8").tolist()
    made = sum((each & prime) * value for each, value in zip(factors, opened.vector.tolist(), strict=True))
    pads = (int.from_bytes(derive(tag_key, "tag pad", plan, site), "big") for site in opened.survivors)
    return (low + 2**31 * high - made - sum(pads)) % prime == 0


def rebuild(shares: dict[int, bytes]) -> bytes:
    """The secret of 32 bytes at 0 of the polynomial through the shares, by their points."""
    total = 0
    for point, share in shares.items():
        up = down = 1
        for other in set(shares) - {point}:
            up, down = up * other % PRIME, down * (other - point) % PRIME
        total += int.from_bytes(share, "big") * up * pow(down, -1, PRIME)
    need(total % PRIME < 2**256, "shares do not give a secret")
    return (total % PRIME).to_bytes(32, "big")


def unpack(data: bytes) -> object:
    """MessagePack of maps, lists, strings and bytes; nothing left over."""
    value, end = _unpack(data, 0)
    need(end == len(data), "bytes are left over")
    return value


_WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


def _unpack(data: bytes, at: int) -> tuple[object, int]:
    head, at = data[at], at + 1
    if head in _WIDTHS:
        size, at = int.from_bytes(data[at : at + _WIDTHS[head]], "big"), at + _WIDTHS[head]
    else:
        size = head & (0x1F if head >= 0xA0 else 0x0F)
        head = {0x80: 0xDE, 0x90: 0xDC, 0xA0: 0xD9, 0xB0: 0xD9}[head & 0xF0]
    if head < 0xDC:
        value = data[at : at + size]
        need(len(value) == size, "a message is cut off")
        return (value if head < 0xD9 else value.decode()), at + size
    items = []
    for _ in range(size if head < 0xDE else 2 * size):
        item, at = _unpack(data, at)
        items.append(item)
    return (items if head < 0xDE else dict(zip(items[::2], items[1::2], strict=True))), at


class ReplayedSum(NamedTuple):
    """What a sum comes to: int64 of the plan's length over the survivors, its lanes; and whose shares alone count."""

    vector: np.ndarray
    lanes: np.ndarray
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]


@refusing
def replay_round(folder: Path, roster: Roster, run: str, number: int) -> dict[str, ReplayedSum]:
    """Every sum of a round, by ``purpose/step/attempt``."""
    base = folder / "runs" / run / "sums" / str(number)
    found = sorted(path.parent.relative_to(base).as_posix() for path in base.glob("*/*/*/plan"))
    return {name: Replay(folder, roster, f"runs/{run}/sums/{number}/{name}").opened() for name in found}


class Replay:
    """One sum: each object under its prefix, signed by its sender for this very plan."""

    def __init__(self, folder: Path, roster: Roster, prefix: str) -> None:
        self.folder, self.roster, self.prefix, self.hub = folder, roster, prefix, roster.coordinator.name
        data = open_object(folder, f"{prefix}/plan/{self.hub}", roster)[1]
        self.plan, self.digest = json.loads(data), sha256(data).hexdigest()
        self.cohort, self.needed = self.plan["cohort"], self.plan["threshold"]
        need(len(self.cohort) >= 3 and sorted(set(self.cohort)) == self.cohort, "the cohort is not one")
        need(self.needed == 2 * len(self.cohort) // 3 + 1, "the threshold is another")
        need(self.plan["roster_digest"] == roster.digest, "the plan is of another roster")
        bits = self.plan["ring_bits"]
        self.shape = Shape(bits, self.plan["length"], self.plan["lanes"] + (2 if bits >= 32 else 0))
        self.included, self.survivors, self.agreed = map(self._listed, ("share", "masked", "agree"))
        is_nested = set(self.agreed) <= set(self.survivors) <= set(self.included) <= set(self.cohort)
        least = max(self.needed, self.plan["min_survivors"])
        need(is_nested and len(self.survivors) >= least, "the lists of sites do not fit the plan")
        self.dropped = [name for name in self.included if name not in self.survivors]
        self.shares = {name: unpack(self._read("share", name)) for name in self.included}

    def opened(self) -> ReplayedSum:
        """The sum over the survivors; every seed and share fits its commitment."""
        statement = {"plan": self.digest, "included": self.included, "survivors": self.survivors}
        equal = [name for name in self.agreed if unpack(self._read("agree", name)) == statement]
        need(len(equal) >= self.needed, "too few sites agreed")
        there = [name for name in self.agreed if (self.folder / f"{self.prefix}/open/{name}").exists()]
        self.opens = {name: unpack(self._read("open", name)) for name in there}
        total = np.zeros(self.shape.length + self.shape.lanes, dtype=np.uint64)
        for name in self.survivors:
            total += words(self._read("masked", name), self.shape)
            total -= mask(self._secret("mask", name), self.shape)
        for name in self.dropped:
            for peer, seed in self._pair_seeds(name, self._secret("key", name)).items():
                stream = mask(seed, self.shape)
                total += stream if name > peer else -stream
        return ReplayedSum(*signed(total, self.shape), tuple(self.survivors), tuple(self.dropped))

    def _read(self, phase: str, name: str) -> bytes:
        head, payload = open_object(self.folder, f"{self.prefix}/{phase}/{name}", self.roster)
        told = (head["sender"], head["plan"], head["kind"])
        need(told == (name, self.digest, "roster" if name == self.hub else phase), f"{phase} of {name}")
        return payload

    def _listed(self, phase: str) -> list[str]:
        """The coordinator's list of a phase, whose objects are the ones that lie there."""
        digests = json.loads(self._read(phase, self.hub))["digests"]
        for name, digest in digests.items():
            data = (self.folder / f"{self.prefix}/{phase}/{name}").read_bytes()
            need(sha256(data).hexdigest() == digest, f"the {phase} of {name} is not the one listed")
        return sorted(digests)

    def _secret(self, kind: str, owner: str) -> bytes:
        """b_j or k_j from t shares that fit their commitments; others are left out."""
        committed, good = self.shares[owner][f"{kind}_shares"], {}
        for holder, told in self.opens.items():
            need(not set(told["mask_shares"]) & set(told["key_shares"]), f"{holder} gave both shares")
            share = told[f"{kind}_shares"].get(owner, b"")
            if commitment(f"{kind} share", self.digest, share) == committed[holder]:
                good[self.cohort.index(holder) + 1] = share
        need(len(good) >= self.needed, f"too few good shares of {owner}")
        secret = rebuild(dict(sorted(good.items())[: self.needed]))
        label = {"mask": "mask seed", "key": "wrap key"}[kind]
        is_owners = commitment(label, self.digest, secret) == self.shares[owner][label.replace(" ", "_")]
        need(is_owners, f"{owner} shared another secret")
        return secret

    def _pair_seeds(self, owner: str, key: bytes) -> dict[str, bytes]:
        """The seeds between a dropped site and the survivors, as both ends committed to them."""
        box, wrapped = AESGCM(derive(key, "wrap", self.digest)), self.shares[owner]["wrapped"]
        plain, seeds = box.decrypt(bytes(12), wrapped, self.digest.encode()), {}
        for at, peer in enumerate(name for name in self.cohort if name != owner):
            seed = plain[32 * at : 32 * at + 32]
            if peer in self.survivors:
                ends = self.shares[owner]["pair_seeds"][peer], self.shares[peer]["pair_seeds"][owner]
                need(set(ends) == {commitment("pair seed", self.digest, seed)}, f"{owner} and {peer} differ")
                seeds[peer] = seed
        return seeds
