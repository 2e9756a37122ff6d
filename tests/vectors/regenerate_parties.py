"""Write parties.json: known answers of keys, seals, signatures and the log, computed without any of fedhealth's code.

    python tests/vectors/regenerate_parties.py

ML-DSA signatures and ML-KEM ciphertexts are drawn anew each time: they are known by what they verify and open to. Run it
only when the protocol's version changes.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

sys.path.insert(0, str(Path(__file__).parents[1]))

from verifier.exchange import CANONICAL, commitment, derive, merkle_root

TARGET = Path(__file__).with_name("parties.json")
HUB, FIRST, SECOND, THIRD = "coordinator", "site-a", "site-b", "site-c"
KEY = f"runs/run-1/rounds/0/sites/{FIRST}/ready"
PLAN = "ab" * 32
HEADER_TYPE = "application/vnd.fedhealth.header.v1+json"
ROSTER_TYPE = "application/vnd.fedhealth.roster.v1+json"
ENTRY_TYPE = "application/vnd.in-toto+json"


def canonical(value: object) -> bytes:
    return CANONICAL.encode(value).encode()


def pae(kind: str, body: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body)


def main() -> None:
    """Compute every answer and write the file."""
    parties = [Keys(HUB, "coordinator"), *(Keys(name, "site") for name in (FIRST, SECOND, THIRD))]
    hub, first, second, _ = parties
    roster = canonical({"schema_version": 1, "parties": [each.public() for each in parties]})
    digest = hashlib.sha256(roster).hexdigest()
    pair_key = _pair_key(first, second, digest)
    envelope = _envelope(first, b"payload")
    entries = [_entry(hub, digest, hashlib.sha256(envelope).hexdigest())]
    note = f"fedhealth.dev/log/{digest}\n1\n{_b64(merkle_root(entries))}\n".encode()
    checkpoint = _note(hub, note)
    answers = {
        "private": {each.name: each.seeds() for each in parties},
        "roster": {"digest": digest, "signed": _signed_roster(hub, roster)},
        "pair_key": pair_key,
        "tag_key": _tag_key(bytes.fromhex(pair_key["key"]), digest),
        "seal": _seal(bytes.fromhex(pair_key["key"])),
        "wrap": _wrap(),
        "envelope": {"key": KEY, "sender": FIRST, "payload": b"payload".hex(), "data": _b64(envelope)},
        "entry": {"data": entries[0].decode(), "root": merkle_root(entries).hex()},
        "checkpoint": checkpoint,
        "cosignature": checkpoint + _note(first, note).partition("\n\n")[2],
    }
    TARGET.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


class Keys:
    """The four keys of a party, from seeds that follow from its name."""

    def __init__(self, name: str, role: str) -> None:
        self.name, self.role = name, role
        seeds = {kind: bytes.fromhex(seed) for kind, seed in self.seeds().items()}
        self.ed25519 = Ed25519PrivateKey.from_private_bytes(seeds["ed25519"])
        self.mldsa65 = MLDSA65PrivateKey.from_seed_bytes(seeds["mldsa65"])
        self.x25519 = X25519PrivateKey.from_private_bytes(seeds["x25519"])
        self.mlkem768 = MLKEM768PrivateKey.from_seed_bytes(seeds["mlkem768"])

    def seeds(self) -> dict[str, str]:
        """32 bytes each, 64 of ML-KEM."""
        kinds = {"ed25519": 32, "mldsa65": 32, "x25519": 32, "mlkem768": 64}
        return {
            kind: hashlib.sha512(f"{self.name}/{kind}".encode()).digest()[:size].hex()
            for kind, size in kinds.items()
        }

    def public(self) -> dict[str, str]:
        """As it stands in a roster."""
        kinds = ("ed25519", "mldsa65", "x25519", "mlkem768")
        keys = {kind: _b64url(getattr(self, kind).public_key().public_bytes_raw()) for kind in kinds}
        return {"name": self.name, "role": self.role, **keys}

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        """Ed25519, ML-DSA-65."""
        return self.ed25519.sign(message), self.mldsa65.sign(message)


def _signed_roster(hub: Keys, roster: bytes) -> str:
    pair = zip(("ed25519", "mldsa65"), hub.sign(pae(ROSTER_TYPE, roster)), strict=True)
    signatures = {kind: _b64url(value) for kind, value in pair}
    return canonical({"roster": json.loads(roster), "signatures": signatures}).decode()


def _pair_key(first: Keys, second: Keys, roster: str) -> dict[str, str]:
    secret, ciphertext = second.mlkem768.public_key().encapsulate()
    shared = first.x25519.exchange(second.x25519.public_key())
    names = [first.name, second.name]
    info = canonical(["fedhealth/e0/v1", roster, *names, hashlib.sha256(ciphertext).hexdigest()])
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared + secret)
    return {"ciphertext": _b64url(ciphertext), "secret": secret.hex(), "key": key.hex()}


def _tag_key(pair: bytes, roster: str) -> dict[str, str]:
    key = bytes(range(32))
    info = canonical(["fedhealth/e0/tag/v1", roster, FIRST, SECOND])
    sealing = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(pair)
    sealed = AESGCM(sealing).encrypt(bytes(12), key, roster.encode())
    payload = {"schema_version": 1, "roster": roster, "sealed": {SECOND: _b64url(sealed)}}
    return {"key": key.hex(), "payload": canonical(payload).decode()}


def _seal(pair: bytes) -> dict[str, str]:
    mask_share, key_share = (bytes([number] * 66) for number in (1, 2))
    box = AESGCM(derive(pair, "seal", FIRST, SECOND, PLAN))
    return {
        "plan": PLAN,
        "mask_share": mask_share.hex(),
        "key_share": key_share.hex(),
        "sealed": box.encrypt(bytes(12), mask_share + key_share, PLAN.encode()).hex(),
        "mask_share_commitment": commitment("mask share", PLAN, mask_share).hex(),
        "key_share_commitment": commitment("key share", PLAN, key_share).hex(),
    }


def _wrap() -> dict[str, str]:
    key, seeds = bytes([5] * 32), bytes([6] * 32) + bytes([7] * 32)
    wrapped = AESGCM(derive(key, "wrap", PLAN)).encrypt(bytes(12), seeds, PLAN.encode())
    return {"plan": PLAN, "key": key.hex(), "seeds": seeds.hex(), "wrapped": wrapped.hex()}


def _envelope(sender: Keys, payload: bytes) -> bytes:
    head = canonical(
        {
            "schema_version": 1,
            "key": KEY,
            "kind": "ready",
            "study": "cd" * 32,
            "run": "run-1",
            "round": 0,
            "purpose": "",
            "step": 0,
            "attempt": 0,
            "plan": "",
            "sender": sender.name,
            "payload_digest": hashlib.sha256(payload).hexdigest(),
            "payload_bytes": len(payload),
            "algorithms": ["ed25519", "mldsa65"],
            "time": "2026-01-02T03:04:05.678Z",
        }
    )
    signatures = b"".join(sender.sign(pae(HEADER_TYPE, head)))
    return b"FEDHEAL\x01" + len(head).to_bytes(4, "big") + head + payload + signatures


def _entry(hub: Keys, roster: str, envelope: str) -> bytes:
    subjects = {"roster:current": roster, KEY: envelope}
    body = canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": n, "digest": {"sha256": subjects[n]}} for n in sorted(subjects)],
            "predicateType": "https://fedhealth.dev/round/v1",
            "predicate": {"run": "run-1", "round": 0},
        }
    )
    names = (f"{hub.name}/ed25519", f"{hub.name}/mldsa65")
    pair = zip(names, hub.sign(pae(ENTRY_TYPE, body)), strict=True)
    signatures = [{"keyid": name, "sig": _b64(value)} for name, value in pair]
    return canonical({"payload": _b64(body), "payloadType": ENTRY_TYPE, "signatures": signatures})


def _note(party: Keys, text: bytes) -> str:
    public = (party.ed25519.public_key(), party.mldsa65.public_key())
    kinds = (b"\x01", b"\xfffedhealth.dev/mldsa65\n")
    lines = []
    for key, kind, signature in zip(public, kinds, party.sign(text), strict=True):
        identity = hashlib.sha256(party.name.encode() + b"\n" + kind + key.public_bytes_raw()).digest()[:4]
        lines.append(f"\N{EM DASH} {party.name} {_b64(identity + signature)}\n")
    return text.decode() + "\n" + "".join(lines)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


if __name__ == "__main__":
    main()
