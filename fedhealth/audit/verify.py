"""Check a whole history offline: every log entry, exchange object and released file.

Needs the exchange (or a copy), the pinned roster's digest and, for models, what the
caller read from the registry. It trusts no server and no clock. Released weights must be those
that the manifest of the run's last round names.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

from fedhealth.audit.checkpoints import (
    MAX_NOTE_BYTES,
    Checkpoint,
    cosigners_needed,
    open_checkpoint,
    open_cosignature,
)
from fedhealth.audit.log import (
    CHECKPOINTS,
    COSIGNATURES,
    ENTRIES,
    Entry,
    check_checkpoint,
    checkpoint_key,
    cosigners,
    entry_key,
)
from fedhealth.audit.merkle import MerkleTree
from fedhealth.audit.statements import (
    DIGEST_TAG,
    INDEX_TAG,
    MAX_ENTRY_BYTES,
    MODEL_PREFIX,
    ROSTER_SUBJECT,
    StatementKind,
    entry_digest,
    open_statement,
)
from fedhealth.audit.tiles import TILES, check_tile, tiles_between
from fedhealth.audit.witness import closed_round
from fedhealth.errors import MissingObjectError, ProtocolError
from fedhealth.exchange.board import check_may_post
from fedhealth.exchange.envelope import LIMITS, Limits, unseal
from fedhealth.exchange.store import Exchange
from fedhealth.identity.roster import Roster, SignedRoster

MANIFEST = "/manifest"
WEIGHTS = f"{MODEL_PREFIX}artifacts/weights.safetensors"
_OBJECT_FOLDERS = ("studies/", "runs/", "epochs/")
_NOTES = frozenset({"uncovered", "unknown", "witness", "unfinished"})
_BEFORE_ROUNDS = frozenset({StatementKind.ROSTER, StatementKind.STUDY})
"""What is logged of a run before its first round is closed: nothing that anybody has computed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an audit saw.

    Attributes:
      kind: roster, entry, checkpoint, cosignature, object, subject, release, replay: failures; uncovered (a
        validly signed object that no entry names, such as a late upload), unknown (something
        outside the known folders), witness (a co-signature or tile that is missing or
        spoilt, while enough are there) and unfinished (a run that ended before its first round
        was closed): notes.
      key: the exchange key, or ``model/path``.
      problem: what is wrong.
    """

    kind: str
    key: str
    problem: str

    @property
    def is_note(self) -> bool:
        """Whether this alone leaves the history proven."""
        return self.kind in _NOTES


NOTHING = Checkpoint(0, "")


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit found.

    Attributes:
      ok: no finding but notes.
      findings: everything seen, in order of key within each step.
      log_size: entries that were readable and in place.
      root: hex RFC 9162 root over them.
      objects_checked: exchange objects whose signatures were checked, the log's included.
      cosigned: the newest checkpoint that at least two thirds of the sites have co-signed; of size 0 if there is none.
      cosigners: the sites that have co-signed it.
      released: the models that the log releases; of a history that is ``ok`` they are proven, and without any nothing is.
    """

    ok: bool
    findings: tuple[Finding, ...]
    log_size: int
    root: str
    objects_checked: int
    cosigned: Checkpoint = NOTHING
    cosigners: tuple[str, ...] = ()
    released: tuple[str, ...] = ()

    def with_findings(self, more: tuple[Finding, ...]) -> "AuditResult":
        """The same result with what another check has found."""
        ok = self.ok and all(finding.is_note for finding in more)
        return replace(self, ok=ok, findings=self.findings + more)


@dataclass(slots=True)
class _Audit:
    exchange: Exchange
    roster: Roster
    limits: Limits
    findings: list[Finding] = field(default_factory=list)
    tree: MerkleTree = field(default_factory=MerkleTree)
    entries: list[Entry] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    checked: int = 0
    cosigned: Checkpoint = NOTHING
    cosigners: tuple[str, ...] = ()

    def found(self, kind: str, key: str, problem: str) -> None:
        self.findings.append(Finding(kind, key, problem))

    def check(self, kind: str, key: str, action: Callable[[], None]) -> None:
        """Run one check; a misbehaving peer or a vanished object becomes a finding."""
        self.checked += 1
        try:
            action()
        except (ProtocolError, MissingObjectError) as error:
            self.found(kind, key, error.problem)


