"""A site as a witness of the log: it co-signs every checkpoint that extends the history it has seen, and no other.

    log/cosignatures/00000042/SITE    checkpoint 42 with the site's signatures behind the coordinator's

Two histories that some honest witness has seen are found: by the witness itself, when the coordinator shows it a checkpoint that
does not extend its last, and by comparing its last with what the others have co-signed. The coordinator is accused by its own
signatures alone: the two notes that it signed, and that contradict each other, are kept as evidence. What a store has damaged
is told from that: where tiles prove nothing, the signed entries are read instead.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedhealth.audit.checkpoints import (
    MAX_NOTE_BYTES,
    Checkpoint,
    cosign,
    open_checkpoint,
    open_cosignature,
)
from fedhealth.audit.log import (
    CHECKPOINTS,
    COSIGNATURES,
    Entry,
    checkpoint_key,
    cosignature_key,
    entry_key,
)
from fedhealth.audit.merkle import (
    MerkleTree,
    NodeOf,
    leaf_hash,
    node_hash,
    root_of,
)
from fedhealth.audit.statements import MAX_ENTRY_BYTES, StatementKind, entry_digest, open_statement
from fedhealth.audit.tiles import TiledTree
from fedhealth.errors import MissingObjectError, ProtocolError
from fedhealth.exchange.store import Exchange
from fedhealth.identity.key_files import damaged, write_private
from fedhealth.identity.keys import PartyKeys
from fedhealth.identity.roster import Roster


def closed_round(entry: Entry) -> tuple[str, int] | None:
    """The run and the round that an entry closes, as it names the round's aggregate; None for another entry."""
    told = entry.statement.predicate
    run, number = told.get("run"), told.get("round")
    if (
        entry.statement.kind is not StatementKind.ROUND
        or not isinstance(run, str)
        or not isinstance(number, int)
    ):
        return None
    return (run, number) if aggregate_key(run, number) in entry.statement.subjects else None


def aggregate_key(run: str, number: int) -> str:
    """Key of what a round came to."""
    return f"runs/{run}/rounds/{number}/aggregate"


