"""What the coordinator waits for, and looks at, when it closes a round."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

from fedhealth.audit import Checkpoint
from fedhealth.audit.checkpoints import cosigners_needed
from fedhealth.audit.log import TransparencyLog, cosignature_key
from fedhealth.config import Timeouts
from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.exchange.envelope import unseal
from fedhealth.rounds.objects import Manifest, site_key
from fedhealth.rounds.replay import Verdicts, read_verdicts


def news_of(board: Board, keys: Sequence[str], *, timeout_s: float, poll_s: float) -> Iterator[int]:
    """Yield, until time is up, whenever more of the keys are there: how many."""
    deadline, known = time.monotonic() + timeout_s, 0
    while known < len(keys) and time.monotonic() < deadline:
        there = sum(board.exists(key) for key in keys)
        if there > known:
            known = there
            yield known
        time.sleep(poll_s)


def await_verdicts(
    board: Board, manifest: Manifest, aggregate_digest: str, *, needed: int, timeouts: Timeouts
) -> Verdicts:
    """Wait until so many sites have replayed the round that one of them is honest.

    Raises:
      PolicyError: fewer came to the published aggregate in time.
    """
    keys = [site_key(manifest.run, manifest.round, site, "verdict") for site in board.roster.sites]
    found = Verdicts()
    for _ in news_of(board, keys, timeout_s=timeouts.verify_timeout_s, poll_s=timeouts.poll_s):
        found = read_verdicts(board, manifest, aggregate_digest)
        if len(found.agree) >= needed:
            return found
    raise PolicyError(
        f"round {manifest.round}: {len(found.agree)} sites came to the published sums, {needed} must",
        "see the logs of the sites, or bring more of them back and start the round again",
    )


def await_cosigners(
    board: Board, log: TransparencyLog, checkpoint: Checkpoint, *, timeouts: Timeouts
) -> tuple[str, ...]:
    """Give the sites time to co-sign a checkpoint; returns who has."""
    keys = [cosignature_key(checkpoint.size, site) for site in board.roster.sites]
    found: tuple[str, ...] = ()
    for _ in news_of(board, keys, timeout_s=timeouts.phase_timeout_s, poll_s=timeouts.poll_s):
        found = log.cosigners(checkpoint)
        if len(found) >= cosigners_needed(board.roster):
            break
    return found


def signed_objects(
    board: Board, keys: Iterable[str], *, blame: Callable[[str, str], None]
) -> dict[str, tuple[str, int]]:
    """By key, digest and bytes of what is its sender's and stands where it was posted; junk does not enter the log.

    One object at a time is in memory.
    """
    objects: dict[str, tuple[str, int]] = {}
    for key in keys:
        data = board.exchange.get(key)
        try:
            is_in_place = unseal(data, roster=board.roster, limits=board.limits).header.key == key
        except ProtocolError as error:
            blame(key, error.problem)
            continue
        if is_in_place:
            objects[key] = sha256(data).hexdigest(), len(data)
    return objects
