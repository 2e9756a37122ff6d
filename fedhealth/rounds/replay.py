"""R5: a closed round opened anew from what lies on the exchange, by anybody who may read it.

Of every sum: the plan, the coordinator's signed lists, and the objects they name give the sum again, and with it what was
published. Neither the lists nor the published aggregate are believed. A round holds once ``colluders + 1`` sites have said in a
signed verdict that they came to the same aggregate: at least one of them is honest.
"""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from fedhealth.errors import MissingObjectError, ProtocolError
from fedhealth.exchange.board import Reader
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import Aggregate
from fedhealth.rounds.groups import is_given_up, is_grouped, left_out, round_result
from fedhealth.rounds.layout import RoundShape, decode_sum, is_judged, sum_layout
from fedhealth.rounds.objects import (
    Manifest,
    PhaseRoster,
    UploadList,
    Verdict,
    address_of,
    site_key,
    sum_key,
)
from fedhealth.rounds.plain import PlainUpdates, travels_in_the_clear
from fedhealth.rounds.posted import judge_plan, read_plan
from fedhealth.rounds.uploads import uploads_of
from fedhealth.secagg.coordinator import CoordinatorSum, OpenedSum
from fedhealth.secagg.messages import AgreeMessage, encode
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.sketch import check_sketches, read_sketch, sketch_seed
from fedhealth.secagg.tags import is_tagged
from fedhealth.study.spec import Study


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Who has come to the published aggregate of a round, and who to another one."""

    agree: tuple[str, ...] = ()
    differ: tuple[str, ...] = ()


def verifiers_needed(study: Study) -> int:
    """How many sites must come to the published aggregate: one more than may collude."""
    return study.aggregation.colluders + 1


def verifier_order(manifest: Manifest, sites: tuple[str, ...]) -> tuple[str, ...]:
    """The sites in the order in which they are asked to replay a round: another one each round.

    It spreads the work; nothing rests on it, as any ``colluders + 1`` verdicts do.
    """
    head = manifest.to_bytes()
    return tuple(sorted(sites, key=lambda site: sha256(head + site.encode()).digest()))


def read_verdicts(board: Reader, manifest: Manifest, aggregate_digest: str) -> Verdicts:
    """The sites' verdicts on a round so far; one that is not a site's own says nothing."""
    told = {site: _verdict(board, manifest, site) for site in board.roster.sites}
    agree = tuple(site for site, digest in told.items() if digest == aggregate_digest)
    return Verdicts(agree, tuple(site for site, digest in told.items() if digest and site not in agree))


def published(
    shape: RoundShape, name: str, plan: SumPlan, opened: OpenedSum, *, account: RunAccount
) -> Aggregate:
    """What is published of an opened sum.

    Raises:
      PolicyError: there is nothing to learn of an outcome, or nobody has a feature that is asked for.
    """
    weights = account.declared(plan.round, opened.survivors)
    declared = None if weights is None else tuple(weights.values())
    vector = np.concatenate([opened.vector, opened.lanes])
    result = decode_sum(shape, name, vector, cohort=plan.cohort, declared=declared)
    return result.with_survivors(name, opened.survivors)


def replay_round(
    board: Reader, manifest: Manifest, shape: RoundShape, *, account: RunAccount, tag_key: bytes | None
) -> Aggregate:
    """The aggregate of a round, from its sums as they lie on the exchange.

    Args:
      board: the exchange.
      manifest: of the round.
      shape: of the round.
      account: of the run.
      tag_key: that of the sites; None for whoever does not have it, and then cannot tell whether masks were right.

    Raises:
      MissingObjectError: an object that the coordinator lists is not there.
      PolicyError: fewer groups are left than the study needs.
      ProtocolError: a plan is not what study and manifest imply; lists, agreements and openings do not give a sum; or its
        tag is not that of the sites' vectors.
    """
    parts = {}
    for name in manifest.purposes:
        plan = _counted_plan(board, manifest, shape, name, account)
        if plan is None:
            parts[name] = left_out(name)
        elif travels_in_the_clear(shape.study, plan.purpose):
            parts[name] = _replay_plain(board, plan, shape, account)
        else:
            parts[name] = _replay_masked(board, plan, shape, name, account, tag_key)
    return round_result(shape, parts)


def replay_sum(
    board: Reader, plan: SumPlan, *, coordinator: str, cipher_length: int | None = None
) -> OpenedSum:
    """One secure sum, opened anew.

    (1) The shares that count are those of the coordinator's list. (2) The vectors, or the keys and the
    ciphertexts that they are for (``cipher_length``), are those of its second list. (3) At least t
    survivors have signed both lists. (4) Their openings, checked against the commitments, take the masks off.

    Raises:
      MissingObjectError, ProtocolError: one of these does not hold.
    """
    machine = CoordinatorSum(plan)
    uploads = uploads_of(board, machine, cipher_length=cipher_length)
    shares = _listed(board, plan, "share", coordinator)
    included = machine.receive_shares({site: _payload(board, plan, "share", site, d) for site, d in shares})
    for site, digest in _listed(board, plan, "masked", coordinator):
        uploads.receive_masked(site, _payload(board, plan, "masked", site, digest))
    survivors = machine.propose()
    statement = encode(AgreeMessage(plan=plan.digest, included=included, survivors=survivors))
    signed = [
        site
        for site, digest in _listed(board, plan, "agree", coordinator)
        if site in survivors and _payload(board, plan, "agree", site, digest) == statement
    ]
    if len(signed) < plan.threshold:
        raise ProtocolError(
            f"the sum {plan.purpose} of round {plan.round} was opened without enough equal statements",
            "report the coordinator to the consortium",
        )
    return uploads.unmask({site: each for site in signed if (each := _opening(board, plan, site))})


def _counted_plan(
    board: Reader, manifest: Manifest, shape: RoundShape, name: str, account: RunAccount
) -> SumPlan | None:
    """The plan of a sum; None of a group that the coordinator left out, before its sum or within it."""
    try:
        plan = read_plan(board, manifest, name)
    except MissingObjectError:
        if is_grouped(shape.study, name):
            return None
        raise
    judge_plan(board, manifest, shape, name, plan)
    is_left_out = is_grouped(shape.study, name) and is_given_up(board, plan, account.coordinator)
    return None if is_left_out else plan


def _replay_masked(
    board: Reader, plan: SumPlan, shape: RoundShape, name: str, account: RunAccount, tag_key: bytes | None
) -> Aggregate:
    """A sum under masks, or of ciphertexts whose keys are."""
    cipher_length = sum_layout(shape, name).cipher_length
    opened = replay_sum(board, plan, coordinator=account.coordinator, cipher_length=cipher_length)
    if tag_key is not None and not cipher_length:  # an encrypted sum that is wrong does not open
        _check_tag(plan, opened, tag_key)
    if is_judged(shape.study, plan.purpose):
        _check_sketches(board, plan, opened, account.coordinator)
    return published(shape, name, plan, opened, account=account)


def _replay_plain(board: Reader, plan: SumPlan, shape: RoundShape, account: RunAccount) -> Aggregate:
    """The updates of the coordinator's list, in the clear."""
    updates = PlainUpdates(shape=shape, plan=plan, declared=account.declared(plan.round, plan.cohort))
    listed = _listed(board, plan, "clear", account.coordinator)
    if len(listed) < plan.min_survivors or not {site for site, _ in listed} <= set(plan.cohort):
        raise ProtocolError("the coordinator listed updates that do not fit the plan", "report it")
    payloads = {site: _payload(board, plan, "clear", site, digest) for site, digest in listed}
    return updates.result({site: updates.vector(site, payload) for site, payload in payloads.items()})


