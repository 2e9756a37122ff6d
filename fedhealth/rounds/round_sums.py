"""A round's sums at the coordinator: which plan each of them has, and what it comes to."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedhealth import __version__
from fedhealth.aggregation.plausibility import implausible
from fedhealth.config import Timeouts
from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import Aggregate
from fedhealth.rounds.coordinator_sum import (
    CoordinatorSumContext,
    SketchRules,
    gather_plain,
    post_plan,
    run_sum,
)
from fedhealth.rounds.groups import circle_of, give_up, is_given_up, is_grouped, left_out
from fedhealth.rounds.journal import record_once
from fedhealth.rounds.layout import RoundShape, is_judged, sum_layout
from fedhealth.rounds.objects import Manifest, part_of, settings_digest, sum_counter, sum_prefix
from fedhealth.rounds.plain import PlainUpdates, travels_in_the_clear
from fedhealth.rounds.posted import read_plan
from fedhealth.rounds.replay import published
from fedhealth.secagg.plan import SumPlan, threshold_for
from fedhealth.secagg.prg import SEED_BYTES


@dataclass(frozen=True, kw_only=True)
class RoundSums:
    """The sums of one round.

    Args:
      board: the exchange as the coordinator sees it.
      folder: of the run, the coordinator's own.
      manifest: of the round.
      shape_of: gives what everybody knows of it before its sums.
      account: of the run.
      timeouts: how long each phase may take.
      blame: is told who is at fault, and of what.
    """

    board: Board
    folder: Path
    manifest: Manifest
    shape_of: Callable[[], RoundShape]
    account: RunAccount
    timeouts: Timeouts
    blame: Callable[[str, str], None]

    @cached_property
    def shape(self) -> RoundShape:
        """What everybody knows of the round before its sums."""
        return self.shape_of()

    def result(self, name: str, cohort: tuple[str, ...]) -> Aggregate:
        """Run a sum over a cohort, or go on with it; of a group that cannot be summed nothing.

        Raises:
          PolicyError: too few sites answered, or the decoded sum shows a study that cannot go on.
          ProtocolError: the sum is none of numbers of sites.
        """
        if is_grouped(self.account.study, name):
            return self._of_group(name, cohort)
        return self._result(self.plan(name, cohort), name)

    def plan(self, name: str, cohort: tuple[str, ...]) -> SumPlan:
        """The plan that is posted already, whoever is ready by now, else a new one over the cohort."""
        study, manifest, (purpose, step) = self.account.study, self.manifest, part_of(name)
        if self._has_plan(name):
            return read_plan(self.board, manifest, name)
        layout = sum_layout(self.shape, name)
        circle = circle_of(study, name, self.board.roster.sites)
        return SumPlan(
            study_digest=study.digest,
            run=manifest.run,
            round=manifest.round,
            purpose=purpose,
            step=step,
            attempt=0,
            model_digest=manifest.model_digest,
            settings_digest=settings_digest(study, __version__),
            roster_digest=self.board.roster.digest,
            cohort=tuple(sorted(cohort)),
            threshold=threshold_for(len(cohort)),
            min_survivors=circle.survivors_needed(len(cohort)),
            colluders=study.aggregation.colluders,
            ring_bits=layout.ring_bits,
            length=layout.length,
            lanes=layout.lanes,
            counter=sum_counter(manifest.round, manifest.purposes, name),
        )

    def _of_group(self, name: str, cohort: tuple[str, ...]) -> Aggregate:
        """One group's sum. The plans of all groups are posted at once, so that all sites train while the first sum is made."""
        names = [each for each in self.manifest.purposes if is_grouped(self.account.study, each)]
        plans = {each: self._plan_of_group(each, cohort) for each in names}
        for each in plans.values():
            if each is not None:
                post_plan(self.board, self._coordinator, each)
        plan = plans[name]
        if plan is None or is_given_up(self.board, plan, self._coordinator):
            return left_out(name)
        try:
            return self._result(plan, name)
        except (PolicyError, ProtocolError) as error:
            self.blame(f"round {self.manifest.round}, {name}", error.problem)
            give_up(self.board, plan, self._coordinator)
            return left_out(name)

    def _plan_of_group(self, name: str, cohort: tuple[str, ...]) -> SumPlan | None:
        """The plan of a group's sum; None if too few of the group are ready."""
        circle = circle_of(self.account.study, name, self.board.roster.sites)
        ready = tuple(site for site in circle.sites if site in cohort)
        if not (self._has_plan(name) or circle.can_sum(ready)):
            return None
        return self.plan(name, ready)

    def _has_plan(self, name: str) -> bool:
        purpose, step = part_of(name)
        prefix = sum_prefix(self.manifest.run, self.manifest.round, purpose, step=step)
        return self.board.exists(f"{prefix}/plan/{self._coordinator}")

    def _result(self, plan: SumPlan, name: str) -> Aggregate:
        """What the sum of a plan comes to."""
        context = CoordinatorSumContext(
            board=self.board,
            coordinator=self._coordinator,
            timeouts=self.timeouts,
            blame=self.blame,
            sketches=self._sketch_rules(plan),
        )
        if travels_in_the_clear(self.account.study, plan.purpose):
            declared = self.account.declared(plan.round, plan.cohort)
            updates = PlainUpdates(shape=self.shape, plan=plan, declared=declared)
            return updates.result(gather_plain(context, updates))
        opened = run_sum(context, plan, cipher_length=sum_layout(self.shape, name).cipher_length)
        return published(self.shape, name, plan, opened, account=self.account)

    def _sketch_rules(self, plan: SumPlan) -> SketchRules | None:
        if not is_judged(self.account.study, plan.purpose):
            return None
        path = self.folder / f"nonce-{plan.digest}.bin"
        sizes = self.account.sizes(plan.round, plan.cohort)
        return SketchRules(
            nonce_of=lambda plan: record_once(path, secrets.token_bytes(SEED_BYTES)),
            judge=lambda sketches: implausible(sketches, weights=sizes),
        )

    @property
    def _coordinator(self) -> str:
        return self.board.roster.coordinator