def verify_exchange(
    exchange: Exchange,
    signed_roster: SignedRoster,
    *,
    expected_roster_digest: str | None = None,
    model_files: Mapping[str, Mapping[str, str]] | None = None,
    model_tags: Mapping[str, Mapping[str, str]] | None = None,
    expected_checkpoint: Checkpoint | None = None,
    only: str | None = None,
    limits: Limits = LIMITS,
) -> AuditResult:
    """Check the history on ``exchange`` and return everything that is wrong with it.

    Guarantees: when ``ok``, (1) the roster is the pinned one, (2) every log entry is in
    its place with the coordinator's two signatures, (3) every checkpoint fits the entries
    and the last one covers them all, the log extends ``expected_checkpoint``, tiles and
    co-signatures fit, and two thirds of the sites have co-signed every release's rounds, (4)
    every object is where its sender posted it, with both signatures, (5) every object
    that an entry names is there with that digest, (6) every released model has exactly
    the recorded files and tags, and every model given was released.

    Not guaranteed: without ``expected_checkpoint`` (kept outside the exchange, as in
    report.json) the last entries and checkpoints can be cut off together unseen.

    Args:
      exchange: the exchange, or a copy of it.
      signed_roster: the roster in force.
      expected_roster_digest: the pinned digest; None trusts ``signed_roster``.
      model_files: by model (``readmission/1``) and path, hex SHA-256 of the registry's
        files; None checks no files.
      model_tags: by model, the version's tags; None checks no tags.
      expected_checkpoint: a state of the log known from elsewhere.
      only: a model whose history alone is asked for: objects of runs that it was not released from may be missing.
      limits: sizes accepted.

    Raises:
      TransportError: the store failed, so nothing can be said.
    """
    try:
        roster = signed_roster.verify(expected_digest=expected_roster_digest)
    except ProtocolError as error:
        return AuditResult(False, (Finding("roster", "roster", error.problem),), 0, "", 0)
    audit = _Audit(exchange, roster, limits)
    _check_entries(audit)
    _check_checkpoints(audit, expected_checkpoint)
    _check_tiles(audit)
    _check_cosignatures(audit)
    _check_objects(audit)
    asked = audit.entries if only is None else _of_model(audit.entries, only)
    _check_subjects(audit, asked)
    _check_releases(audit, asked, model_files, model_tags)
    return AuditResult(
        ok=all(finding.is_note for finding in audit.findings),
        findings=tuple(audit.findings),
        log_size=audit.tree.size,
        root=audit.tree.root().hex(),
        objects_checked=audit.checked,
        cosigned=audit.cosigned,
        cosigners=audit.cosigners,
        released=tuple(_model_of(entry) for entry in asked if _is_release(entry)),
    )


def _check_entries(audit: _Audit) -> None:
    """Step 2: entries 0 .. n-1 without a gap, each signed; a bad one still takes its leaf."""
    keys = audit.exchange.list(ENTRIES)
    for index, key in enumerate(keys):
        if key != entry_key(index):
            audit.found("entry", key, "the log has a gap before this key, or the key is not one of an entry")
            return

        def action(index: int = index, key: str = key) -> None:
            data = audit.exchange.get(key, max_bytes=MAX_ENTRY_BYTES)
            audit.tree.append(data)
            statement = open_statement(data, roster=audit.roster)
            audit.entries.append(Entry(index, entry_digest(data), statement))

        audit.check("entry", key, action)


def _check_checkpoints(audit: _Audit, expected: Checkpoint | None) -> None:
    """Step 3: each fits the entries, hence all are consistent; the last covers all but those of a run without a round."""
    keys, covered = audit.exchange.list(CHECKPOINTS), 0
    for key in keys:

        def action(key: str = key) -> None:
            nonlocal covered
            data = audit.exchange.get(key, max_bytes=MAX_NOTE_BYTES)
            found = open_checkpoint(data, roster=audit.roster)
            check_checkpoint(key, found, audit.tree)
            covered = max(covered, found.size)

        audit.check("checkpoint", key, action)
    last = checkpoint_key(audit.tree.size)
    if last not in keys:
        behind = {entry.statement.kind for entry in audit.entries if entry.index >= covered}
        if behind and behind <= _BEFORE_ROUNDS:
            audit.found("unfinished", last, "is not there: a run ended before its first round was closed")
        else:
            audit.found("checkpoint", last, "no checkpoint covers all entries")
    if expected is not None:
        is_extended = expected.size <= audit.tree.size
        if not is_extended or audit.tree.root(expected.size).hex() != expected.root:
            audit.found(
                "checkpoint", checkpoint_key(expected.size), "the log does not extend the known checkpoint"
            )