def _check_sketches(board: Reader, plan: SumPlan, opened: OpenedSum, coordinator: str) -> None:
    """Of a sum whose vectors were judged: that the survivors' sketches are of what they uploaded."""
    read = board.read(
        sum_key(plan, "uploads", coordinator),
        kind="uploads",
        sender=coordinator,
        role="coordinator",
        **address_of(plan),
    )
    listed = UploadList.from_bytes(read.payload)
    seed = sketch_seed(plan, nonce=bytes.fromhex(listed.nonce), uploads=listed.digests)
    shown = {site: _payload(board, plan, "sketch", site, None) for site in opened.survivors}
    sketches = {site: read_sketch(site, payload, plan, seed=seed) for site, payload in shown.items()}
    check_sketches(opened.vector, sketches, seed=seed)


def _check_tag(plan: SumPlan, opened: OpenedSum, tag_key: bytes) -> None:
    """Of an exact sum: that it is the sum of what the survivors masked."""
    survivors = opened.survivors
    if plan.wraps or is_tagged(opened.vector, opened.tag, key=tag_key, plan=plan, survivors=survivors):
        return
    raise ProtocolError(
        f"the sum {plan.purpose} of round {plan.round} is not that of the sites' vectors: one was under a wrong mask",
        "leave sites out one by one in new runs until it holds; nothing of any site was shown",
    )


def _verdict(board: Reader, manifest: Manifest, site: str) -> str:
    key = site_key(manifest.run, manifest.round, site, "verdict")
    try:
        opened = board.read(
            key, kind="verdict", sender=site, role="site", run=manifest.run, round=manifest.round
        )
        return Verdict.from_bytes(opened.payload).aggregate
    except (MissingObjectError, ProtocolError):
        return ""


def _listed(board: Reader, plan: SumPlan, phase: str, coordinator: str) -> tuple[tuple[str, str], ...]:
    opened = board.read(
        sum_key(plan, phase, coordinator),
        kind="roster",
        sender=coordinator,
        role="coordinator",
        **address_of(plan),
    )
    return tuple(sorted(PhaseRoster.from_bytes(opened.payload).digests.items()))


def _payload(board: Reader, plan: SumPlan, phase: str, site: str, digest: str | None) -> bytes:
    key = sum_key(plan, phase, site)
    return board.read(key, kind=phase, sender=site, role="site", digest=digest, **address_of(plan)).payload


def _opening(board: Reader, plan: SumPlan, site: str) -> bytes:
    """What a site opened; nothing if it did not, or another object stands there."""
    try:
        return board.read(
            sum_key(plan, "open", site), kind="open", sender=site, role="site", **address_of(plan)
        ).payload
    except (MissingObjectError, ProtocolError):
        return b""
