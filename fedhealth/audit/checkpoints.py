"""Checkpoints of the log: C2SP signed notes, each party's with two signatures, one of each algorithm.

    fedhealth.dev/log/<roster digest>        origin
    42                                       number of entries
    <base64 of the RFC 9162 root>

    — coordinator <base64 of key id (4) || Ed25519 signature>
    — coordinator <base64 of key id (4) || ML-DSA-65 signature>

The text and the first line follow C2SP signed-note and tlog-checkpoint. The second line
departs: C2SP assigns no type to ML-DSA-65, so its key id is over type 0xff and a name of
our own, as the specification asks for unassigned types. Tools that know C2SP read the
note and skip that line; this module requires both.

A site co-signs a checkpoint by a note of its own over the same text. A checkpoint that at least two thirds of the sites have
co-signed cannot have a twin: two would need a third of the sites to sign twice.
"""

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256

from fedhealth.errors import ProtocolError
from fedhealth.identity.encoding import decode
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import PublicIdentity, Roster
from fedhealth.identity.signatures import ED25519_BYTES, SIGNATURES_BYTES, Signatures

MAX_NOTE_BYTES = 1 << 14
_KEY_ID_BYTES = 4
_MLDSA65_TYPE = b"\xfffedhealth.dev/mldsa65\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log.

    Attributes:
      size: number of entries.
      root: hex SHA-256, the RFC 9162 root over them.
    """

    size: int
    root: str


def cosigners_needed(roster: Roster) -> int:
    """Return how many sites must co-sign a checkpoint: two thirds, rounded up."""
    return -(-2 * len(roster.sites) // 3)


def origin(roster: Roster) -> str:
    """Return the name of the log of this roster, the first line of its checkpoints."""
    return f"fedhealth.dev/log/{roster.digest}"


def sign_checkpoint(checkpoint: Checkpoint, *, keys: PartyKeys, roster: Roster) -> bytes:
    """Return the signed note of ``checkpoint``."""
    text = _text(checkpoint, roster)
    raw = keys.sign(text).to_bytes()
    ids = _key_ids(keys.public)
    lines = (_line(keys.name, ids[0] + raw[:ED25519_BYTES]), _line(keys.name, ids[1] + raw[ED25519_BYTES:]))
    return text + b"\n" + b"".join(lines)


def open_checkpoint(data: bytes, *, roster: Roster, signer: str | None = None) -> Checkpoint:
    """Return what a signed note says once its signer's two signatures verify.

    Args:
      data: the note.
      roster: of the consortium.
      signer: whose note it must be; by default the coordinator's.

    Raises:
      ProtocolError: the form, the origin or a signature is not right.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise _bad(f"has more than {MAX_NOTE_BYTES} bytes")
    text, separator, signed = data.partition(b"\n\n")
    checkpoint = _parse_text(text + b"\n", roster)
    lines = signed.splitlines(keepends=True)
    if not separator or len(lines) != 2:
        raise _bad("does not have exactly two signatures")
    party = roster.party(signer or roster.coordinator)
    ids = _key_ids(party)
    raw = b"".join(_unline(line, party.name, key_id) for line, key_id in zip(lines, ids, strict=True))
    if len(raw) != SIGNATURES_BYTES:
        raise _bad("has signatures of a wrong size")
    party.check(text + b"\n", Signatures.from_bytes(raw))
    return checkpoint


def _text(checkpoint: Checkpoint, roster: Roster) -> bytes:
    root = base64.b64encode(bytes.fromhex(checkpoint.root)).decode("ascii")
    return f"{origin(roster)}\n{checkpoint.size}\n{root}\n".encode()


def _parse_text(text: bytes, roster: Roster) -> Checkpoint:
    lines = text.split(b"\n")
    if len(lines) != 4 or lines[0] != origin(roster).encode():
        raise _bad("is not of this consortium's log")
    try:
        checkpoint = Checkpoint(int(lines[1]), base64.b64decode(lines[2], validate=True).hex())
    except (ValueError, binascii.Error):
        raise _bad("has no size or root") from None
    if len(checkpoint.root) != 64 or checkpoint.size < 0 or _text(checkpoint, roster) != text:
        raise _bad("is not in canonical form")
    return checkpoint


def _key_ids(party: PublicIdentity) -> tuple[bytes, bytes]:
    name = party.name.encode()
    classical = sha256(name + b"\n\x01" + decode(party.ed25519)).digest()
    post_quantum = sha256(name + b"\n" + _MLDSA65_TYPE + decode(party.mldsa65)).digest()
    return classical[:_KEY_ID_BYTES], post_quantum[:_KEY_ID_BYTES]


def _line(name: str, value: bytes) -> bytes:
    return f"\N{EM DASH} {name} {base64.b64encode(value).decode('ascii')}\n".encode()


def _unline(line: bytes, name: str, key_id: bytes) -> bytes:
    start = f"\N{EM DASH} {name} ".encode()
    try:
        value = base64.b64decode(line[len(start) :].rstrip(b"\n"), validate=True)
    except (ValueError, binascii.Error):
        raise _bad("has a signature that is not base64") from None
    if _line(name, value) != line or value[:_KEY_ID_BYTES] != key_id:
        raise _bad("has a signature line of another key or form")
    return value[_KEY_ID_BYTES:]


def _bad(problem: str) -> ProtocolError:
    return ProtocolError(f"a checkpoint {problem}", "do not rely on this log; ask the coordinator why")
