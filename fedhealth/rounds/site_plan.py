"""R0 at a site: which plan of a sum it answers, and which it refuses."""

import time

from fedhealth import __version__
from fedhealth.config import Timeouts
from fedhealth.errors import ProtocolError, TransportError
from fedhealth.exchange.board import Board
from fedhealth.rounds.groups import circle_of, is_grouped
from fedhealth.rounds.layout import RoundShape, sum_layout
from fedhealth.rounds.objects import (
    Manifest,
    part_of,
    round_key,
    settings_digest,
    sum_counter,
    sum_prefix,
)
from fedhealth.rounds.replay import read_plan
from fedhealth.secagg.plan import SumPlan


def await_plan(
    board: Board, manifest: Manifest, shape: RoundShape, name: str, *, timeouts: Timeouts
) -> SumPlan | None:
    """The verified plan of a sum; None when the round closed without one that this site saw in time.

    Raises:
      ProtocolError: the plan is not what study, manifest and roster imply.
      TransportError: none came in time.
    """
    purpose, step = part_of(name)
    coordinator = board.roster.coordinator
    key = f"{sum_prefix(manifest.run, manifest.round, purpose, step=step)}/plan/{coordinator}"
    deadline = time.monotonic() + timeouts.coordinator_timeout_s
    while not board.exists(key):
        if board.exists(round_key(manifest.run, manifest.round, "aggregate")):
            return None
        if time.monotonic() > deadline:
            raise TransportError("the coordinator opened no sum in time", "see whether it still runs")
        time.sleep(timeouts.poll_s)
    plan = read_plan(board, coordinator, manifest, name)
    judge_plan(board, manifest, shape, name, plan)
    return plan


def judge_plan(board: Board, manifest: Manifest, shape: RoundShape, name: str, plan: SumPlan) -> None:
    """Refuse a plan that is not exactly what study, manifest and roster imply.

    Raises:
      ProtocolError: it departs from them, or its cohort is too small or holds strangers.
    """
    purpose, step = part_of(name)
    study, layout = shape.study, sum_layout(shape, name)
    circle = circle_of(study, name, board.roster.sites)
    expected = {
        "study_digest": manifest.study_digest,
        "run": manifest.run,
        "round": manifest.round,
        "purpose": purpose,
        "step": step,
        "attempt": 0,
        "model_digest": manifest.model_digest,
        "settings_digest": settings_digest(study, __version__),
        "roster_digest": board.roster.digest,
        "ring_bits": layout.ring_bits,
        "length": layout.length,
        "lanes": layout.lanes,
        "counter": sum_counter(manifest.round, manifest.purposes, name),
        "min_survivors": circle.survivors_needed(len(plan.cohort)),
        "colluders": study.aggregation.colluders,
    }
    wrong = sorted(key for key, value in expected.items() if getattr(plan, key) != value)
    if wrong:
        raise ProtocolError(f"a plan departs from its manifest in {', '.join(wrong)}", "report it")
    if not set(plan.cohort) <= set(circle.sites):
        where = "this site's group" if is_grouped(study, name) else "the roster"
        raise ProtocolError(f"a plan names a site that is not in {where}", "report it")
    if len(plan.cohort) < circle.least_cohort:
        raise ProtocolError("a plan has fewer sites than its study asks for", "report it")
