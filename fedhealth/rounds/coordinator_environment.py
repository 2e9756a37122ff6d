"""The coordinator as its process environment describes it: never by a flow parameter, never with a site's path.

FEDHEALTH_EXCHANGE      folder or s3:// URL of the exchange
FEDHEALTH_COORDINATOR   the coordinator's own folder: keys/, roster.json, ca.pem, certificates.pem, crl.pem, runs/
FEDHEALTH_KEY_PASSPHRASE optional passphrase of what is in keys/
FEDHEALTH_ROSTER_DIGEST digest that roster.json must have; optional
FEDHEALTH_TIMEOUTS      optional JSON with fields of ``Timeouts``
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from fedhealth.audit.log import TransparencyLog
from fedhealth.config import Timeouts
from fedhealth.exchange import Board, open_exchange
from fedhealth.identity import PartyKeys
from fedhealth.identity.key_files import PASSPHRASE
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.environment import required, timeouts_from
from fedhealth.rounds.pinned_roster import read_roster


def coordinator_from_environment(environ: Mapping[str, str]) -> CoordinatorNode:
    """Build the coordinator from its environment; the same settings give the same object.

    Raises:
      ConfigError: a variable or the pinned roster is missing.
    """
    return _coordinator(
        required(environ, "FEDHEALTH_EXCHANGE"),
        Path(required(environ, "FEDHEALTH_COORDINATOR")),
        environ.get("FEDHEALTH_ROSTER_DIGEST") or None,
        timeouts_from(environ),
        environ.get(PASSPHRASE) or None,
    )


@lru_cache(maxsize=4)
def _coordinator(
    exchange_url: str, folder: Path, pinned: str | None, timeouts: Timeouts, passphrase: str | None
) -> CoordinatorNode:
    roster = read_roster(folder, expected_digest=pinned, now=time.time(), is_own=True)
    keys = PartyKeys.load_or_create(
        folder / "keys", name=roster.coordinator, role="coordinator", passphrase=passphrase
    )
    exchange = open_exchange(exchange_url)
    board = Board(exchange, roster, keys, clock=time.time)
    return CoordinatorNode(
        name=keys.name,
        folder=folder,
        board=board,
        log=TransparencyLog(exchange, board),
        timeouts=timeouts,
    )
