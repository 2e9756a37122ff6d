"""A site's half of a secure sum over the exchange: reads the board, keeps the journal, asks the state machine.

The state machine (`fedhealth.secagg.site`) does no I/O; here every record is durable before the message that
depends on it is posted, and every object read is verified by the board.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedhealth.config import Timeouts
from fedhealth.errors import ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.rounds.groups import given_up_key, is_given_up
from fedhealth.rounds.journal import SiteJournal
from fedhealth.rounds.objects import PhaseRoster, SketchCommitment, UploadList, address_of, sum_key
from fedhealth.rounds.plain import PlainUpdates
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.rlwe import encrypt, secret_key
from fedhealth.secagg.site import SiteSum, SumSecrets
from fedhealth.secagg.sketch import commit_nonce, sketch, sketch_seed

VectorOf = Callable[[SumPlan], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSumContext:
    """What a site needs for any sum: its board, journal, keys and patience.

    ``shows_sketch`` tells whether it shows a sketch of its vector, ``may_be_given_up`` whether a round can go on without the sum.
    """

    board: Board
    journal: SiteJournal
    site: str
    coordinator: str
    pair_keys: Mapping[str, bytes] = field(repr=False)
    tag_key: bytes = field(repr=False)
    timeouts: Timeouts
    shows_sketch: bool = False
    may_be_given_up: bool = False


def take_part(
    context: SiteSumContext, plan: SumPlan, *, vector_of: VectorOf, is_encrypted: bool = False
) -> bool:
    """Take part in one secure sum, from share to open.

    Args:
      context: the site's own surroundings.
      plan: the verified plan (R0) that this site has agreed to answer.
      vector_of: gives the site's int64 vector of ``plan.length`` for this plan, and ``plan.lanes`` behind it; called
        after the shares left.
      is_encrypted: whether the vector, of any length then, leaves as a ciphertext, and its key is what is masked.

    Returns:
      True when this site's vector is in the sum, False when the coordinator closed a phase without it or gave the sum up.

    Raises:
      ProtocolError: a peer or the coordinator lied.
      TransportError: a phase did not close in time.
    """
    secrets = SumSecrets.from_bytes(_open_plan(context, plan))
    machine = SiteSum(
        plan, site=context.site, pair_keys=context.pair_keys, tag_key=context.tag_key, secrets=secrets
    )
    _post_share(context, plan, machine.share())  # R1
    vector, bound_to = vector_of(plan), b""
    if is_encrypted:
        bound_to = _post_cipher(context, plan, encrypt(plan, vector, seed=secrets.cipher_seed))
        vector = secret_key(plan, seed=secrets.cipher_seed)
    shared = _phase(context, plan, "share")
    if context.site not in shared.sites:
        return False
    shares = {site: _read(context, plan, "share", site, shared) for site in shared.sites}
    upload = machine.mask(shares, vector[: plan.length], vector[plan.length :])
    if bound_to:
        upload = bytes(upload) + bound_to
    _say_once(context, plan, "masked", sha256(upload).digest())
    commitment = _commitment(context, plan) if context.shows_sketch else ""
    uploaded = _post(context, plan, "masked", upload)  # R2
    if context.shows_sketch and not _show_sketch(context, plan, vector[: plan.length], uploaded, commitment):
        return False
    masked = _phase(context, plan, "masked")
    if context.site not in masked.sites:
        return False
    statement = machine.agree(masked.sites)
    _say_once(context, plan, "agree", statement)
    _post(context, plan, "agree", statement)  # R3
    agreed = _phase(context, plan, "agree")
    if not agreed.sites:
        return False
    agreements = {site: _read(context, plan, "agree", site, agreed) for site in agreed.sites}
    _post(context, plan, "open", machine.open(agreements))  # R4
    return True


def post_plain(context: SiteSumContext, updates: PlainUpdates, *, vector_of: VectorOf) -> bool:
    """Post this site's update in the clear.

    Returns:
      True when the coordinator listed it.

    Raises:
      ProtocolError: the coordinator listed too few updates.
      TransportError: the list did not come in time.
    """
    plan = updates.plan
    _open_plan(context, plan)
    payload = updates.payload(vector_of(plan))
    _say_once(context, plan, "clear", sha256(payload).digest())
    _post(context, plan, "clear", payload)
    listed = _phase(context, plan, "clear")
    if len(listed.sites) < plan.min_survivors:
        raise ProtocolError("the coordinator listed too few updates", "report it to the consortium")
    return context.site in listed.sites


def _open_plan(context: SiteSumContext, plan: SumPlan) -> bytes:
    """The journaled secrets of a plan, drawn now if it is new: also what keeps a second plan from being answered."""
    return context.journal.open_plan(
        run=plan.run,
        counter=plan.counter,
        plan_digest=plan.digest,
        secrets=lambda: SumSecrets.draw().to_bytes(),
    )


def _say_once(context: SiteSumContext, plan: SumPlan, step: str, statement: bytes) -> None:
    context.journal.say_once(run=plan.run, plan_digest=plan.digest, step=step, statement=statement)


def _commitment(context: SiteSumContext, plan: SumPlan) -> str:
    """What the coordinator committed to before this site's upload."""
    return SketchCommitment.from_bytes(_told_once(context, plan, "commitment")).commitment


