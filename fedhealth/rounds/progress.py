"""A run as everybody can compute it from the board: its statistics, its models, and when it ends.

Coordinator and sites replay the same aggregates with the same code, so no site takes the coordinator's word for a
model, and neither has to remember anything: after a restart it is computed again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from fedhealth.aggregation.optimizers import ServerState, first_state, server_step
from fedhealth.models.networks import initial_weights
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights
from fedhealth.rounds.aggregate import Aggregate, statistics_of
from fedhealth.rounds.objects import last_round
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of

SIGNALS = {"binary": "auroc", "classes": "auroc", "number": "r2", "hazard": "c_index"}
"""The pooled metric of the first target by which a run stops early, by the target's kind."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """One run, replayed.

    Args:
      study: of the run.
      seed: of the run, for the initial weights.
      sites: how many are enrolled.
      aggregate_of: the verified aggregate of a closed round.
      transferred: the weights that ``training.initial`` names, verified against its digest.
    """

    study: Study
    seed: int
    sites: int
    aggregate_of: Callable[[int], Aggregate]
    transferred: Callable[[], Weights]
    _states: dict[int, ServerState] = field(default_factory=dict)
    _statistics: Statistics | None = None

    def statistics(self) -> Statistics:
        """The consortium's statistics; known once round 0 is closed."""
        if self._statistics is None:
            self._statistics = statistics_of(self.aggregate_of(0))
        return self._statistics

    def initial(self) -> Weights:
        """The model before the first update: drawn from the run's seed, or the transferred one."""
        drawn = initial_weights(self.study, inputs=len(feature_columns(self.study)), seed=self.seed)
        return drawn if self.study.training.initial.model is None else self.transferred()

    def is_final(self, number: int) -> bool:
        """Whether a round only scores the final model: the last one, or the one after the signal stood still."""
        if number == last_round(self.study):
            return True
        patience = self.study.training.early_stopping.patience
        if patience is None or number <= patience:
            return False
        return number - 1 - self._best(number) >= patience

    def state(self, number: int) -> ServerState:
        """The server's state with which a round >= 1 opens; the best round's, if the run stopped for want of gain."""
        stops = self.study.training.early_stopping.patience is not None
        return self._after(self._best(number) if stops and self.is_final(number) else number)

    def weights(self, number: int) -> Weights:
        """The model with which a round opens; none in round 0, before the columns are known."""
        return {} if number == 0 else self.state(number).weights

    def _best(self, number: int) -> int:
        """The round before ``number`` whose model has the best signal so far, the first of equals."""
        name = signal_of(self.study)
        signals = {n: self.aggregate_of(n).metrics.get(name) for n in range(1, number)}
        known = {n: value for n, value in signals.items() if value is not None and math.isfinite(value)}
        return max(known, key=lambda n: (known[n], -n), default=1)

    def _after(self, number: int) -> ServerState:
        """The state after the updates of all rounds before ``number``; kept from one round to the next."""
        known = max((n for n in self._states if n <= number), default=1)
        state = self._states[known] if self._states.get(known) else first_state(self.initial(), self.study)
        for n in range(known, number):
            aggregate = self.aggregate_of(n)
            share = len(aggregate.survivors.get("update", ())) / self.sites
            state = server_step(
                state, {name: aggregate.tensors[name] for name in state.weights}, self.study, share=share
            )
        self._states = {number: state}
        return state


def signal_of(study: Study) -> str:
    """The name of the metric that early stopping watches."""
    first, *others = targets_of(study)
    return f"{first.name}.{SIGNALS[first.kind]}" if others else SIGNALS[first.kind]
