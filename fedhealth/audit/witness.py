"""A site as a witness of the log: it co-signs every checkpoint that extends the history it has seen, and no other.

    log/cosignatures/00000042/SITE    the site's own signed note over the text of checkpoint 42

Two histories that some honest witness has seen are found: by the witness itself, when the coordinator shows it a checkpoint that
does not extend its last, and by comparing its last with what the others have co-signed. The two signed notes that contradict
each other are then kept as evidence.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedhealth.audit.checkpoints import MAX_NOTE_BYTES, Checkpoint, open_checkpoint, sign_checkpoint
from fedhealth.audit.log import (
    CHECKPOINTS,
    COSIGNATURES,
    Entry,
    checkpoint_key,
    cosignature_key,
    entry_key,
)
from fedhealth.audit.merkle import consistency_path, leaf_hash, root_of, verify_consistency
from fedhealth.audit.statements import MAX_ENTRY_BYTES, StatementKind, entry_digest, open_statement
from fedhealth.audit.tiles import TiledTree
from fedhealth.errors import ProtocolError
from fedhealth.exchange.store import Exchange
from fedhealth.identity.key_files import damaged, write_private
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import Roster


def closed_round(entry: Entry) -> tuple[str, int] | None:
    """The run and the round that an entry closes; None for another entry."""
    told = entry.statement.predicate
    run, number = told.get("run"), told.get("round")
    if entry.statement.kind is StatementKind.ROUND and isinstance(run, str) and isinstance(number, int):
        return run, number
    return None


class _Seen(BaseModel):
    """What a witness remembers: its last checkpoint, and by run the last round whose entry it has checked."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: Literal[1] = 1
    size: Annotated[int, Field(ge=0)] = 0
    root: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    rounds: Mapping[str, int] = {}


class Witness:
    """One site's memory of the log, in its own folder.

    Guarantees: of any two checkpoints that it has co-signed one extends the other; the memory is on the disk before the
    co-signature leaves.
    """

    def __init__(self, exchange: Exchange, keys: PartyKeys, roster: Roster, *, folder: Path) -> None:
        """Read what was seen before.

        Raises:
          ConfigError: the memory is damaged.
        """
        self._exchange, self._keys, self._roster = exchange, keys, roster
        self._folder = folder
        self._path = folder / f"witness-{roster.digest[:32]}.json"
        self._seen = self._load()

    @property
    def last(self) -> Checkpoint:
        """The last checkpoint that this site has co-signed; of size 0 before the first."""
        return Checkpoint(self._seen.size, self._seen.root)

    def has_seen(self, run: str, number: int) -> bool:
        """Whether the entry of a closed round is under a checkpoint that this site has co-signed."""
        return self._seen.rounds.get(run, -1) >= number

    def observe(self, check: Callable[[Entry], None] = lambda entry: None) -> Checkpoint | None:
        """Check the newest checkpoint and co-sign it; None when there is none newer than the last.

        (1) It is the coordinator's, of this roster's log. (2) It extends the last one that this site has co-signed, and
        everything that others have co-signed at that size. (3) Each new entry is the coordinator's, and in the tree. (4) Each
        passes ``check``.

        Args:
          check: raises ProtocolError for an entry that this site knows to be wrong.

        Raises:
          ProtocolError: one of these does not hold; nothing was co-signed.
          MissingObjectError: an entry or a tile is not there.
        """
        found = self._newest()
        if found is None:
            return None
        checkpoint, note = found
        tree = TiledTree(self._exchange, checkpoint.size)
        self._check_extends(checkpoint, note, tree)
        rounds = dict(self._seen.rounds)
        for index in range(self._seen.size, checkpoint.size):
            entry = self._entry(index, tree)
            check(entry)
            if (closed := closed_round(entry)) is not None:
                rounds[closed[0]] = closed[1]
        self._remember(_Seen(size=checkpoint.size, root=checkpoint.root, rounds=rounds), note)
        self._cosign(checkpoint)
        return checkpoint

    # --- private

    def _newest(self) -> tuple[Checkpoint, bytes] | None:
        keys = self._exchange.list(CHECKPOINTS)
        if not keys or keys[-1] <= checkpoint_key(self._seen.size):
            return None
        note = self._exchange.get(keys[-1], max_bytes=MAX_NOTE_BYTES)
        checkpoint = open_checkpoint(note, roster=self._roster)
        if keys[-1] != checkpoint_key(checkpoint.size):
            raise ProtocolError("a checkpoint stands under another size", "treat the log as forged")
        return checkpoint, note

    def _check_extends(self, checkpoint: Checkpoint, note: bytes, tree: TiledTree) -> None:
        last = self.last
        if last.size == 0:
            is_extended = root_of(tree.node, checkpoint.size).hex() == checkpoint.root
        else:
            is_extended = verify_consistency(
                old_size=last.size,
                old_root=bytes.fromhex(last.root),
                size=checkpoint.size,
                root=bytes.fromhex(checkpoint.root),
                proof=consistency_path(tree.node, old_size=last.size, size=checkpoint.size),
            )
        if not is_extended:
            raise self._forked(note)
        for key in self._exchange.list(f"{COSIGNATURES}{last.size:08d}/"):
            other = self._exchange.get(key, max_bytes=MAX_NOTE_BYTES)
            if key.rpartition("/")[2] in self._roster.sites and not self._agrees(key, other):
                raise self._forked(other)

    def _agrees(self, key: str, note: bytes) -> bool:
        """Whether another site has co-signed what this one has; a note that is nobody's says nothing."""
        try:
            said = open_checkpoint(note, roster=self._roster, signer=key.rpartition("/")[2])
        except ProtocolError:
            return True
        return said == self.last or said.size != self._seen.size

    def _entry(self, index: int, tree: TiledTree) -> Entry:
        data = self._exchange.get(entry_key(index), max_bytes=MAX_ENTRY_BYTES)
        if leaf_hash(data) != tree.node(0, index):
            raise ProtocolError(f"log entry {index} is not the one in the tree", "treat the log as forged")
        return Entry(index, entry_digest(data), open_statement(data, roster=self._roster))

    def _forked(self, note: bytes) -> ProtocolError:
        """Keep the two notes that contradict each other."""
        evidence = self._folder / "evidence"
        evidence.mkdir(mode=0o700, exist_ok=True)
        for name, data in (("first.note", self._note.read_bytes()), ("second.note", note)):
            write_private(evidence / name, data)
        return ProtocolError(
            "the coordinator has signed two histories that do not extend each other",
            f"stop, and take {evidence} to the consortium: it holds both signed notes",
        )

    @property
    def _note(self) -> Path:
        return self._path.with_suffix(".note")

    def _load(self) -> _Seen:
        if not self._path.exists():
            return _Seen()
        try:
            return _Seen.model_validate_json(self._path.read_bytes())
        except ValidationError:
            raise damaged(self._path) from None

    def _remember(self, seen: _Seen, note: bytes) -> None:
        self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        write_private(self._note, note)
        write_private(self._path, rfc8785.dumps(seen.model_dump(mode="json")))
        self._seen = seen

    def _cosign(self, checkpoint: Checkpoint) -> None:
        key = cosignature_key(checkpoint.size, self._keys.name)
        if not self._exchange.exists(key):
            self._exchange.put(key, sign_checkpoint(checkpoint, keys=self._keys, roster=self._roster))
