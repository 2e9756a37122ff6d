"""R0 at a site: which plan of a sum it answers, and which it refuses."""

import time

from fedhealth.config import Timeouts
from fedhealth.errors import TransportError
from fedhealth.exchange.board import Board
from fedhealth.rounds.layout import RoundShape
from fedhealth.rounds.objects import Manifest, part_of, round_key, sum_prefix
from fedhealth.rounds.posted import judge_plan, read_plan
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
    plan = read_plan(board, manifest, name)
    judge_plan(board, manifest, shape, name, plan)
    return plan
