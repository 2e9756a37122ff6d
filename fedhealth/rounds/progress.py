"""A run as everybody can compute it from the board: its statistics, its models, and when it ends.

Coordinator and sites replay the same aggregates with the same code, so no site takes the coordinator's word for a
model, and neither has to remember anything: after a restart it is computed again.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from fedhealth.aggregation.optimizers import ServerState, first_state, server_step
from fedhealth.compression.codec import Codec, owed_growth, step_for
from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.evaluation import headline_metric, prefix_of
from fedhealth.models.networks import initial_weights
from fedhealth.models.personal import frozen_names, split_personal
from fedhealth.models.statistics import Statistics
from fedhealth.models.stepwise import STEPWISE
from fedhealth.models.weights import Weights, parameter_count
from fedhealth.rounds.aggregate import Aggregate, statistics_of
from fedhealth.rounds.layout import UPDATE_SD, RoundShape
from fedhealth.rounds.objects import PREPROCESSING_ROUND, last_round, purposes_of
from fedhealth.study.columns import FeatureColumn, feature_columns
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of


@dataclass(frozen=True, slots=True)
class Trial:
    """A learning rate that was tried, and the pooled signal of its last round; None if none was told."""

    learning_rate: float
    signal: float | None
    is_chosen: bool


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
    _reached: tuple[tuple[int, ...], ServerState] | None = None
    _statistics: Statistics | None = None
    _signals: list[float | None] = field(default_factory=list)

    def statistics(self) -> Statistics:
        """The consortium's statistics; known once round 0 is closed."""
        if self._statistics is None:
            self._statistics = statistics_of(self.aggregate_of(0))
        return self._statistics

    def columns(self) -> tuple[FeatureColumn, ...]:
        """The columns of the static vector; known once round 0 is closed."""
        return feature_columns(self.study, self.statistics().vocabulary)

    def initial(self) -> Weights:
        """The whole model before the first update: drawn from the run's seed, or the transferred one."""
        if self.study.model.kind in STEPWISE:
            return STEPWISE[self.study.model.kind].initial_model(self.study, self.columns())
        drawn = initial_weights(self.study, inputs=len(self.columns()), seed=self.seed)
        if self.study.training.initial.model is None:
            return drawn
        given = self.transferred()
        if {name: array.shape for name, array in given.items()} != {n: a.shape for n, a in drawn.items()}:
            raise ConfigError(
                "training.initial: the registered model has other layers than the study's network",
                "give the study the model section and features of the registered one",
            )
        return given

    def personal(self) -> Weights:
        """The parameters that every site starts from and keeps to itself."""
        return {} if self.study.model.kind in STEPWISE else split_personal(self.initial(), self.study)[1]

    def whole(self, number: int) -> Weights:
        """The model with which a round opens, with the personal parameters as they were at the start.

        It is the one that a manifest names, and that is registered; none in round 0, before the columns are known.
        """
        if number == PREPROCESSING_ROUND:
            return {}
        return dict(sorted({**self.weights(number), **self.personal()}.items()))

    def shape(self, number: int) -> RoundShape:
        """What everybody knows of a round before its sums."""
        purposes = self.purposes(number)
        return RoundShape(
            study=self.study,
            purposes=purposes,
            model=self.weights(number),
            statistics=None if number == PREPROCESSING_ROUND else self.statistics(),
            codec=self.codec(number) if "update" in purposes else None,
        )

    def codec(self, number: int) -> Codec | None:
        """How a round's update is compressed; None where it is summed exactly.

        That is so in a study that does not compress, and where no update before tells how large this one will be: in the
        first of a run or of a learning rate on trial, and after one of nothing.

        Raises:
          ProtocolError: the update before tells a size that is none.
        """
        aggregation, updates = self.study.aggregation, self._updates(number)
        if not (aggregation.compresses and updates):
            return None
        sum_sd = self.aggregate_of(updates[-1]).metrics.get(UPDATE_SD)
        if sum_sd == 0.0:
            return None
        try:
            grown = float(sum_sd or "nan") * owed_growth(aggregation.sent_share, len(updates))
            step = step_for(grown, ring_bits=aggregation.ring_bits)
        except (TypeError, ValueError):
            raise ProtocolError(
                "an aggregate does not tell how large its update was", "report the coordinator"
            ) from None
        length = parameter_count(self.weights(number))
        return Codec(
            length=length,
            sent=math.ceil(aggregation.sent_share * length),
            ring_bits=aggregation.ring_bits,
            step=step,
            seed=self.public_seed(number),
        )

    def public_seed(self, number: int) -> bytes:
        """32 bytes of what is drawn in public for a round: of the run's seed, so that a run can be repeated bit for bit."""
        return hashlib.sha256(f"fedhealth/round/{self.seed}/{number}".encode()).digest()

    def purposes(self, number: int) -> tuple[str, ...]:
        """The names of a round's sums."""
        return purposes_of(self.study, number, is_final=self.is_final(number), sites=self.sites)

    def is_final(self, number: int) -> bool:
        """Whether a round only scores the final model: the last one, or the one after the signal stood still."""
        if number in (PREPROCESSING_ROUND, last_round(self.study)):
            return number > PREPROCESSING_ROUND
        patience = self.study.training.early_stopping.patience
        if patience is None or number - self.study.training.search.last <= patience:
            return False
        best = self._best(number)
        return best is not None and number - 1 - best >= patience

    def origin(self, number: int) -> int:
        """The round whose opening model a round opens with: itself, or in the last of a run with patience the best one."""
        if self.study.training.early_stopping.patience is None or not self.is_final(number):
            return number
        return self._best(number) or number

    def trials(self) -> tuple[Trial, ...]:
        """The learning rates of ``training.search``, once all of them had their rounds; none without it.

        A rate's model is that with which its last round opened. The best is chosen, the first of equals, or the first of all
        where no signal may be told.
        """
        search = self.study.training.search
        signals = [self._signal(search.rounds * (turn + 1)) for turn in range(len(search.lr))]
        told = [signal for signal in signals if signal is not None]
        chosen = signals.index(max(told)) if told else 0
        return tuple(
            Trial(rate, signal, turn == chosen)
            for turn, (rate, signal) in enumerate(zip(search.lr, signals, strict=True))
        )

    def learning_rate(self, number: int) -> float:
        """The rate at which the sites train in a round: the one on trial, then the chosen one."""
        search = self.study.training.search
        if not search.lr:
            return self.study.training.optimizer.lr
        return search.lr[(number - 1) // search.rounds if number <= search.last else self._chosen()]

    def _chosen(self) -> int:
        return next(turn for turn, trial in enumerate(self.trials()) if trial.is_chosen)

    def _updates(self, number: int) -> tuple[int, ...]:
        """The rounds whose updates are in the model with which a round opens: of one rate alone."""
        search = self.study.training.search
        if number <= search.last:
            return tuple(range(number - (number - 1) % search.rounds, number))
        if not search.lr:
            return tuple(range(1, number))
        first = self._chosen() * search.rounds + 1
        return (*range(first, first + search.rounds), *range(search.last + 1, number))

    def state(self, number: int) -> ServerState:
        """The server's state with which a round >= 1 opens."""
        return self._after(self.origin(number))

    def weights(self, number: int) -> Weights:
        """What travels of the model with which a round opens; none in round 0, before the columns are known."""
        return {} if number == PREPROCESSING_ROUND else self.state(number).weights

    def _signal(self, number: int) -> float | None:
        """The pooled metric of the model with which a closed round opened."""
        for n in range(len(self._signals) + 1, number + 1):
            self._signals.append(self.aggregate_of(n).metrics.get(signal_of(self.study)))
        return self._signals[number - 1]

    def _best(self, number: int) -> int | None:
        """The round before ``number`` whose model has the best signal so far, the first of equals; None if none is told."""
        told = {n: self._signal(n) for n in range(self.study.training.search.last + 1, number)}
        known = {n: signal for n, signal in told.items() if signal is not None}
        return max(known, key=lambda n: (known[n], -n), default=None)

    def _after(self, number: int) -> ServerState:
        """The state after the updates that a round's model is made of; kept from one round to the next."""
        updates = self._updates(number)
        done, state = self._reached or ((), self._first())
        if updates[: len(done)] != done:
            done, state = (), self._first()
        for n in updates[len(done) :]:
            state = self._step(state, n)
        self._reached = updates, state
        return state

    def _first(self) -> ServerState:
        if self.study.model.kind in STEPWISE:
            return ServerState(self.initial())
        return first_state(split_personal(self.initial(), self.study)[0], self.study)

    def _step(self, state: ServerState, number: int) -> ServerState:
        """The state after a round's update, or its growth."""
        aggregate, study = self.aggregate_of(number), self.study
        if study.model.kind in STEPWISE:
            grown = [aggregate.tensors[name] for name in self.purposes(number) if name.startswith("growth/")]
            model = STEPWISE[study.model.kind]
            weights = model.next_model(
                state.weights, grown, columns=self.columns(), study=study, number=number
            )
            return ServerState(weights)
        share = len(aggregate.survivors.get("update", ())) / self.sites
        delta = {name: aggregate.tensors[name] for name in state.weights}
        return server_step(state, delta, study, share=share)


def check_patterns(study: Study) -> None:
    """Refuse patterns of parameters that are those of none of the study's network: before a round, not in it.

    Raises:
      ConfigError: ``training.personal`` or ``training.initial.freeze`` names nothing, or everything.
    """
    if study.model.kind in STEPWISE:
        return
    weights = initial_weights(study, inputs=max(len(feature_columns(study)), 1), seed=0)
    split_personal(weights, study)
    frozen_names(weights, study)


def signal_of(study: Study) -> str:
    """The name of the pooled metric by which a run stops early: the headline of the first target."""
    targets = targets_of(study)
    return prefix_of(targets[0], targets) + headline_metric(targets[0])
