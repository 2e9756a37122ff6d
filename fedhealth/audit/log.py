"""The transparency log on the exchange: one entry per object, checkpoints beside them.

    log/entries/00000000              DSSE envelope with an in-toto statement; leaf 0
    log/checkpoints/00000001          signed note over the first entry
    log/tile/...                      the tree's hashes (`fedhealth.audit.tiles`)
    log/cosignatures/00000001/SITE    the note with a site's signatures (`fedhealth.audit.witness`)

The tree is rebuilt from the entries, so a coordinator killed at any point goes on from the
exchange. A checkpoint that does not fit the entries stops it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from pydantic import JsonValue

from fedhealth.audit.checkpoints import (
    MAX_NOTE_BYTES,
    Checkpoint,
    open_checkpoint,
    open_cosignature,
    sign_checkpoint,
)
from fedhealth.audit.merkle import MerkleTree
from fedhealth.audit.statements import (
    MAX_ENTRY_BYTES,
    MODEL_PREFIX,
    Statement,
    StatementKind,
    entry_digest,
    make_statement,
    open_statement,
    sign_statement,
)
from fedhealth.audit.tiles import tiles_between
from fedhealth.errors import ConfigError, MissingObjectError, ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.exchange.store import Exchange
from fedhealth.identity.roster import Roster

ENTRIES = "log/entries/"
CHECKPOINTS = "log/checkpoints/"
COSIGNATURES = "log/cosignatures/"
MAX_RACES = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of history.

    Attributes:
      index: its place in the log, from 0.
      digest: hex SHA-256 of its bytes on the exchange.
      statement: what the coordinator signed.
    """

    index: int
    digest: str
    statement: Statement


def entry_key(index: int) -> str:
    """Return the exchange key of entry ``index``."""
    return f"{ENTRIES}{index:08d}"


def checkpoint_key(size: int) -> str:
    """Return the exchange key of the checkpoint over ``size`` entries."""
    return f"{CHECKPOINTS}{size:08d}"


def cosignature_key(size: int, site: str) -> str:
    """Return the exchange key of a site's co-signature of the checkpoint over ``size`` entries."""
    return f"{COSIGNATURES}{size:08d}/{site}"


def cosigners(exchange: Exchange, checkpoint: Checkpoint, *, roster: Roster) -> tuple[str, ...]:
    """Return the sites that have validly co-signed a checkpoint, sorted.

    Raises:
      TransportError: the store failed.
    """
    return tuple(site for site in roster.sites if _has_cosigned(exchange, checkpoint, site, roster))


def _has_cosigned(exchange: Exchange, checkpoint: Checkpoint, site: str, roster: Roster) -> bool:
    try:
        note = exchange.get(cosignature_key(checkpoint.size, site), max_bytes=MAX_NOTE_BYTES)
        return open_cosignature(note, roster=roster, site=site) == checkpoint
    except (MissingObjectError, ProtocolError):
        return False


