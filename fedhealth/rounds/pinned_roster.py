"""The roster as a party finds it in its own folder, checked against what it has pinned.

    roster.json         the parties, signed by the coordinator
    ca.pem              the consortium's authority, pinned when the party was enrolled; then also
    certificates.pem    the certificates of all parties
    crl.pem             the authority's list of revocations, never older than one seen before

Without ``ca.pem`` the roster is the one of the expected digest, or without that trusted as it is found.
"""

from datetime import UTC, datetime
from pathlib import Path

import rfc8785

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.identity.certificates import Trust, read_certificates
from fedhealth.identity.key_files import write_private
from fedhealth.identity.roster import Roster, SignedRoster

_SEEN = "crl-number"


def read_roster(folder: Path, *, expected_digest: str | None, now: float) -> Roster:
    """The roster that this party may trust.

    Args:
      folder: of the party; its keys are in ``keys``.
      expected_digest: what the roster's digest must be, if that is known.
      now: seconds since 1970, for the validity of certificates.

    Raises:
      ConfigError: a file is missing or damaged.
      ProtocolError: another roster than expected, a signature does not verify, or a party is not certified.
    """
    path = folder / "roster.json"
    if not path.exists():
        raise ConfigError(
            f"{folder} has no roster.json", "enrol this party; the coordinator makes the roster"
        )
    roster = SignedRoster.from_bytes(path.read_bytes()).verify(expected_digest=expected_digest)
    if (folder / "ca.pem").exists():
        _check_certified(folder, roster, datetime.fromtimestamp(now, UTC))
    return roster


def certificates_in(folder: Path) -> tuple[int, bytes] | None:
    """The number of the list of revocations, and the certificates with it as canonical JSON; None without an authority."""
    if not (folder / "ca.pem").exists():
        return None
    root, certificates, revoked = (_read(folder / name) for name in ("ca.pem", "certificates.pem", "crl.pem"))
    told = {"authority": root.decode(), "certificates": certificates.decode(), "revoked": revoked.decode()}
    return Trust.of(root, revoked).list_number, rfc8785.dumps(told)


def _check_certified(folder: Path, roster: Roster, now: datetime) -> None:
    trust = Trust.of(_read(folder / "ca.pem"), _read(folder / "crl.pem"))
    seen = folder / "keys" / _SEEN
    before = int(seen.read_text()) if seen.exists() else 0
    if trust.list_number < before:
        raise ProtocolError(
            f"crl.pem is number {trust.list_number}, and number {before} was here before",
            "take the newest crl.pem from the authority",
        )
    trust.check(roster, read_certificates(_read(folder / "certificates.pem")), now)
    if trust.list_number > before:
        seen.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(seen, str(trust.list_number).encode())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise ConfigError(
            f"{path.name} is missing beside ca.pem", "put it there; the coordinator has it with the roster"
        ) from None
