"""Trust before the certificate authority: sites publish the public halves, the launcher pins them.

The coordinator's keys are made in a process of their own, which signs the roster; the launcher never holds
a private key. Keys that are there already are reused; a roster of the same parties has the same digest.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from fedhealth.embedded.pool import SitePool, start_forkserver
from fedhealth.identity import PartyKeys, PublicIdentity, Roster, SignedRoster
from fedhealth.rounds.journal import write_durably

COORDINATOR = "coordinator"


def enrol(pool: SitePool, *, coordinator_folder: Path, pin: Path) -> SignedRoster:
    """Collect the public keys of all sites, have the coordinator sign the roster, pin it.

    Guarantees: every site has checked the pinned roster and shares a key with each other site when this returns.

    Args:
      pool: the site processes.
      coordinator_folder: where the coordinator keeps its keys.
      pin: where the pinned roster is written for ``audit verify``.
    """
    publics = tuple(pool.call(site, "enrol") for site in pool.sites)
    with ProcessPoolExecutor(max_workers=1, mp_context=start_forkserver()) as executor:
        signed = executor.submit(_sign_roster, coordinator_folder, publics).result()
    roster = SignedRoster.from_bytes(signed)
    write_durably(pin, signed)
    for site in pool.sites:
        pool.call(site, "admit", signed, roster.roster.digest)
    return roster


def _sign_roster(folder: Path, publics: tuple[bytes, ...]) -> bytes:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = PartyKeys.load_or_create(folder / "keys", name=COORDINATOR, role="coordinator")
    parties = (keys.public, *(PublicIdentity.from_bytes(public) for public in publics))
    return keys.sign_roster(Roster.of(parties)).to_bytes()