def _show_sketch(
    context: SiteSumContext, plan: SumPlan, vector: NDArray[np.int64], uploaded: str, commitment: str
) -> bool:
    """Between R2 and R3: post the sketch of this site's vector, once the uploads are fixed.

    Returns:
      False when this site's upload is not among them.

    Raises:
      ProtocolError: too few uploads, another upload of this site, or a nonce that the coordinator had not committed to.
    """
    listed = UploadList.from_bytes(_told_once(context, plan, "uploads"))
    nonce = bytes.fromhex(listed.nonce)
    if context.site not in listed.digests:
        return False
    if listed.digests[context.site] != uploaded or commit_nonce(plan, nonce).hex() != commitment:
        raise ProtocolError("the coordinator chose the sketches' seed anew", "report it to the consortium")
    if len(listed.sites) < plan.min_survivors or not set(listed.sites) <= set(plan.cohort):
        raise ProtocolError("the coordinator listed uploads that do not fit the plan", "report it")
    shown = sketch(vector, plan, seed=sketch_seed(plan, nonce=nonce, uploads=listed.digests))
    _say_once(context, plan, "sketch", shown)
    _post(context, plan, "sketch", shown)
    return True


def _post(context: SiteSumContext, plan: SumPlan, phase: str, payload: bytes | memoryview) -> str:
    key = sum_key(plan, phase, context.site)
    return context.board.post(key, kind=phase, payload=payload, **address_of(plan))


def _post_cipher(context: SiteSumContext, plan: SumPlan, ciphertext: bytes) -> bytes:
    """Post the ciphertext; returns its digest, to which the masked key is bound (`fedhealth.secagg.encrypted`)."""
    digest = sha256(ciphertext).digest()
    _say_once(context, plan, "cipher", digest)
    _post(context, plan, "cipher", ciphertext)
    return digest


def _post_share(context: SiteSumContext, plan: SumPlan, share: bytes) -> None:
    """Post the shares; those that stand already must be of the journal's secrets, else the sum would be garbage."""
    _post(context, plan, "share", share)
    key = sum_key(plan, "share", context.site)
    posted = context.board.read(key, kind="share", sender=context.site, role="site", **address_of(plan))
    if posted.payload != share:
        raise ProtocolError(
            "this site's journal is not the one its posted shares come from",
            "restore the journal, or restart the run under a new run id",
        )


def _phase(context: SiteSumContext, plan: SumPlan, phase: str) -> PhaseRoster:
    """Wait until the coordinator has closed a phase and read its signed list, the only one that this site goes by.

    Of a sum that is given up the list is empty.
    """
    if context.may_be_given_up and _is_given_up_before(context, plan, phase):
        return PhaseRoster(digests={})
    roster = PhaseRoster.from_bytes(_told_once(context, plan, phase, kind="roster"))
    if not set(roster.sites) <= set(plan.cohort):
        raise ProtocolError(
            "the coordinator listed a site outside the plan's cohort", "report it to the consortium"
        )
    return roster


def _is_given_up_before(context: SiteSumContext, plan: SumPlan, phase: str) -> bool:
    """Wait until a phase is closed, or the sum given up; whether it was that."""
    key, timeouts = sum_key(plan, phase, context.coordinator), context.timeouts
    given_up = given_up_key(plan, context.coordinator)
    context.board.wait(key, other=given_up, timeout_s=timeouts.coordinator_timeout_s, poll_s=timeouts.poll_s)
    return not context.board.exists(key) and is_given_up(context.board, plan, context.coordinator)


def _told_once(context: SiteSumContext, plan: SumPlan, phase: str, *, kind: str = "") -> bytes:
    """Wait for what the coordinator posts in a phase and read it: the one statement of that phase that this site goes by."""
    key = sum_key(plan, phase, context.coordinator)
    context.board.wait(key, timeout_s=context.timeouts.coordinator_timeout_s, poll_s=context.timeouts.poll_s)
    opened = context.board.read(
        key,
        kind=kind or phase,
        sender=context.coordinator,
        role="coordinator",
        **address_of(plan),
    )
    context.journal.hear_once(run=plan.run, plan_digest=plan.digest, phase=phase, listed=opened.payload)
    return opened.payload


def _read(context: SiteSumContext, plan: SumPlan, phase: str, site: str, roster: PhaseRoster) -> bytes:
    opened = context.board.read(
        sum_key(plan, phase, site),
        kind=phase,
        sender=site,
        role="site",
        digest=roster.digests[site],
        **address_of(plan),
    )
    return opened.payload
