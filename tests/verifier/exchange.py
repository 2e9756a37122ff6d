"""Checks an exchange and replays its masked sums by "The bytes" of docs/explanation (trust.md, secure-sum.md) alone."""

import base64
import json
import re
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.ciphers import Cipher, aead, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec.msgpack import decode

Refused = (LookupError, TypeError, AttributeError, ValueError, OSError, InvalidSignature, InvalidTag)
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)  # RFC 8785
SCHEMES, MARKS = ["ed25519", "mldsa65"], [b"\x01", b"\xfffedhealth.dev/mldsa65\n"]
VERSION, PRIME, TAG_PRIME = "fedhealth secagg 1", 2**521 - 1, 2**61 - 1


def need(holds: bool, what: str) -> None:  # of all that is missing or wrong, something in Refused is raised
    if not holds:
        raise ValueError(what)


def parsed(data: bytes) -> dict:
    value = json.loads(data)
    need(CANONICAL.encode(value).encode() == data, "JSON is not in canonical form")
    return value


def unbase64(text: str, *, last: bytes = b"+/") -> bytes:
    data = base64.b64decode(text, altchars=last, validate=True)
    need(base64.b64encode(data, altchars=last).decode() == text, "base64 has another spelling")
    return data


def both(texts: dict) -> list[bytes]:
    """The two keys or signatures of a party, from base64url without padding."""
    return [unbase64(texts[name] + "=" * (-len(texts[name]) % 4), last=b"-_") for name in SCHEMES]


class Roster(NamedTuple):
    digest: str
    coordinator: str
    sites: set[str]
    keys: dict[str, list[bytes]]  # two of each party

    def check(self, party: str, body: bytes, signatures: bytes, *, kind: str = "") -> None:
        """Ed25519 || ML-DSA-65 must both verify, over DSSE's encoding of a body of a kind, or over the body itself."""
        message = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body) if kind else body
        ed25519.Ed25519PublicKey.from_public_bytes(self.keys[party][0]).verify(signatures[:64], message)
        mldsa.MLDSA65PublicKey.from_public_bytes(self.keys[party][1]).verify(signatures[64:], message)


def open_roster(data: bytes, *, digest: str) -> Roster:
    """The signed roster, which must be the one of ``digest``."""
    signed = parsed(data)
    body, parties = CANONICAL.encode(signed["roster"]).encode(), signed["roster"]["parties"]
    need(sha256(body).hexdigest() == digest, "the roster is another one")
    (hub,) = (party["name"] for party in parties if party["role"] == "coordinator")
    keys = {party["name"]: both(party) for party in parties}
    roster, signatures = Roster(digest, hub, set(keys) - {hub}, keys), b"".join(both(signed["signatures"]))
    roster.check(hub, body, signatures, kind="application/vnd.fedhealth.roster.v1+json")
    return roster


def open_object(folder: Path, key: str, roster: Roster) -> tuple[dict, bytes]:
    """Header and payload of an object under its key, signed by its sender: of a site if the key names one, and by that."""
    data = (folder / key).read_bytes()
    need(data[:8] == b"FEDHEAL\x01", "an object is of another format")
    end, signed_at = 12 + int.from_bytes(data[8:12], "big"), len(data) - 64 - 3309
    head, payload = parsed(data[12:end]), data[end:signed_at]
    need(head["schema_version"] == 1 and head["algorithms"] == SCHEMES, "another version")
    need(head["payload_bytes"] == signed_at - end, "an object has a wrong size")
    need(sha256(payload).hexdigest() == head["payload_digest"], "a payload is another one")
    sender, kind = head["sender"], "application/vnd.fedhealth.header.v1+json"
    roster.check(sender, data[12:end], data[signed_at:], kind=kind)
    named = {key.split("/")[-1], *re.findall("(?<=/sites/)[^/]+", f"/{key}")}
    need(head["key"] == key and named & roster.sites == {sender} & roster.sites, f"{key} is not its sender's")
    return head, payload


