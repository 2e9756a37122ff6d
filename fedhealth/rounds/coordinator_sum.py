"""The coordinator's half of a secure sum over the exchange.

Each phase is: wait until every expected site has posted or time is up, verify, and post the signed list of
those that count; masked vectors are added as they arrive, so memory does not grow with the number of sites.
All of it is read back from the board, so a coordinator killed at any point goes on where it was: a list that
is already posted is kept, never proposed anew.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fedhealth.config import Timeouts
from fedhealth.errors import MissingObjectError, PolicyError, ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.rounds.objects import PhaseRoster, address_of, sum_key
from fedhealth.rounds.uploads import uploads_of
from fedhealth.secagg.coordinator import CoordinatorSum, OpenedSum
from fedhealth.secagg.plan import SumPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSumContext:
    """What the coordinator needs for any sum."""

    board: Board
    coordinator: str
    timeouts: Timeouts
    blame: Callable[[str, str], None] = field(default=lambda site, problem: None)


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
    context.board.post(
        sum_key(plan, "plan", context.coordinator),
        kind="plan",
        payload=plan.to_bytes(),
        **address_of(plan),
    )
    shares: dict[str, bytes] = {}
    share_digests = _gather(context, plan, "share", plan.cohort, shares.__setitem__)
    included = machine.receive_shares(shares)
    _post_list(context, plan, "share", share_digests, included)
    masked_digests = _gather(context, plan, "masked", included, uploads.receive_masked)
    survivors = machine.propose()
    _post_list(context, plan, "masked", masked_digests, survivors)
    agreements = _gather(context, plan, "agree", survivors, lambda site, payload: None)
    _post_list(context, plan, "agree", agreements, tuple(agreements))
    opens: dict[str, bytes] = {}
    _gather(context, plan, "open", tuple(agreements), opens.__setitem__)
    return uploads.unmask(opens)


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
    key = sum_key(plan, phase, context.coordinator)
    try:
        opened = context.board.read(
            key, kind="roster", sender=context.coordinator, role="coordinator", **address_of(plan)
        )
    except MissingObjectError:
        return ()
    return PhaseRoster.from_bytes(opened.payload).sites
