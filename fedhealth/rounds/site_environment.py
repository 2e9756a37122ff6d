"""A site as its worker's environment describes it: its folder is never a flow parameter.

FEDHEALTH_EXCHANGE      folder or s3:// URL of the exchange
FEDHEALTH_SITE          the site's name
FEDHEALTH_SITE_DIR      the site's own folder: keys/, roster.json, ca.pem, certificates.pem, crl.pem, cdm/, journal/, policy.yaml
FEDHEALTH_SITE_FHIR     folder of FHIR files; FEDHEALTH_SITE_MAP optional
FEDHEALTH_SITE_OMOP     instead of it: folder of OMOP files, or postgresql://host/database?schema=cdm
FEDHEALTH_KEY_PASSPHRASE optional passphrase of what is in keys/
FEDHEALTH_ROSTER_DIGEST digest that roster.json must have; needed without ca.pem
FEDHEALTH_TIMEOUTS      optional JSON with fields of ``Timeouts``
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from fedhealth.config import Timeouts
from fedhealth.errors import ConfigError
from fedhealth.exchange import Board, open_exchange
from fedhealth.identity import PartyKeys, Roster, SiteSecrets, load_or_encapsulate, pair_keys
from fedhealth.identity.key_files import PASSPHRASE
from fedhealth.identity.tag_key import holder, load_or_draw, open_sealed, seal_for_all
from fedhealth.rounds.environment import required, timeouts_from
from fedhealth.rounds.pinned_roster import read_roster
from fedhealth.rounds.site import SiteNode
from fedhealth.rounds.site_data import SiteFolder

KEM_TIMEOUT_S = 120.0


def join(
    folder: SiteFolder,
    *,
    keys: PartyKeys,
    roster: Roster,
    secrets: SiteSecrets,
    exchange_url: str,
    timeouts: Timeouts,
    passphrase: str | None = None,
) -> SiteNode:
    """Join the exchange as a site: post the KEM ciphertexts of this roster (E0), agree on all pair keys and on the tag key.

    Raises:
      TransportError: an earlier site has not posted its ciphertexts in time.
      ProtocolError: a ciphertext or its signature is wrong.
    """
    board = Board(open_exchange(exchange_url), roster, keys, clock=time.time)
    own = load_or_encapsulate(folder.keys, keys, roster, passphrase=passphrase)
    board.post(_kem_key(roster, keys.name), kind="kem", payload=own.payload)
    earlier = [site for site in roster.sites if site < keys.name]
    payloads = {site: _read_kem(board, site, timeouts) for site in earlier}
    pairs = pair_keys(keys, roster, own, payloads)
    return SiteNode(
        name=keys.name,
        folder=folder,
        board=board,
        coordinator=roster.coordinator,
        secrets=secrets,
        pair_keys=pairs,
        tag_key=_tag_key(board, folder.keys, pairs, timeouts, passphrase),
        timeouts=timeouts,
    )


def site_from_environment(environ: Mapping[str, str]) -> SiteNode:
    """Build the site from its worker's environment.

    Raises:
      ConfigError: a variable or the pinned roster is missing.
    """
    return _site(
        required(environ, "FEDHEALTH_SITE"),
        folder_from_environment(environ),
        required(environ, "FEDHEALTH_EXCHANGE"),
        environ.get("FEDHEALTH_ROSTER_DIGEST") or None,
        timeouts_from(environ),
        environ.get(PASSPHRASE) or None,
    )


def folder_from_environment(environ: Mapping[str, str]) -> SiteFolder:
    """The site's own folder."""
    return SiteFolder(Path(required(environ, "FEDHEALTH_SITE_DIR")))


def secrets_from_environment(environ: Mapping[str, str]) -> SiteSecrets:
    """The site's own secrets, drawn at the first load."""
    folder = folder_from_environment(environ).keys
    return SiteSecrets.load_or_create(folder, passphrase=environ.get(PASSPHRASE) or None)


def source_from_environment(environ: Mapping[str, str]) -> tuple[str, Path | None, Path | None]:
    """The site's name, its FHIR folder (None where it has OMOP) and its map folder."""
    site_map = environ.get("FEDHEALTH_SITE_MAP")
    has_omop = omop_from_environment(environ) is not None
    fhir = None if has_omop else Path(required(environ, "FEDHEALTH_SITE_FHIR"))
    return required(environ, "FEDHEALTH_SITE"), fhir, None if site_map is None else Path(site_map)


def omop_from_environment(environ: Mapping[str, str]) -> str | None:
    """The site's OMOP folder or database, if it has one instead of FHIR."""
    return environ.get("FEDHEALTH_SITE_OMOP") or None


@lru_cache(maxsize=4)
def _site(
    name: str,
    folder: SiteFolder,
    exchange_url: str,
    pinned: str | None,
    timeouts: Timeouts,
    passphrase: str | None,
) -> SiteNode:
    return join(
        folder,
        keys=PartyKeys.load_or_create(folder.keys, name=name, role="site", passphrase=passphrase),
        roster=read_roster(folder.path, expected_digest=pinned, now=time.time()),
        secrets=SiteSecrets.load_or_create(folder.keys, passphrase=passphrase),
        exchange_url=exchange_url,
        timeouts=timeouts,
        passphrase=passphrase,
    )


def _read_kem(board: Board, site: str, timeouts: Timeouts) -> bytes:
    key = _kem_key(board.roster, site)
    board.wait(key, timeout_s=KEM_TIMEOUT_S, poll_s=timeouts.poll_s)
    return board.read(key, kind="kem", sender=site, role="site").payload


def _tag_key(
    board: Board, folder: Path, pairs: Mapping[str, bytes], timeouts: Timeouts, passphrase: str | None
) -> bytes:
    """The key that all sites share: drawn and posted by the first of them, read by the others."""
    roster, name, first = board.roster, board.keys.name, holder(board.roster)
    path = f"epochs/{roster.digest}/tag/{first}"
    if name == first:
        key = load_or_draw(folder, roster, passphrase=passphrase)
        sealed = seal_for_all(key, roster, pairs)
        board.post(path, kind="tag", payload=sealed)
        if board.read(path, kind="tag", sender=first, role="site").payload != sealed:
            raise ConfigError(
                "the tag key of this roster that was posted is not the one in keys/",
                "restore keys/tag-*.json, or make a new roster",
            )
        return key
    board.wait(path, timeout_s=KEM_TIMEOUT_S, poll_s=timeouts.poll_s)
    payload = board.read(path, kind="tag", sender=first, role="site").payload
    return open_sealed(payload, roster, site=name, pair_key=pairs[first])


def _kem_key(roster: Roster, site: str) -> str:
    return f"epochs/{roster.digest}/kem/{site}"
