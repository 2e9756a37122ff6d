"""The roster as a party finds it in its own folder, checked against what it has pinned.

    roster.json         the parties, signed by the coordinator
    ca.pem              the consortium's authority, pinned when the party was enrolled; then also
    certificates.pem    the certificates of all parties
    crl.pem             the authority's list of revocations, never older than one seen before

Without ``ca.pem`` the roster is the one of the expected digest. The coordinator, who signs it, needs neither.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

import rfc8785
from pydantic import TypeAdapter, ValidationError

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity.certificates import Trust, read_certificates
from fedhealth.identity.key_files import damaged, write_private
from fedhealth.identity.roster import Roster, SignedRoster

_SEEN = "crl-number"
"""In ``keys/``: by fingerprint of an authority, the number of its newest list that was seen."""
_NUMBERS = TypeAdapter(dict[str, int])


def read_roster(folder: Path, *, expected_digest: str | None, now: float, is_own: bool = False) -> Roster:
    """The roster that this party may trust.

    Args:
      folder: of the party; its keys are in ``keys``.
      expected_digest: what the roster's digest must be, if that is known.
      now: seconds since 1970, for the validity of certificates.
      is_own: whether this party signed the roster itself, so that it need not pin anything.

    Raises:
      ConfigError: a file is missing or damaged, or nothing is pinned.
      ProtocolError: another roster than expected, a signature does not verify, or a party is not certified.
    """
    path = folder / "roster.json"
    if not path.exists():
        raise ConfigError(
            f"{folder} has no roster.json", "enrol this party; the coordinator makes the roster"
        )
    roster = SignedRoster.from_bytes(path.read_bytes()).verify(expected_digest=expected_digest)
    if os.path.lexists(folder / "ca.pem") or (folder / "keys" / _SEEN).exists():
        _check_certified(folder, roster, datetime.fromtimestamp(now, UTC))
    elif expected_digest is None and not is_own:
        raise ConfigError(
            f"{folder} pins neither an authority nor a roster",
            "put ca.pem there (fedhealth pki enroll), or set FEDHEALTH_ROSTER_DIGEST",
        )
    return roster


def certificates_in(folder: Path, roster: Roster, now: float) -> tuple[int, bytes] | None:
    """The number of the list of revocations, and the certificates with it as canonical JSON; None without an authority.

    Raises:
      ConfigError, ProtocolError: they do not certify the roster now.
    """
    if not os.path.lexists(folder / "ca.pem"):
        return None
    trust = _check_certified(folder, roster, datetime.fromtimestamp(now, UTC))
    root, certificates, revoked = (_read(folder / name) for name in ("ca.pem", "certificates.pem", "crl.pem"))
    told = {"authority": root.decode(), "certificates": certificates.decode(), "revoked": revoked.decode()}
    return trust.list_number, rfc8785.dumps(told)


def _check_certified(folder: Path, roster: Roster, now: datetime) -> Trust:
    trust = Trust.of(_read(folder / "ca.pem"), _read(folder / "crl.pem"))
    path, authority = folder / "keys" / _SEEN, trust.digest.hex()
    try:
        seen = _NUMBERS.validate_json(path.read_bytes()) if path.exists() else {}
    except ValidationError:
        raise damaged(path) from None
    before = seen.get(authority, 0)
    if trust.list_number < before:
        raise ProtocolError(
            f"crl.pem is number {trust.list_number}, and number {before} was here before",
            "take the newest crl.pem from the authority",
        )
    if trust.list_number > before:  # whatever it says of this roster: it is the authority's
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(path, rfc8785.dumps(seen | {authority: trust.list_number}))
    trust.check(roster, read_certificates(_read(folder / "certificates.pem")), now)
    return trust


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise ConfigError(
            f"{path} is missing",
            "put it there; the coordinator has it with the roster, ca.pem is the authority's",
        ) from None