class _Seen(BaseModel):
    """What a witness remembers: its last checkpoint with the coordinator's note, and by run the last round it has seen closed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    schema_version: Literal[1] = 1
    size: Annotated[int, Field(ge=0)] = 0
    root: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    note: str = ""
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
        self._cosign_last()  # a kill may have come between memory and co-signature
        found = self._newest()
        if found is None:
            return None
        checkpoint, note = found
        read = [self._entry(index) for index in range(self._seen.size, checkpoint.size)]
        self._check_tree(checkpoint, note, [leaf for _, leaf in read])
        rounds = dict(self._seen.rounds)
        for entry, _ in read:
            check(entry)
            if (closed := closed_round(entry)) is not None:
                run, number = closed
                if number > rounds.get(run, -1) + 1:
                    raise ProtocolError(
                        f"the log skips rounds before round {number} of {run}", "ask the coordinator why"
                    )
                rounds[run] = max(number, rounds.get(run, -1))
        self._remember(_Seen(size=checkpoint.size, root=checkpoint.root, note=note.decode(), rounds=rounds))
        self._cosign_last()
        return checkpoint

    # --- private

    def _newest(self) -> tuple[Checkpoint, bytes] | None:
        """The newest note of the coordinator's that stands where it should; what is nobody's is passed over."""
        for key in reversed(self._exchange.list(CHECKPOINTS)):
            if key <= checkpoint_key(self._seen.size):
                break
            note = self._exchange.get(key, max_bytes=MAX_NOTE_BYTES)
            with suppress(ProtocolError):
                checkpoint = open_checkpoint(note, roster=self._roster)
                if key == checkpoint_key(checkpoint.size):
                    return checkpoint, note
        return None

    def _check_tree(self, checkpoint: Checkpoint, note: bytes, leaves: Sequence[bytes]) -> None:
        """Return when a checkpoint is over what was seen before and the new leaves, and the others have co-signed the same."""
        try:
            is_extended = self._extends(checkpoint, TiledTree(self._exchange, checkpoint.size).node, leaves)
        except (MissingObjectError, ProtocolError):
            is_extended = False
        if not is_extended and not self._extends(checkpoint, self._tree_of_entries(checkpoint).node, leaves):
            raise self._forked(note)
        for key in self._exchange.list(f"{COSIGNATURES}{self._seen.size:08d}/"):
            other = self._exchange.get(key, max_bytes=MAX_NOTE_BYTES)
            if not self._agrees(key, other):
                raise self._forked(other)

    def _extends(self, checkpoint: Checkpoint, node: NodeOf, leaves: Sequence[bytes]) -> bool:
        """Whether nodes make the last root, and with the new leaves behind them the checkpoint's.

        Of the nodes only those are used that the last root is made of, so that nothing rests on what else stands in a tile.
        """
        seen = self._seen.size

        def grown(height: int, index: int) -> bytes:
            if index + 1 << height <= seen:
                return node(height, index)
            if height == 0:
                return leaves[index - seen]
            return node_hash(grown(height - 1, 2 * index), grown(height - 1, 2 * index + 1))

        is_seen = seen == 0 or root_of(node, seen).hex() == self._seen.root
        return is_seen and root_of(grown, checkpoint.size).hex() == checkpoint.root

    def _tree_of_entries(self, checkpoint: Checkpoint) -> MerkleTree:
        """The tree over the coordinator's signed entries, which must be the checkpoint's."""
        tree = MerkleTree()
        for index in range(checkpoint.size):
            data = self._exchange.get(entry_key(index), max_bytes=MAX_ENTRY_BYTES)
            open_statement(data, roster=self._roster)
            tree.append(data)
        if tree.root().hex() != checkpoint.root:
            raise ProtocolError(
                "the entries of the log do not fit its checkpoint", "restore the exchange from its source"
            )
        return tree

    def _agrees(self, key: str, note: bytes) -> bool:
        """Whether another site has co-signed what this one has; a note without the coordinator's signatures says nothing."""
        site = key.rpartition("/")[2]
        try:
            said = open_cosignature(note, roster=self._roster, site=site)
        except ProtocolError:
            return True
        return said == self.last or said.size != self._seen.size

    def _entry(self, index: int) -> tuple[Entry, bytes]:
        """A signed entry, and its leaf."""
        data = self._exchange.get(entry_key(index), max_bytes=MAX_ENTRY_BYTES)
        return Entry(index, entry_digest(data), open_statement(data, roster=self._roster)), leaf_hash(data)

    def _forked(self, note: bytes) -> ProtocolError:
        """Keep the two notes of the coordinator's that contradict each other."""
        evidence = self._folder / "evidence"
        evidence.mkdir(parents=True, mode=0o700, exist_ok=True)
        for name, data in (("first.note", self._seen.note.encode()), ("second.note", note)):
            write_private(evidence / name, data)
        return ProtocolError(
            "the coordinator has signed two histories that do not extend each other",
            f"stop, and take {evidence} to the consortium: it holds both signed notes",
        )

    def _load(self) -> _Seen:
        if not self._path.exists():
            return _Seen()
        try:
            return _Seen.model_validate_json(self._path.read_bytes())
        except ValidationError:
            raise damaged(self._path) from None

    def _remember(self, seen: _Seen) -> None:
        self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        write_private(self._path, rfc8785.dumps(seen.model_dump(mode="json")))
        self._seen = seen

    def _cosign_last(self) -> None:
        """Put this site's signatures under the last checkpoint, unless they stand already."""
        key = cosignature_key(self._seen.size, self._keys.name)
        if self._seen.size and not self._exchange.exists(key):
            note = cosign(self._seen.note.encode(), keys=self._keys)
            with suppress(ProtocolError):  # another process of this site was faster
                self._exchange.put(key, note)
