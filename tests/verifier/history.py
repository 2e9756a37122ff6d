"""Checks an exchange without any of FedHealth's code, as docs/explanation/trust.md ("The bytes") describes it."""

import base64
import functools
import json
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

MAGIC, SIGNATURES = b"FEDHEAL\x01", 64 + 3309
HEADER_TYPE = "application/vnd.fedhealth.header.v1+json"
ROSTER_TYPE = "application/vnd.fedhealth.roster.v1+json"
ENTRY_TYPE = "application/vnd.in-toto+json"
MALFORMED = (KeyError, IndexError, TypeError, ValueError, OSError, InvalidSignature, InvalidTag)


class Refused(Exception):
    """Something is not what it should be."""


def need(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)


def refusing(function):
    """Whatever is missing, malformed or wrongly signed is `Refused`."""

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except MALFORMED as error:
            raise Refused(f"{type(error).__name__} in {function.__name__}: {error}") from error

    return guarded


def canonical(value: object) -> bytes:
    """RFC 8785, for values without fractions and names within the basic plane."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parsed(data: bytes) -> dict:
    value = json.loads(data)
    need(canonical(value) == data, "JSON is not in canonical form")
    return value


def pae(kind: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body)


def unbase64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "base64 has another spelling")
    return data


def unbase64url(text: str) -> bytes:
    """Without padding."""
    return unbase64(text.translate({ord("-"): "+", ord("_"): "/"}) + "=" * (-len(text) % 4))


class Party(NamedTuple):
    name: str
    role: str
    ed25519: bytes
    mldsa65: bytes

    def check(self, message: bytes, signatures: bytes) -> None:
        """Ed25519 || ML-DSA-65: both must verify."""
        Ed25519PublicKey.from_public_bytes(self.ed25519).verify(signatures[:64], message)
        MLDSA65PublicKey.from_public_bytes(self.mldsa65).verify(signatures[64:], message)


class Roster(NamedTuple):
    digest: str
    parties: dict[str, Party]

    @property
    def coordinator(self) -> Party:
        return next(party for party in self.parties.values() if party.role == "coordinator")


@refusing
def open_roster(data: bytes, *, digest: str) -> Roster:
    """The signed roster, which must be the one of ``digest``."""
    signed = parsed(data)
    body, told = canonical(signed["roster"]), signed["roster"]["parties"]
    need(sha256(body).hexdigest() == digest, "the roster is another one")
    keys = {each["name"]: [unbase64url(each[key]) for key in ("ed25519", "mldsa65")] for each in told}
    roster = Roster(
        digest, {each["name"]: Party(each["name"], each["role"], *keys[each["name"]]) for each in told}
    )
    need([each["role"] for each in told].count("coordinator") == 1, "there is not one coordinator")
    raw = b"".join(unbase64url(signed["signatures"][key]) for key in ("ed25519", "mldsa65"))
    roster.coordinator.check(pae(ROSTER_TYPE, body), raw)
    return roster


@refusing
def open_envelope(data: bytes, roster: Roster) -> tuple[dict, bytes]:
    """Header and payload, once both signatures of the sender verify."""
    need(data[:8] == MAGIC, "an object is of another format")
    end = 12 + int.from_bytes(data[8:12], "big")
    head, payload = parsed(data[12:end]), data[end:-SIGNATURES]
    need(head["schema_version"] == 1 and head["algorithms"] == ["ed25519", "mldsa65"], "another version")
    need(len(data) == end + head["payload_bytes"] + SIGNATURES, "an object has a wrong size")
    need(sha256(payload).hexdigest() == head["payload_digest"], "a payload is another one")
    roster.parties[head["sender"]].check(pae(HEADER_TYPE, data[12:end]), data[-SIGNATURES:])
    return head, payload


@refusing
def open_object(folder: Path, key: str, roster: Roster) -> tuple[dict, bytes]:
    """An object where its sender put it, under a key that is its sender's."""
    head, payload = open_envelope((folder / key).read_bytes(), roster)
    need(head["key"] == key, f"{key} was posted elsewhere")
    segments = key.split("/")
    named = {segments[-1], *(after for at, after in pairwise(segments) if at == "sites")}
    owners = {name for name in named & set(roster.parties) if roster.parties[name].role == "site"}
    need(owners <= {head["sender"]}, f"{key} is another party's")
    is_site = roster.parties[head["sender"]].role == "site"
    need(bool(owners) or not is_site, f"{key} is not for a site to post")
    return head, payload


