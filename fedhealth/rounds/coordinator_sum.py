"""The coordinator's half of a secure sum over the exchange.

Each phase is: wait until every expected site has posted or time is up, verify, and post the signed list of
those that count; masked vectors are added as they arrive, so memory does not grow with the number of sites.
All of it is read back from the board, so a coordinator killed at any point goes on where it was: a list that
is already posted is kept, never proposed anew.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fedhealth.config import Timeouts
from fedhealth.errors import MissingObjectError, PolicyError, ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.rounds.layout import Vector
from fedhealth.rounds.objects import PhaseRoster, SketchCommitment, UploadList, address_of, sum_key
from fedhealth.rounds.plain import PlainUpdates
from fedhealth.rounds.uploads import uploads_of
from fedhealth.secagg.coordinator import CoordinatorSum, OpenedSum
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.sketch import (
    check_sketches,
    commit_nonce,
    directions_for,
    read_sketch,
    sketch_seed,
)

Projections = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchRules:
    """How sketches are made and judged, where updates must be plausible.

    Attributes:
      nonce_of: the coordinator's 32 secret bytes of a plan, the same after a restart.
      judge: by site that must stay out, why; of all sketches.
    """

    nonce_of: Callable[[SumPlan], bytes]
    judge: Callable[[Mapping[str, Projections]], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSumContext:
    """What the coordinator needs for any sum; ``sketches`` where the vectors of this one are judged."""

    board: Board
    coordinator: str
    timeouts: Timeouts
    blame: Callable[[str, str], None] = field(default=lambda site, problem: None)
    sketches: SketchRules | None = None


def run_sum(context: CoordinatorSumContext, plan: SumPlan, *, cipher_length: int | None = None) -> OpenedSum:
    """Run one secure sum, from the plan to the opened vector.

    With ``cipher_length`` the sites' vectors have that length and come encrypted; what is masked, and summed first, are
    the keys of their ciphertexts.

    Guarantees: only the sum over the survivors is ever computed; a site that vanishes or misbehaves at any
    step is left out while at least ``plan.threshold`` others go on.

    Raises:
      PolicyError: fewer than ``plan.threshold`` sites answered a phase, or they are too many for ciphertexts.
      ProtocolError: the ciphertexts do not fit the sum of their keys.
    """
    machine = CoordinatorSum(plan)
    uploads = uploads_of(context.board, machine, cipher_length=cipher_length)
    post_plan(context.board, context.coordinator, plan)
    if context.sketches is not None:
        _post_commitment(context, plan, context.sketches)
    shares: dict[str, bytes] = {}
    share_digests = _gather(context, plan, "share", plan.cohort, shares.__setitem__)
    included = machine.receive_shares(shares)
    _post_list(context, plan, "share", share_digests, included)
    expected = _posted_sites(context, plan, "uploads") or included
    masked_digests = _gather(context, plan, "masked", expected, uploads.receive_masked)
    judged = None if context.sketches is None else _judged(context, machine, context.sketches, masked_digests)
    survivors = machine.propose()
    _post_list(context, plan, "masked", masked_digests, survivors)
    agreements = _gather(context, plan, "agree", survivors, lambda site, payload: None)
    _post_list(context, plan, "agree", agreements, tuple(agreements))
    opens: dict[str, bytes] = {}
    _gather(context, plan, "open", tuple(agreements), opens.__setitem__)
    opened = uploads.unmask(opens)
    if judged is not None:
        check_sketches(opened.vector, judged.sketches, seed=judged.seed)
    return opened


@dataclass(frozen=True, slots=True)
class _Judged:
    """The sketches of the sites that stay in, and the seed of all."""

    sketches: Mapping[str, Projections]
    seed: bytes


def _judged(
    context: CoordinatorSumContext, machine: CoordinatorSum, rules: SketchRules, uploads: Mapping[str, str]
) -> _Judged:
    """Fix the uploads, collect a sketch of each, and leave out whose is implausible; a list that stands already is kept.

    Raises:
      PolicyError: too few are left.
    """
    plan = machine.plan
    listed = _post_uploads(context, plan, rules, uploads)
    seed = sketch_seed(plan, nonce=bytes.fromhex(listed.nonce), uploads=listed.digests)
    sketches: dict[str, Projections] = {}

    def accept(site: str, payload: bytes) -> None:
        sketches[site] = read_sketch(site, payload, plan, seed=seed)

    _gather(context, plan, "sketch", uploads, accept)
    if _posted_sites(context, plan, "masked"):  # U2 stands, and `uploads` are the vectors of U2
        return _Judged(sketches, seed)
    excluded = rules.judge(sketches)
    for site, why in excluded.items():
        context.blame(site, why)
    kept = {site: values for site, values in sketches.items() if site not in excluded}
    for site in sorted(set(uploads) - set(kept)):
        machine.leave_out(site, _masked(context, plan, site, uploads[site]))
    if len(kept) < plan.min_survivors:
        raise PolicyError(
            f"only {len(kept)} of {len(plan.cohort)} updates are plausible; {plan.min_survivors} are needed",
            "see with the sites named why theirs are not, or leave aggregation.robust to none",
        )
    return _Judged(kept, seed)


def _post_commitment(context: CoordinatorSumContext, plan: SumPlan, rules: SketchRules) -> None:
    directions_for(plan.length)  # refuses a vector that is too short before anybody uploads it
    posted = SketchCommitment(commitment=commit_nonce(plan, rules.nonce_of(plan)).hex())
    key = sum_key(plan, "commitment", context.coordinator)
    context.board.post(key, kind="commitment", payload=posted.to_bytes(), **address_of(plan))


def _post_uploads(
    context: CoordinatorSumContext, plan: SumPlan, rules: SketchRules, digests: Mapping[str, str]
) -> UploadList:
    """Post the list of the uploads with the nonce; returns the one that stands, which a restart may find."""
    listed = UploadList(digests=dict(sorted(digests.items())), nonce=rules.nonce_of(plan).hex())
    key = sum_key(plan, "uploads", context.coordinator)
    context.board.post(key, kind="uploads", payload=listed.to_bytes(), **address_of(plan))
    posted = context.board.read(
        key, kind="uploads", sender=context.coordinator, role="coordinator", **address_of(plan)
    )
    return UploadList.from_bytes(posted.payload)


def _masked(context: CoordinatorSumContext, plan: SumPlan, site: str, digest: str) -> bytes:
    """The masked vector that was added, and no other."""
    key = sum_key(plan, "masked", site)
    opened = context.board.read(
        key, kind="masked", sender=site, role="site", digest=digest, **address_of(plan)
    )
    return opened.payload


def gather_plain(context: CoordinatorSumContext, updates: PlainUpdates) -> Mapping[str, Vector]:
    """Collect the updates of a round that travels in the clear, and post the list of those that count.

    Raises:
      PolicyError: fewer than ``plan.min_survivors`` sites posted an update that can be used.
    """
    plan, vectors = updates.plan, dict[str, Vector]()
    post_plan(context.board, context.coordinator, plan)

    def accept(site: str, payload: bytes) -> None:
        vectors[site] = updates.vector(site, payload)

    digests = _gather(context, plan, "clear", plan.cohort, accept)
    if len(vectors) < plan.min_survivors:
        raise PolicyError(
            f"only {len(vectors)} of {len(plan.cohort)} sites posted an update; {plan.min_survivors} are needed",
            "bring the missing sites back and start the round again",
        )
    _post_list(context, plan, "clear", digests, vectors)
    return vectors


def post_plan(board: Board, coordinator: str, plan: SumPlan) -> None:
    """Tell the sites of a plan; one that stands already stays as it is."""
    key = sum_key(plan, "plan", coordinator)
    board.post(key, kind="plan", payload=plan.to_bytes(), **address_of(plan))


def _post_list(
    context: CoordinatorSumContext, plan: SumPlan, phase: str, digests: dict[str, str], sites: Iterable[str]
) -> None:
    roster = PhaseRoster(digests={site: digests[site] for site in sorted(sites)})
    key = sum_key(plan, phase, context.coordinator)
    context.board.post(key, kind="roster", payload=roster.to_bytes(), **address_of(plan))


def _gather(
    context: CoordinatorSumContext,
    plan: SumPlan,
    phase: str,
    sites: Iterable[str],
    accept: Callable[[str, bytes], None],
) -> dict[str, str]:
    """Verify and hand on the objects of a phase as they arrive, until all are there or time is up.

    When this phase's list is posted already (a restart), its sites and no others count.
    """
    waiting = set(_posted_sites(context, plan, phase) or sites)
    digests: dict[str, str] = {}
    deadline = time.monotonic() + context.timeouts.phase_timeout_s
    while waiting and time.monotonic() < deadline:
        for site in sorted(waiting):
            if not context.board.exists(sum_key(plan, phase, site)):
                continue
            waiting.discard(site)
            try:
                opened = context.board.read(
                    sum_key(plan, phase, site), kind=phase, sender=site, role="site", **address_of(plan)
                )
                accept(site, opened.payload)
            except ProtocolError as error:
                context.blame(site, error.problem)
            else:
                digests[site] = opened.digest
        if waiting:
            time.sleep(context.timeouts.poll_s)
    if len(digests) < plan.threshold:
        raise PolicyError(
            f"only {len(digests)} of {len(plan.cohort)} sites answered phase {phase} of the sum "
            f"{plan.purpose} in round {plan.round}; {plan.threshold} are needed",
            "bring the missing sites back and start the round again",
        )
    return digests


def _posted_sites(context: CoordinatorSumContext, plan: SumPlan, phase: str) -> tuple[str, ...]:
    key, posted = sum_key(plan, phase, context.coordinator), UploadList if phase == "uploads" else PhaseRoster
    try:
        opened = context.board.read(
            key, kind=posted.kind, sender=context.coordinator, role="coordinator", **address_of(plan)
        )
    except MissingObjectError:
        return ()
    return posted.from_bytes(opened.payload).sites