def open_entry(data: bytes, roster: Roster) -> dict:
    """The in-toto statement of a log entry, signed by the coordinator."""
    envelope, hub, kind = parsed(data), roster.coordinator, "application/vnd.in-toto+json"
    names, signatures = zip(*((each["keyid"], each["sig"]) for each in envelope["signatures"]), strict=True)
    need(names == (f"{hub}/ed25519", f"{hub}/mldsa65") and envelope["payloadType"] == kind, "another's entry")
    body = unbase64(envelope["payload"])
    roster.check(hub, body, b"".join(map(unbase64, signatures)), kind=kind)
    return json.loads(body)


def open_checkpoint(data: bytes, roster: Roster, *signers: str) -> tuple[int, bytes]:
    """Size and root of a note over this roster's log that these parties signed, one behind the other."""
    text, _, signed = data.decode().partition("\n\n")
    lines = [line.split(" ") for line in signed.removesuffix("\n").split("\n")]
    need(len(lines) == 2 * len(signers), "not two signatures of each")
    for at, party in enumerate(signers):
        head, pairs = party.encode() + b"\n", zip(MARKS, roster.keys[party], strict=True)
        parts = [("\N{EM DASH}", party, sha256(head + mark + key).digest()[:4]) for mark, key in pairs]
        found = [(dash, name, unbase64(value)) for dash, name, value in lines[2 * at : 2 * at + 2]]
        need([(*rest, value[:4]) for *rest, value in found] == parts, "another key signed")
        roster.check(party, f"{text}\n".encode(), b"".join(value[4:] for *_, value in found))
    origin, size, root = text.split("\n")
    need(signed.endswith("\n") and origin == f"fedhealth.dev/log/{roster.digest}", "another log's checkpoint")
    return int(size), unbase64(root)


def merkle_root(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1."""
    if len(leaves) < 2:
        return sha256(b"\x00" + leaves[0] if leaves else b"").digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + merkle_root(leaves[:half]) + merkle_root(leaves[half:])).digest()


def check_tile(key: str, data: bytes, leaves: list[bytes]) -> None:
    """Hashes of up to 256 subtrees side by side, each over 256^level leaves."""
    level, index, width = re.fullmatch(r"log/tile/(\d+)/((?:x\d{3}/)*\d{3})(?:\.p/(\d+))?", key).groups("256")
    first, span = 256 * int(re.sub("[x/]", "", index)), 256 ** int(level)
    need((first + int(width)) * span <= len(leaves), "a tile covers entries that are not there")
    roots = [merkle_root(leaves[at * span : (at + 1) * span]) for at in range(first, first + int(width))]
    need(b"".join(roots) == data, "a tile does not fit the entries")


def open_exchange(folder: Path, roster: Roster) -> tuple[list[dict], int]:
    """Checks all there is. Gives the log's statements, and the newest size that two thirds of the sites co-signed."""
    keys = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for key in [key for key in keys if not key.startswith((".", "log/"))]:
        open_object(folder, key, roster)
    log = {key: (folder / key).read_bytes() for key in keys if key.startswith("log/")}
    leaves, cosigned = [log[key] for key in log if key.startswith("log/entries/")], []
    need({f"log/entries/{at:08d}" for at in range(len(leaves))} <= set(log), "the log has a gap")
    need(f"log/checkpoints/{len(leaves):08d}" in log, "no checkpoint covers all entries")
    for key, data in log.items():
        if key.startswith("log/tile/"):
            check_tile(key, data, leaves)
        elif not key.startswith("log/entries/"):
            sites = [key.split("/")[-1]] if key.startswith("log/cosignatures/") else []
            size, root = open_checkpoint(data, roster, roster.coordinator, *sites)
            place = f"log/cosignatures/{size:08d}/{sites[0]}" if sites else f"log/checkpoints/{size:08d}"
            need(key == place and set(sites) <= roster.sites, f"{key} is misplaced")
            need(size <= len(leaves) and merkle_root(leaves[:size]) == root, f"{key} does not fit")
            cosigned += [size] * len(sites)
    for subject in [each for leaf in leaves for each in open_entry(leaf, roster)["subject"]]:
        name, digest = subject["name"], subject["digest"]["sha256"]
        if name == "roster:current":
            need(digest == roster.digest, "the log names another roster")
        elif not name.startswith("model:"):  # files of a released model lie in the registry
            need(digest == sha256((folder / name).read_bytes()).hexdigest(), f"{name} is another")
    enough = [size for size in cosigned if 3 * cosigned.count(size) >= 2 * len(roster.sites)]
    return [open_entry(leaf, roster) for leaf in leaves], max(enough, default=0)


def derive(key: bytes, *parts: str, size: int = 32) -> bytes:
    info = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in (VERSION, *parts))
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(key)