@refusing
def open_entry(data: bytes, roster: Roster) -> dict:
    """The in-toto statement of a log entry, signed by the coordinator."""
    envelope, party = parsed(data), roster.coordinator
    names = [signature["keyid"] for signature in envelope["signatures"]]
    need(names == [f"{party.name}/ed25519", f"{party.name}/mldsa65"], "an entry has other signatures")
    need(envelope["payloadType"] == ENTRY_TYPE, "an entry is of another type")
    body = unbase64(envelope["payload"])
    party.check(pae(ENTRY_TYPE, body), b"".join(unbase64(each["sig"]) for each in envelope["signatures"]))
    return json.loads(body)


@refusing
def open_checkpoint(data: bytes, roster: Roster, party: Party) -> tuple[int, bytes]:
    """Size and root of a note over this roster's log that the party signed."""
    text, _, signed = data.decode().partition("\n\n")
    kinds = (b"\x01" + party.ed25519, b"\xfffedhealth.dev/mldsa65\n" + party.mldsa65)
    raw = b""
    for line, kind in zip(signed.removesuffix("\n").split("\n"), kinds, strict=True):
        dash, name, value = line.split(" ")
        key_id = sha256(party.name.encode() + b"\n" + kind).digest()[:4]
        need((dash, name, unbase64(value)[:4]) == ("\N{EM DASH}", party.name, key_id), "another key signed")
        raw += unbase64(value)[4:]
    party.check(f"{text}\n".encode(), raw)
    origin, size, root = text.split("\n")
    need(signed.endswith("\n") and origin == f"fedhealth.dev/log/{roster.digest}", "another log's checkpoint")
    return int(size), unbase64(root)


def merkle_root(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1."""
    if len(leaves) < 2:
        return sha256(b"\x00" + leaves[0] if leaves else b"").digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + merkle_root(leaves[:half]) + merkle_root(leaves[half:])).digest()


class History(NamedTuple):
    """Statements of the log, in order; size of the newest checkpoint that two thirds of the sites co-signed."""

    statements: list[dict]
    cosigned: int


@refusing
def open_log(folder: Path, roster: Roster) -> History:
    """The log; its checkpoints, co-signatures and tiles, and every object that it names, are checked."""
    keys = keys_under(folder, "log")
    entries = [key for key in keys if key.startswith("log/entries/")]
    need(entries == [f"log/entries/{i:08d}" for i in range(len(entries))], "the log has a gap")
    need(f"log/checkpoints/{len(entries):08d}" in keys, "no checkpoint covers all entries")
    leaves, cosigners = [(folder / key).read_bytes() for key in entries], dict.fromkeys(range(len(keys)), 0)
    for key in keys:
        _, kind, name, *signer = key.split("/")
        data = (folder / key).read_bytes()
        if kind == "tile":
            check_tile(name, signer, data, leaves)
        elif kind != "entries":
            need(kind == ("cosignatures" if signer else "checkpoints"), f"{key} is not part of a log")
            party = roster.parties[signer[0]] if signer else roster.coordinator
            size, root = open_checkpoint(data, roster, party)
            is_placed = name == f"{size:08d}" and size <= len(leaves)
            need(is_placed and merkle_root(leaves[:size]) == root, f"{key} does not fit the entries")
            cosigners[size] += party.role == "site"
    statements = [open_entry(leaf, roster) for leaf in leaves]
    for subject in (subject for statement in statements for subject in statement["subject"]):
        name, digest = subject["name"], subject["digest"]["sha256"]
        if name == "roster:current":
            need(digest == roster.digest, "the log names another roster")
        elif not name.startswith("model:"):  # files of a released model lie in the registry
            need(sha256((folder / name).read_bytes()).hexdigest() == digest, f"{name} is another")
    enough = -(-2 * (len(roster.parties) - 1) // 3)
    return History(statements, max((size for size, count in cosigners.items() if count >= enough), default=0))


def check_tile(level: str, groups: list[str], data: bytes, leaves: list[bytes]) -> None:
    """Hashes of up to 256 subtrees side by side, each over 256^level leaves."""
    width = int(groups.pop()) if groups[-2:-1] and groups[-2].endswith(".p") else 256
    first = 256 * int("".join(group.strip("x.p") for group in groups))
    span = 256 ** int(level)
    need((first + width) * span <= len(leaves), "a tile covers entries that are not there")
    hashes = [merkle_root(leaves[i * span : (i + 1) * span]) for i in range(first, first + width)]
    need(b"".join(hashes) == data, "a tile does not fit the entries")


def keys_under(folder: Path, prefix: str) -> list[str]:
    paths = (folder / prefix).rglob("*")
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def open_exchange(folder: Path, roster: Roster) -> History:
    """Every object, and the log."""
    for key in keys_under(folder, ""):
        if not key.startswith((".", "log/")):
            open_object(folder, key, roster)
    return open_log(folder, roster)