def _check_tiles(audit: _Audit) -> None:
    """Step 3: each tile holds hashes of the tree over the entries; what witnesses read is there."""
    keys = audit.exchange.list(TILES)
    for key in keys:

        def action(key: str = key) -> None:
            data = audit.exchange.get(key, max_bytes=MAX_NOTE_BYTES)
            check_tile(key, data, node=audit.tree.node, size=audit.tree.size)

        audit.check("entry", key, action)
    for key, _ in tiles_between(audit.tree.node, old_size=0, size=audit.tree.size):
        if key not in keys:
            audit.found("witness", key, "is missing: witnesses must read all entries")


def _check_cosignatures(audit: _Audit) -> None:
    """Step 3: which checkpoints the sites have co-signed, and which of them bind.

    A note of the coordinator's over another tree, co-signed, is a fork. One that is nobody's proves nothing against anybody.
    """
    sizes: set[int] = set()
    for key in audit.exchange.list(COSIGNATURES):
        try:
            note = audit.exchange.get(key, max_bytes=MAX_NOTE_BYTES)
            said = open_cosignature(note, roster=audit.roster, site=key.rpartition("/")[2])
        except (ProtocolError, MissingObjectError):
            audit.found("witness", key, "is no co-signature of this site under a note of the coordinator's")
            continue
        sizes.add(said.size)
        named = checkpoint_key(int(key.split("/")[2]) if key.split("/")[2].isdecimal() else -1)
        audit.check("cosignature", key, partial(check_checkpoint, named, said, audit.tree))
    for size in sorted((size for size in sizes if size <= audit.tree.size), reverse=True):
        checkpoint = Checkpoint(size, audit.tree.root(size).hex())
        signed = cosigners(audit.exchange, checkpoint, roster=audit.roster)
        if len(signed) >= cosigners_needed(audit.roster):
            audit.cosigned, audit.cosigners = checkpoint, signed
            break
    if missing := set(audit.roster.sites) - set(audit.cosigners) if audit.cosigners else ():
        key = f"{COSIGNATURES}{audit.cosigned.size:08d}"
        audit.found("witness", key, f"not co-signed by {', '.join(sorted(missing))}")


def _check_objects(audit: _Audit) -> None:
    """Step 4: every object outside the log is a valid envelope in its own place."""
    for key in audit.exchange.list():
        if key.startswith((ENTRIES, CHECKPOINTS, TILES, COSIGNATURES)):
            continue
        if key.startswith("log/"):
            audit.found("entry", key, "is not part of a log")
        elif not key.startswith(_OBJECT_FOLDERS):
            audit.found("unknown", key, "is outside the known folders")
        else:
            audit.check("object", key, lambda key=key: _check_object(audit, key))  # type: ignore[misc]


def _check_object(audit: _Audit, key: str) -> None:
    data = audit.exchange.get(key, max_bytes=audit.limits.max_bytes)
    opened = unseal(data, roster=audit.roster, limits=audit.limits)
    audit.digests[key] = opened.digest
    if opened.header.key != key:
        raise ProtocolError("was posted under another key", "treat it as misplaced")
    sender = opened.header.sender
    check_may_post(key, sender, audit.roster.party(sender).role)
    segments = key.split("/")
    owners = {segments[-1], *(after for before, after in pairwise(segments) if before == "sites")}
    if owners & set(audit.roster.sites) - {sender}:
        raise ProtocolError("was posted by another party than the site that it names", "treat it as forged")


def released_from(entry: Entry) -> str:
    """The run that a release names the last manifest of; empty for anything else."""
    names = [name for name in entry.statement.subjects if name.endswith(MANIFEST)]
    return names[0].split("/")[1] if _is_release(entry) and len(names) == 1 else ""


def _is_release(entry: Entry) -> bool:
    return entry.statement.kind is StatementKind.RELEASE


def _model_of(release: Entry) -> str:
    return str(release.statement.predicate.get("model", ""))


def _of_model(entries: Sequence[Entry], model: str) -> list[Entry]:
    """The entries of a model's history: its releases, what their runs logged, and what is of no run."""
    own = [entry for entry in entries if entry.statement.predicate.get("model") == model]
    runs = {released_from(entry) for entry in own}
    named = {entry.index: entry.statement.predicate.get("run") or released_from(entry) for entry in entries}
    return [
        entry for entry in entries if entry in own or not named[entry.index] or named[entry.index] in runs
    ]


def _check_subjects(audit: _Audit, asked: Iterable[Entry]) -> None:
    """Step 5: what the entries name is there, unchanged; what no entry names is noted."""
    covered = {name for entry in audit.entries for name in entry.statement.subjects}
    for entry in asked:
        for name, digest in entry.statement.subjects.items():
            if name.startswith(MODEL_PREFIX):
                continue
            actual = audit.roster.digest if name == ROSTER_SUBJECT else audit.digests.get(name)
            if actual != digest:
                state = "is missing or damaged" if actual is None else "has another digest"
                audit.found("subject", name, f"{state}, says log entry {entry.index}")
    for key in sorted(set(audit.digests) - covered):
        audit.found("uncovered", key, "is validly signed, but no log entry names it")


