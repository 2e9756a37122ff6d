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

A site co-signs a checkpoint by putting its own two lines behind the coordinator's. A checkpoint that at least two thirds of
the sites have co-signed cannot have a twin: two would need a third of the sites to sign twice.
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
    return text + b"\n" + _lines(text, keys)


def cosign(note: bytes, *, keys: PartyKeys) -> bytes:
    """Return the coordinator's note with this party's two signatures behind the coordinator's."""
    text, _, _ = note.partition(b"\n\n")
    return note + _lines(text + b"\n", keys)


def open_checkpoint(data: bytes, *, roster: Roster) -> Checkpoint:
    """Return what a signed note says once the coordinator's two signatures, and no others, verify.

    Raises:
      ProtocolError: the form, the origin or a signature is not right.
    """
    return _open(data, roster, (roster.coordinator,))


def open_cosignature(data: bytes, *, roster: Roster, site: str) -> Checkpoint:
    """Return what the coordinator and a site have both signed; neither can make such a note without the other.

    Raises:
      ProtocolError: the form, the origin or a signature is not right.
    """
    return _open(data, roster, (roster.coordinator, site))


def _open(data: bytes, roster: Roster, signers: tuple[str, ...]) -> Checkpoint:
    if len(data) > MAX_NOTE_BYTES:
        raise _bad(f"has more than {MAX_NOTE_BYTES} bytes")
    text, separator, signed = data.partition(b"\n\n")
    checkpoint = _parse_text(text + b"\n", roster)
    lines = signed.splitlines(keepends=True)
    if not separator or len(lines) != 2 * len(signers):
        raise _bad("does not have exactly two signatures of each signer")
    for number, signer in enumerate(signers):
        _check_signed(text + b"\n", lines[2 * number : 2 * number + 2], roster.party(signer))
    return checkpoint


def _check_signed(text: bytes, lines: list[bytes], party: PublicIdentity) -> None:
    pairs = zip(lines, _key_ids(party), strict=True)
    raw = b"".join(_unline(line, party.name, key_id) for line, key_id in pairs)
    if len(raw) != SIGNATURES_BYTES:
        raise _bad("has signatures of a wrong size")
    party.check(text, Signatures.from_bytes(raw))


def _lines(text: bytes, keys: PartyKeys) -> bytes:
    """The two signature lines of a party."""
    raw, (classical, post_quantum) = keys.sign(text).to_bytes(), _key_ids(keys.public)
    first = _line(keys.name, classical + raw[:ED25519_BYTES])
    return first + _line(keys.name, post_quantum + raw[ED25519_BYTES:])


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