class TransparencyLog:
    """The log as one party sees it; only the coordinator appends.

    Guarantees: entries are never changed or reordered; appending a statement that the
    log already holds returns its index and writes nothing, so a run that is started
    again records nothing twice.
    """

    def __init__(self, exchange: Exchange, board: Board) -> None:
        """Read and verify what is on the exchange.

        Raises:
          ProtocolError: a gap, an entry or checkpoint that does not verify, or a
            checkpoint over more entries, or other ones, than there are.
          TransportError: the store failed.
        """
        self._exchange = exchange
        self._keys = board.keys
        self._roster = board.roster
        self._tree = MerkleTree()
        self._entries: list[Entry] = []
        self._index_by_statement: dict[bytes, int] = {}
        self._tiled = 0
        self._resume()

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._tree.size

    @property
    def root(self) -> str:
        """Hex RFC 9162 root over all entries."""
        return self._tree.root().hex()

    @property
    def tree(self) -> MerkleTree:
        """The tree, for proofs."""
        return self._tree

    def append(
        self,
        statement_type: StatementKind | str,
        predicate: Mapping[str, JsonValue],
        subjects: Mapping[str, str],
    ) -> int:
        """Record a statement and return its index.

        Args:
          statement_type: what it is about.
          predicate: a few settings and figures, never personal data.
          subjects: hex SHA-256 by name (see ``statements``).

        Raises:
          ValueError: the statement is not valid.
          ConfigError: this party is not the coordinator.
          ProtocolError: the log has an entry that does not verify, or writers race.
          TransportError: the store failed.
        """
        statement = make_statement(statement_type, predicate, subjects)
        for _ in range(MAX_RACES):
            self._catch_up()
            known = self._index_by_statement.get(sha256(statement.to_bytes()).digest())
            if known is not None:
                return known
            self._check_is_coordinator()
            data = sign_statement(statement, keys=self._keys)
            with suppress(ProtocolError):  # another process of the coordinator was faster: catch up
                self._exchange.put(entry_key(self.size), data)
                return self._add(data, statement)
        raise ProtocolError("others keep writing the log", "run one coordinator at a time")

    def append_release(
        self,
        model: str,
        *,
        files: Mapping[str, str],
        tags: Mapping[str, str],
        objects: Mapping[str, str],
        settings: Mapping[str, JsonValue],
    ) -> int:
        """Record the release of a registered model and return the entry's index.

        The registry then tags the version with ``INDEX_TAG`` (the index) and
        ``DIGEST_TAG`` (the entry's digest); an audit requires both.

        Args:
          model: name and version, such as ``readmission/1``.
          files: hex SHA-256 by path, of every file of the model.
          tags: digest tags of the version that must not change.
          objects: digests of the exchange objects that the model was made from.
          settings: anything else worth recording.

        Raises:
          ValueError, ConfigError, ProtocolError, TransportError: see ``append``.
        """
        subjects = {f"{MODEL_PREFIX}{path}": digest for path, digest in files.items()} | dict(objects)
        predicate: dict[str, JsonValue] = {"model": model, "tags": dict(tags), "settings": dict(settings)}
        return self.append(StatementKind.RELEASE, predicate, subjects)

    def index_of(self, kind: StatementKind, predicate: Mapping[str, JsonValue]) -> int | None:
        """Return the index of the first entry of a kind with exactly this predicate; None if there is none.

        Raises:
          ProtocolError: the log has an entry that does not verify.
        """
        self._catch_up()
        found = (
            entry.index
            for entry in self._entries
            if entry.statement.kind is kind and entry.statement.predicate == dict(predicate)
        )
        return next(found, None)

    def read(self, index: int) -> Entry:
        """Return entry ``index``.

        Raises:
          ValueError: there is none.
        """
        if not 0 <= index < self.size:
            raise ValueError("no such log entry")
        return self._entries[index]

    def checkpoint(self) -> Checkpoint:
        """Sign the present state of the log, put it on the exchange and return it.

        Raises:
          ConfigError: this party is not the coordinator.
          ProtocolError: a checkpoint over as many entries with another root is there.
          TransportError: the store failed.
        """
        self._catch_up()
        current = Checkpoint(self.size, self.root)
        key = checkpoint_key(self.size)
        if self._exchange.exists(key):
            self._check_checkpoint(key)
            return current
        self._check_is_coordinator()
        for tile, hashes in tiles_between(self._tree.node, old_size=self._tiled, size=self.size):
            self._exchange.put(tile, hashes)
        self._exchange.put(key, sign_checkpoint(current, keys=self._keys, roster=self._roster))
        self._tiled = self.size
        return current

    def cosigners(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Return the sites that have validly co-signed a checkpoint, sorted."""
        return cosigners(self._exchange, checkpoint, roster=self._roster)

    def _resume(self) -> None:
        keys = self._exchange.list(ENTRIES)
        for index, key in enumerate(keys):
            if key != entry_key(index):
                raise ProtocolError(
                    f"the log has a gap or a stray entry: {key} stands where {entry_key(index)} should",
                    "restore the exchange from its source, or take away what does not belong there",
                )
            self._read_entry(key)
        for key in self._exchange.list(CHECKPOINTS):
            self._tiled = self._check_checkpoint(key)

    def _catch_up(self) -> None:
        """Read the entries that another process of the coordinator has appended meanwhile."""
        while self._exchange.exists(entry_key(self.size)):
            self._read_entry(entry_key(self.size))

    def _read_entry(self, key: str) -> None:
        data = self._exchange.get(key, max_bytes=MAX_ENTRY_BYTES)
        self._add(data, open_statement(data, roster=self._roster))

    def _check_checkpoint(self, key: str) -> int:
        """Return the size of a checkpoint that fits."""
        data = self._exchange.get(key, max_bytes=MAX_NOTE_BYTES)
        checkpoint = open_checkpoint(data, roster=self._roster)
        check_checkpoint(key, checkpoint, self._tree)
        return checkpoint.size

    def _add(self, data: bytes, statement: Statement) -> int:
        index = self._tree.append(data)
        self._entries.append(Entry(index, entry_digest(data), statement))
        self._index_by_statement.setdefault(sha256(statement.to_bytes()).digest(), index)
        return index

    def _check_is_coordinator(self) -> None:
        if self._keys.public != self._roster.party(self._roster.coordinator):
            raise ConfigError("only the coordinator writes the log", "run this with the coordinator's keys")


def check_checkpoint(key: str, checkpoint: Checkpoint, tree: MerkleTree) -> None:
    """Return when ``checkpoint`` is at its key and fits the entries in ``tree``.

    As the root over the first ``size`` leaves is computed anew from one list of entries, all
    checkpoints that pass are consistent with each other.

    Raises:
      ProtocolError: it is not, or does not.
    """
    if key != checkpoint_key(checkpoint.size):
        raise ProtocolError(f"{key} is a checkpoint over another size", "treat the log as forged")
    if checkpoint.size > tree.size:
        raise ProtocolError(f"{key} covers entries that are gone", "restore the log; it was cut")
    if tree.root(checkpoint.size).hex() != checkpoint.root:
        raise ProtocolError(f"{key} does not fit the entries", "treat the log as forged")