def commitment(label: str, plan: str, value: bytes) -> bytes:
    return sha256(f"{VERSION} {label} {plan} ".encode() + value).digest()


def stream(key: bytes, count: int, *, width: int = 8) -> np.ndarray:
    """Little-endian words of so many bytes of AES-256-CTR, from counter 0."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(count * width)), f"<u{width}").astype(np.uint64)


def rebuild(shares: dict[int, bytes]) -> bytes:
    """The secret of 32 bytes at 0 of the polynomial through the shares, by their points."""
    total = 0
    for point, share in shares.items():
        ratios = (other * pow(other - point, -1, PRIME) for other in set(shares) - {point})
        total += int.from_bytes(share, "big") * prod(ratios)
    need(total % PRIME < 2**256, "shares do not give a secret")
    return (total % PRIME).to_bytes(32, "big")


class Shape(NamedTuple):
    """How a site's numbers lie in its words: ``length`` of ``bits``, ``lanes`` of 64, and of exact ones a tag."""

    bits: int
    length: int
    lanes: int

    def words(self, data: bytes) -> np.ndarray:
        """An upload as integers: vector, lanes, tag."""
        used, end = self.length * self.bits, -(-self.length * self.bits // 8)
        need(len(data) == end + 8 * (self.lanes + (self.bits >= 32)), "an upload has a wrong size")
        bits = np.unpackbits(np.frombuffer(data[:end], np.uint8), bitorder="little")
        need(not bits[used:].any(), "an upload has bits left over")
        vector = bits[:used].reshape(-1, self.bits) @ (np.uint64(1) << np.arange(self.bits, dtype=np.uint64))
        return np.concatenate([vector, np.frombuffer(data[end:], "<u8")]).astype(object)

    def mask(self, seed: bytes) -> np.ndarray:
        """PRG(seed), of vector, lanes and tag."""
        width = next(size for size in (1, 2, 4, 8) if 8 * size >= self.bits)
        vector = stream(derive(seed, "vector"), self.length, width=width)
        words = np.concatenate([vector, stream(derive(seed, "lanes"), self.lanes)]).astype(object)
        return np.append(words, [int.from_bytes(derive(seed, "tag"), "big")] if self.bits >= 32 else [])

    def signed(self, total: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Vector and lanes as the signed integers that the words stand for, and the tag."""
        vector, lanes, tag = np.split(total, [self.length, self.length + self.lanes])
        parts = ((vector, 1 << self.bits - 1), (lanes, 1 << 63))
        return *(((part + half) % (2 * half) - half).astype(np.int64) for part, half in parts), sum(tag)


class ReplayedSum(NamedTuple):
    vector: np.ndarray  # int64, of the plan's length
    lanes: np.ndarray
    tag: int
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]

    def is_tagged(self, tag_key: bytes, plan: str) -> bool:
        """Whether the tag is that of the vector, for who has the sites' key."""
        counts = {"outer": -(-len(self.vector) // 4096), "inner": 4096}
        words = (stream(derive(tag_key, f"tag {use}", plan), counts[use]) % 2**61 for use in counts)
        factors = np.outer(*(each.astype(object) for each in words)).ravel()[: len(self.vector)]
        pads = (int.from_bytes(derive(tag_key, "tag pad", plan, site), "big") for site in self.survivors)
        rest = self.tag - self.vector @ factors - sum(pads)
        return rest % TAG_PRIME == 0 and {*(self.vector >> 60)} <= {0, -1}


class Replay:
    """One sum: each object under its prefix, signed by its sender for this very plan."""

    def __init__(self, folder: Path, roster: Roster, prefix: str) -> None:
        self.folder, self.roster, self.prefix = folder, roster, prefix
        data = open_object(folder, f"{prefix}/plan/{roster.coordinator}", roster)[1]
        plan, self.digest = json.loads(data), sha256(data).hexdigest()
        self.cohort, self.needed, bits = plan["cohort"], plan["threshold"], plan["ring_bits"]
        need(len(self.cohort) >= 3 and sorted(set(self.cohort)) == self.cohort, "the cohort is not one")
        need(self.needed == 2 * len(self.cohort) // 3 + 1, "the threshold is another")
        need(plan["roster_digest"] == roster.digest, "the plan is of another roster")
        self.shape = Shape(bits, plan["length"], plan["lanes"])
        included, survivors, agreed = map(self._listed, ("share", "masked", "agree"))
        need(set(agreed) <= set(survivors) <= set(included) <= set(self.cohort), "the lists are not nested")
        need(len(survivors) >= max(self.needed, plan["min_survivors"]), "too few sites survived")
        self.survivors, self.dropped = survivors, sorted(set(included) - set(survivors))
        self.shares = {name: decode(self._read("share", name)) for name in included}
        agreement = {"plan": self.digest, "included": included, "survivors": survivors}
        statements = [decode(self._read("agree", name)) for name in agreed]
        need(statements.count(agreement) >= self.needed, "too few sites agreed")
        keys = {name: folder / f"{prefix}/open/{name}" for name in agreed}
        self.opens = {name: decode(self._read("open", name)) for name in agreed if keys[name].exists()}

    def opened(self) -> ReplayedSum:
        """The sum over the survivors; every seed and share fits its commitment."""
        total = sum(self.shape.words(self._read("masked", name)) for name in self.survivors)
        total -= sum(self.shape.mask(self._secret("mask", name)) for name in self.survivors)
        for name in self.dropped:
            for peer, seed in self._pair_seeds(name, self._secret("key", name)).items():
                total += (1 if name > peer else -1) * self.shape.mask(seed)
        return ReplayedSum(*self.shape.signed(total), tuple(self.survivors), tuple(self.dropped))

    def _read(self, phase: str, name: str) -> bytes:
        head, payload = open_object(self.folder, f"{self.prefix}/{phase}/{name}", self.roster)
        kind = "roster" if name == self.roster.coordinator else phase
        need((head["sender"], head["plan"], head["kind"]) == (name, self.digest, kind), f"{phase} of {name}")
        return payload

    def _listed(self, phase: str) -> list[str]:
        """The coordinator's list of a phase, whose objects are the ones that lie there."""
        digests = json.loads(self._read(phase, self.roster.coordinator))["digests"]
        for name, digest in digests.items():
            data = (self.folder / f"{self.prefix}/{phase}/{name}").read_bytes()
            need(sha256(data).hexdigest() == digest, f"the {phase} of {name} is not the one listed")
        return sorted(digests)

    def _secret(self, kind: str, owner: str) -> bytes:
        """b_j or k_j from t shares that fit their commitments; others are left out."""
        committed, good, label = self.shares[owner], {}, "mask seed" if kind == "mask" else "wrap key"
        for holder, told in self.opens.items():
            need(not set(told["mask_shares"]) & set(told["key_shares"]), f"{holder} gave both shares")
            share = told[f"{kind}_shares"].get(owner, b"")
            if commitment(f"{kind} share", self.digest, share) == committed[f"{kind}_shares"][holder]:
                good[self.cohort.index(holder) + 1] = share
        need(len(good) >= self.needed, f"too few good shares of {owner}")
        secret = rebuild(dict(sorted(good.items())[: self.needed]))
        need(commitment(label, self.digest, secret) == committed[label.replace(" ", "_")], "another secret")
        return secret

    def _pair_seeds(self, owner: str, key: bytes) -> dict[str, bytes]:
        """The seeds between a dropped site and the survivors, as both ends committed to them."""
        box, own = aead.AESGCM(derive(key, "wrap", self.digest)), self.shares[owner]
        plain, seeds = box.decrypt(bytes(12), own["wrapped"], self.digest.encode()), {}
        for at, peer in enumerate(name for name in self.cohort if name != owner):
            if peer in self.survivors:
                seeds[peer] = plain[32 * at : 32 * at + 32]
                ends = {own["pair_seeds"][peer], self.shares[peer]["pair_seeds"][owner]}
                need(ends == {commitment("pair seed", self.digest, seeds[peer])}, "ends of a pair differ")
        return seeds