def _check_releases(
    audit: _Audit,
    asked: Iterable[Entry],
    model_files: Mapping[str, Mapping[str, str]] | None,
    model_tags: Mapping[str, Mapping[str, str]] | None,
) -> None:
    """Step 6: a release is of its run's model, and the registry holds exactly what its entry says."""
    released: set[str] = set()
    for entry in asked:
        if not _is_release(entry):
            continue
        model = _model_of(entry)
        released.add(model)
        _check_manifest(audit, model, entry)
        _check_cosigned(audit, model, entry)
        if model_files is not None:
            recorded = {
                name.removeprefix(MODEL_PREFIX): digest
                for name, digest in entry.statement.subjects.items()
                if name.startswith(MODEL_PREFIX)
            }
            _compare(audit, model, recorded, model_files.get(model), exactly=True)
        if model_tags is not None:
            _compare(audit, model, _expected_tags(entry), model_tags.get(model), exactly=False)
    for model in sorted((set(model_files or ()) | set(model_tags or ())) - released):
        audit.found("release", model, "is in the registry, but no log entry releases it")


def _check_manifest(audit: _Audit, model: str, entry: Entry) -> None:
    """The weights released are the model that the last round of a run was opened with."""
    subjects = entry.statement.subjects
    manifests = [name for name in subjects if name.endswith(MANIFEST)]
    if len(manifests) != 1:
        audit.found("release", model, "names no manifest of a round, so that nothing ties it to a run")
    elif manifests[0] in audit.digests:
        data = audit.exchange.get(manifests[0], max_bytes=audit.limits.max_bytes)
        payload = unseal(data, roster=audit.roster, limits=audit.limits).payload
        if subjects.get(WEIGHTS) is None or _named_model(payload) != subjects[WEIGHTS]:
            audit.found("release", model, f"its weights are not the model of {manifests[0]}")


_ROUND_OF = re.compile(r"runs/[^/]+/rounds/(?P<number>[0-9]{1,9})/manifest")


def _check_cosigned(audit: _Audit, model: str, entry: Entry) -> None:
    """All rounds of a model's run are logged, under a checkpoint that two thirds of the sites have co-signed."""
    run = released_from(entry)
    if not run:
        return
    named = [_ROUND_OF.fullmatch(name) for name in entry.statement.subjects if name.endswith(MANIFEST)]
    rounds = [int(found["number"]) for found in named if found]
    if len(rounds) < len(named) or not rounds:
        audit.found("release", model, "its entry names a manifest that is none of a round")
        return
    last = max(rounds)
    closed = {
        found[1]: each.index for each in audit.entries if (found := closed_round(each)) and found[0] == run
    }
    if not set(range(last + 1)) <= set(closed):
        audit.found("release", model, f"the log does not hold all rounds of its run up to round {last}")
    elif max(closed.values()) >= audit.cosigned.size:
        audit.found(
            "cosignature", model, "fewer than two thirds of the sites have co-signed the rounds of its run"
        )


def _named_model(manifest: bytes) -> object:
    """The digest of the model that a manifest names; None where it names none."""
    try:
        told = json.loads(manifest)
    except ValueError:
        return None
    return told.get("model_digest") if isinstance(told, dict) else None


def _expected_tags(entry: Entry) -> dict[str, str]:
    tags = entry.statement.predicate.get("tags", {})
    recorded = {name: str(value) for name, value in tags.items()} if isinstance(tags, dict) else {}
    return recorded | {INDEX_TAG: str(entry.index), DIGEST_TAG: entry.digest}


def _compare(
    audit: _Audit,
    model: str,
    recorded: Mapping[str, str],
    actual: Mapping[str, str] | None,
    *,
    exactly: bool,
) -> None:
    """Compare names and values; other names are allowed unless ``exactly``."""
    if actual is None:
        audit.found("release", model, "was released, but is not in the registry")
        return
    for name in sorted(set(recorded) | (set(actual) if exactly else set())):
        if name not in actual:
            audit.found("release", f"{model}/{name}", "is missing from the registry")
        elif name not in recorded:
            audit.found("release", f"{model}/{name}", "was added after the release")
        elif actual[name] != recorded[name]:
            audit.found("release", f"{model}/{name}", "differs from what was released")
