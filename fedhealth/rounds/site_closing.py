"""What a site does when a round is closed: it sees to it that the sums are right, and that the log says so.

No aggregate is used before ``colluders + 1`` sites have come to it, or this site itself has. The sites that are first in the
round's order replay it at once, the next ones only if those do not answer, one group after the other.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from fedhealth.audit import Entry, Witness
from fedhealth.audit.log import entry_key
from fedhealth.audit.witness import aggregate_key, closed_round
from fedhealth.config import Timeouts
from fedhealth.errors import MissingObjectError, ProtocolError, TransportError
from fedhealth.exchange.board import Board
from fedhealth.exchange.envelope import unseal
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import Aggregate, read_aggregate
from fedhealth.rounds.layout import RoundShape
from fedhealth.rounds.objects import (
    Manifest,
    PhaseRoster,
    Verdict,
    part_of,
    site_key,
    sum_prefix,
)
from fedhealth.rounds.posted import read_posted
from fedhealth.rounds.replay import (
    Verdicts,
    read_verdicts,
    replay_round,
    verifier_order,
    verifiers_needed,
)

_LAST_TURN = 3
"""Of the turns in which sites replay a round, each a fourth of the time for it."""


@dataclass(slots=True, kw_only=True)
class RoundClosing:
    """One site's checks of closed rounds.

    Args:
      board: the exchange as this site sees it.
      coordinator: its name.
      witness: this site's memory of the log.
      timeouts: how long it waits.
      tag_key: that of the sites.
      took_part: whether this site has answered a run.
      account_of: what may be told of a run.
      shape_of: what everybody knows of a round before its sums.
    """

    board: Board
    coordinator: str
    witness: Witness
    timeouts: Timeouts
    tag_key: bytes = field(repr=False)
    took_part: Callable[[str], bool]
    account_of: Callable[[str], RunAccount]
    shape_of: Callable[[Manifest], RoundShape]
    _accepted: dict[tuple[str, int], str] = field(default_factory=dict)

    def accepted(self, manifest: Manifest) -> Aggregate:
        """The aggregate of a closed round, once it is known to be what the round's sums come to (R5).

        Raises:
          MissingObjectError: the round is not closed.
          ProtocolError: the coordinator published something else.
        """
        aggregate = read_aggregate(self.board, self.coordinator, manifest.run, manifest.round)
        digest = sha256(aggregate.to_bytes()).hexdigest()
        if self._accepted.get((manifest.run, manifest.round)) != digest:
            self._settle(manifest, digest)
            self._accepted[manifest.run, manifest.round] = digest
        return aggregate

    def observe(self) -> None:
        """Co-sign the newest checkpoint of the log, if there is a newer one than the last."""
        self.witness.observe(self._check_entry)

    def witness_round(self, manifest: Manifest) -> None:
        """Co-sign the checkpoint that covers a closed round.

        Raises:
          ProtocolError: the log forks, or leaves out what this site gave.
          TransportError: the coordinator did not log the round in time.
        """
        deadline = time.monotonic() + self.timeouts.coordinator_timeout_s
        while not self.witness.has_seen(manifest.run, manifest.round):
            next_entry = entry_key(self.witness.last.size)
            if not self.board.exists(next_entry) or self.witness.observe(self._check_entry) is None:
                if time.monotonic() > deadline:
                    raise TransportError(
                        f"round {manifest.round} of {manifest.run} was not logged in time",
                        "see whether the coordinator still runs",
                    )
                time.sleep(self.timeouts.poll_s)

    # --- private

    def _settle(self, manifest: Manifest, digest: str) -> None:
        """Return once the digest is known to be right: by this site's own replay, or by enough verdicts."""
        account = self.account_of(manifest.run)
        needed = verifiers_needed(account.study)
        ready = tuple(site for site in self.board.roster.sites if self._was_ready(manifest, site))
        order = verifier_order(manifest, ready)
        turn = order.index(self._name) // needed if self._name in order else _LAST_TURN
        found = self._await_verdicts(manifest, digest, needed=needed, turn=min(turn, _LAST_TURN))
        if self._name not in found.agree and (found.differ or len(found.agree) < needed):
            self._replay(manifest, digest, account)

    def _replay(self, manifest: Manifest, digest: str, account: RunAccount) -> None:
        own = replay_round(
            self.board, manifest, self.shape_of(manifest), account=account, tag_key=self.tag_key
        )
        computed = sha256(own.to_bytes()).hexdigest()
        self.board.post(
            site_key(manifest.run, manifest.round, self._name, "verdict"),
            kind="verdict",
            payload=Verdict(aggregate=computed).to_bytes(),
            study=manifest.study_digest,
            run=manifest.run,
            round=manifest.round,
        )
        if computed != digest:
            raise ProtocolError(
                f"the published aggregate of round {manifest.round} is not what its sums come to",
                "stop, and report the coordinator: what is on the exchange proves it",
            )

    def _await_verdicts(self, manifest: Manifest, digest: str, *, needed: int, turn: int) -> Verdicts:
        """The verdicts, once there are enough, or one differs, or it is this site's turn to replay the round."""
        deadline = time.monotonic() + self.timeouts.verify_timeout_s * turn / (_LAST_TURN + 1)
        keys = [site_key(manifest.run, manifest.round, site, "verdict") for site in self.board.roster.sites]
        found, known = read_verdicts(self.board, manifest, digest), 0
        while len(found.agree) < needed and not found.differ and time.monotonic() < deadline:
            if (there := sum(self.board.exists(key) for key in keys)) > known:
                found, known = read_verdicts(self.board, manifest, digest), there
            else:
                time.sleep(self.timeouts.poll_s)
        return found

    def _was_ready(self, manifest: Manifest, site: str) -> bool:
        return self.board.exists(site_key(manifest.run, manifest.round, site, "ready"))

    def _check_entry(self, entry: Entry) -> None:
        """A round's entry names the aggregate that stands and, as it was listed, whatever vector of this site was counted."""
        closed = closed_round(entry)
        if closed is None:
            return
        (run, number), named = closed, entry.statement.subjects
        try:
            aggregate, manifest = (
                read_posted(self.board, run, number, kind) for kind in ("aggregate", "manifest")
            )
        except MissingObjectError:
            if self.took_part(run):
                raise
            return  # a run of others, whose objects need not be kept
        if named[aggregate_key(run, number)] != aggregate.digest:
            raise ProtocolError(
                f"the log names another aggregate of round {number} of {run} than there is",
                "report the coordinator",
            )
        for name in Manifest.from_bytes(manifest.payload).purposes:
            purpose, step = part_of(name)
            for phase in ("masked", "clear"):
                key = f"{sum_prefix(run, number, purpose, step=step)}/{phase}/{self._name}"
                if self._listed_digest(key) not in ("", named.get(key)):
                    raise ProtocolError(
                        f"the log leaves out what this site gave to round {number} of {run}",
                        "report the coordinator to the consortium",
                    )

    def _listed_digest(self, key: str) -> str:
        """The digest of this site's vector in the coordinator's list; empty if it was left out."""
        list_key = f"{key.rpartition('/')[0]}/{self.coordinator}"
        if not self.board.exists(list_key):
            return ""
        listed = unseal(self.board.exchange.get(list_key), roster=self.board.roster)
        if (listed.header.sender, listed.header.key) != (self.coordinator, list_key):
            raise ProtocolError(f"{list_key} is not the coordinator's", "treat it as forged")
        return PhaseRoster.from_bytes(listed.payload).digests.get(self._name, "")

    @property
    def _name(self) -> str:
        return self.board.keys.name
