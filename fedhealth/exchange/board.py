"""The board: posting and reading signed objects on an exchange, as one party."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise

from pydantic import ValidationError

from fedhealth.errors import ProtocolError, TransportError
from fedhealth.exchange.envelope import LIMITS, Header, Limits, Opened, seal, timestamp, unseal
from fedhealth.exchange.store import Exchange
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import Role, Roster

_PLACE = frozenset({"study", "run", "round", "purpose", "step", "attempt", "plan"})


@dataclass(frozen=True, slots=True)
class Reader:
    """The exchange, or a copy of it, as whoever knows the roster can read it.

    Guarantees: what ``read`` returns was signed by the named sender for exactly this
    key, kind, run, round, purpose, step and attempt.

    Attributes:
      exchange: the store.
      roster: the pinned roster that signatures are checked against.
      limits: what ``read`` accepts.
    """

    exchange: Exchange
    roster: Roster
    limits: Limits = field(default=LIMITS, kw_only=True)

    def read(
        self,
        key: str,
        *,
        kind: str,
        sender: str,
        role: Role,
        digest: str | None = None,
        study: str | None = None,
        run: str = "",
        round: int = 0,
        purpose: str = "",
        step: int = 0,
        attempt: int = 0,
        plan: str | None = None,
    ) -> Opened:
        """Return the object under ``key``, verified; its payload is not parsed.

        Guarantees: (1) envelope whole and both signatures (see ``unseal``), (2) digest
        when given, (3) the sender and its role, (4) a site's own name in the key, (5)
        key, kind, run, round, purpose, step and attempt equal the header's, study and
        plan when given.

        Raises:
          MissingObjectError: nothing is there yet.
          ProtocolError: any check fails.
          TransportError: the store failed.
        """
        place: dict[str, str | int] = {"run": run, "round": round, "purpose": purpose, "step": step}
        place["attempt"] = attempt
        place |= {name: value for name, value in (("study", study), ("plan", plan)) if value is not None}
        return read_object(
            self.exchange,
            key,
            roster=self.roster,
            kind=kind,
            sender=sender,
            role=role,
            digest=digest,
            limits=self.limits,
            **place,
        )

    def exists(self, key: str) -> bool:
        """Tell whether something, not yet verified, is under ``key``."""
        return self.exchange.exists(key)

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """Return the keys that start with ``prefix``, sorted."""
        return self.exchange.list(prefix)


@dataclass(frozen=True, slots=True)
class Board(Reader):
    """The exchange as one party sees it: a reader that posts, a site only under its own name.

    Attributes:
      keys: whose objects ``post`` makes.
      clock: seconds since 1970 (UTC), such as ``time.time``.
    """

    keys: PartyKeys
    clock: Callable[[], float] = field(kw_only=True)

    def post(
        self,
        key: str,
        *,
        kind: str,
        payload: bytes | memoryview,
        study: str = "",
        run: str = "",
        round: int = 0,
        purpose: str = "",
        step: int = 0,
        attempt: int = 0,
        plan: str = "",
    ) -> str:
        """Sign ``payload`` and put it under ``key``.

        Guarantees: idempotent. When this party has already posted that key for the same
        kind, run, round and so on, nothing is written and the existing digest returned,
        whatever ``payload`` is: what was said once stays said.

        Returns:
          Hex SHA-256 of the envelope.

        Raises:
          ProtocolError: the key is another party's, or taken by something else.
          TransportError: the store failed.
          ValueError: a header field is not valid.
        """
        check_may_post(key, self.keys.public.name, self.keys.role)
        try:
            header = Header(
                key=key,
                kind=kind,
                study=study,
                run=run,
                round=round,
                purpose=purpose,
                step=step,
                attempt=attempt,
                plan=plan,
                sender=self.keys.name,
                payload_digest=sha256(payload).hexdigest(),
                payload_bytes=len(payload),
                time=timestamp(self.clock()),
            )
        except ValidationError as error:
            raise ValueError(f"not a valid header: {error.errors()[0]['loc']}") from None
        if self.exchange.exists(key):
            return self._already_posted(header)
        data = seal(payload, header, keys=self.keys)
        try:
            self.exchange.put(key, data)
        except ProtocolError:  # another process of this party may have been faster
            return self._already_posted(header)
        return sha256(data).hexdigest()

    def wait(
        self,
        key: str,
        *,
        other: str | None = None,
        timeout_s: float,
        poll_s: float = 0.01,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Return as soon as something is under ``key``, or under ``other``.

        Raises:
          TransportError: nothing came within ``timeout_s`` seconds.
        """
        deadline = monotonic() + timeout_s
        while not any(self.exchange.exists(each) for each in (key, other) if each is not None):
            if monotonic() >= deadline:
                raise TransportError(
                    f"{key} did not appear within {timeout_s:g} s", "see why its sender is late"
                )
            sleep(poll_s)

    def _get(self, key: str) -> bytes:
        return self.exchange.get(key, max_bytes=self.limits.max_bytes)

    def _already_posted(self, wanted: Header) -> str:
        """Return the digest of this party's earlier post; raise when it is anything else."""
        opened = unseal(self._get(wanted.key), roster=self.roster, limits=self.limits)
        ignored = {"payload_digest", "payload_bytes", "time"}
        _compare(opened.header, wanted.model_dump(exclude=ignored), wanted.key)
        return opened.digest


def read_object(
    exchange: Exchange,
    key: str,
    *,
    roster: Roster,
    kind: str,
    sender: str,
    role: Role,
    digest: str | None = None,
    limits: Limits = LIMITS,
    **place: str | int,
) -> Opened:
    """Return a verified object; needs no keys, so that whoever knows the roster can read.

    Guarantees: as ``Board.read``; of the header's place (study, run, round, purpose, step,
    attempt, plan) what is given in ``place``.

    Raises:
      MissingObjectError: nothing is there yet.
      ProtocolError: any check fails.
      TransportError: the store failed.
      ValueError: ``place`` names something that is not a header field.
    """
    if not set(place) <= _PLACE:
        raise ValueError("not a field of a header's place")
    opened = unseal(exchange.get(key, max_bytes=limits.max_bytes), roster=roster, limits=limits)
    if digest is not None and opened.digest != digest:
        raise _mismatch(key, "digest")
    if roster.party(sender).role != role:
        raise _mismatch(key, "role")
    check_may_post(key, sender, role)
    _compare(opened.header, {"key": key, "kind": kind, "sender": sender, **place}, key)
    return opened


def check_may_post(key: str, name: str, role: Role) -> None:
    """Return when a party of that role may post under ``key``.

    A site may post only where its own name is the last segment or follows ``sites``, so a
    run or study that happens to bear its name gives it nothing.

    Raises:
      ProtocolError: it may not.
    """
    segments = key.split("/")
    if role == "site" and segments[-1] != name and ("sites", name) not in pairwise(segments):
        raise ProtocolError(f"the site {name} may not post {key}", "use a key with its own name")


def _compare(header: Header, expected: dict[str, object], key: str) -> None:
    for name, value in expected.items():
        if getattr(header, name) != value:
            raise _mismatch(key, name)


def _mismatch(key: str, what: str) -> ProtocolError:
    return ProtocolError(
        f"{key} has another {what} than expected", "treat it as misplaced, replayed or forged"
    )
