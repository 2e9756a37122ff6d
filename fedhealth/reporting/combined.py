"""How the updates of a run were combined, from its study and what lies signed on the exchange."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fedhealth.errors import MissingObjectError, ProtocolError
from fedhealth.exchange.board import Reader
from fedhealth.models.stepwise import STEPWISE
from fedhealth.reporting.report import CombinedRound, Combining
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import Aggregate
from fedhealth.rounds.groups import circle_of, is_given_up, is_grouped
from fedhealth.rounds.objects import (
    Abstain,
    Manifest,
    PhaseRoster,
    UploadList,
    address_of,
    sum_key,
    trains,
)
from fedhealth.rounds.plain import travels_in_the_clear
from fedhealth.rounds.posted import read_manifest, read_plan, read_posted
from fedhealth.rounds.replay import read_verdicts, verifiers_needed
from fedhealth.secagg.plan import SumPlan

_COUNTS_ATTACKERS = ("trimmed_mean", "krum", "multi_krum", "groups")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTold:
    """What the coordinator tells of a closed round and the exchange does not."""

    round: int
    cosigners: int
    upload_bytes: Mapping[str, int]

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "RoundTold":
        """From what `RoundClosed.to_json` tells."""
        return cls(round=told["round"], cosigners=len(told["cosigners"]), upload_bytes=told["upload_bytes"])


def combining(account: RunAccount, told: Sequence[RoundTold], *, blamed: Mapping[str, str]) -> Combining:
    """How a run's updates were combined.

    Args:
      account: of the run.
      told: its closed rounds.
      blamed: by site (or sum) what the coordinator blamed it for.

    Raises:
      MissingObjectError, ProtocolError: the exchange does not hold what the coordinator posted of these rounds.
    """
    study, aggregation = account.study, account.study.aggregation
    rounds = ((each, read_manifest(account.board, account.run, each.round)) for each in told)
    return Combining(
        mode=aggregation.mode,
        grows=study.model.kind in STEPWISE,
        weighting=study.training.weighting,
        robust=aggregation.robust,
        attackers=aggregation.attackers if aggregation.robust in _COUNTS_ATTACKERS else None,
        group_size=aggregation.group_size if aggregation.robust == "groups" else None,
        ring_bits=aggregation.ring_bits,
        sent_share=aggregation.sent_share,
        colluders=aggregation.colluders,
        reopened_by=verifiers_needed(study),
        rounds=tuple(
            _combined(account, manifest, each) for each, manifest in rounds if trains(manifest.purposes)
        ),
        blamed=dict(sorted(blamed.items())),
    )


def _combined(account: RunAccount, manifest: Manifest, told: RoundTold) -> CombinedRound:
    board, number = account.board, manifest.round
    payload = read_posted(board, account.run, number, "aggregate").payload
    survivors = Aggregate.from_bytes(payload).survivors
    sums = [set(sites) for name, sites in survivors.items() if trains((name,))]
    included = set.intersection(*sums) if sums else set()
    verdicts = read_verdicts(board, manifest, sha256(payload).hexdigest())
    return CombinedRound(
        round=number,
        included=tuple(sorted(included)),
        left_out={site: _why(account, manifest, site) for site in board.roster.sites if site not in included},
        agreed=len(verdicts.agree),
        contradicted=verdicts.differ,
        cosigners=told.cosigners,
        upload_bytes=dict(told.upload_bytes),
    )


def _why(account: RunAccount, manifest: Manifest, site: str) -> str:
    """Why a site's update is not in the sum of a round: what is on the exchange of it ends where it was left out."""
    try:
        answer = account.read_answer(manifest.round, site)
    except ProtocolError:
        return "declared nothing to count it with"
    if answer is None:
        return "no answer"
    if isinstance(answer, Abstain):
        return f"abstained: {answer.reason}"
    reasons = (
        _why_not_in(account, manifest, name, site)
        for name in manifest.purposes
        if trains((name,)) and _may_be_in(account, name, site)
    )
    return next((reason for reason in reasons if reason), "left out")


def _may_be_in(account: RunAccount, name: str, site: str) -> bool:
    return site in circle_of(account.study, name, account.board.roster.sites).sites


def _why_not_in(account: RunAccount, manifest: Manifest, name: str, site: str) -> str:
    """Where a sum goes on without a site that was ready; nothing if the site is in it."""
    board, coordinator, study = account.board, account.coordinator, account.study
    try:
        plan = read_plan(board, manifest, name)
    except MissingObjectError:
        if not is_grouped(study, name):
            raise
        return "too few sites of its group were ready"
    if site not in plan.cohort:
        return "ready too late"
    if is_grouped(study, name) and is_given_up(board, plan, coordinator):
        return "its group was left out: too few were left of it, or its sum was noise"
    if travels_in_the_clear(study, plan.purpose):
        listed = _listed(board, plan, "clear", coordinator)
        return "" if site in listed else "no update in time, or one beyond the public bound"
    if site not in _listed(board, plan, "share", coordinator):
        return "no shares in time, or wrong ones"
    if site in _listed(board, plan, "masked", coordinator):
        return ""
    if study.aggregation.robust != "plausibility" or site not in _listed(board, plan, "uploads", coordinator):
        return "no update in time, or a malformed one"
    sketched = board.exists(sum_key(plan, "sketch", site))
    return "its update was not plausible" if sketched else "did not show its sketch in time"


def _listed(board: Reader, plan: SumPlan, phase: str, coordinator: str) -> tuple[str, ...]:
    """Whom the coordinator's list of a phase names."""
    kind = UploadList if phase == "uploads" else PhaseRoster
    key = sum_key(plan, phase, coordinator)
    opened = board.read(key, kind=kind.kind, sender=coordinator, role="coordinator", **address_of(plan))
    return kind.from_bytes(opened.payload).sites
