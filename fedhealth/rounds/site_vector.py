"""A site's vector of each sum of a round: what its rows come to, before it is masked."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.profiles import Profile
from fedhealth.aggregation.statistics import encode_statistics
from fedhealth.aggregation.vocabulary import encode_vocabulary
from fedhealth.errors import DivergedError
from fedhealth.evaluation import decode_evaluation, encode_evaluation, headline_metric, prefix_of
from fedhealth.features.rows import Rows
from fedhealth.models.preprocess import site_statistics
from fedhealth.models.scoring import predict
from fedhealth.models.statistics import Statistics
from fedhealth.models.stepwise import STEPWISE
from fedhealth.models.weights import Weights, subtract
from fedhealth.privacy.noise import NoiseSource
from fedhealth.rounds.layout import RoundShape, columns_of, encode_weighted
from fedhealth.rounds.site_drift import vector_of
from fedhealth.rounds.site_memory import SiteMemory
from fedhealth.secagg.plan import SumPlan
from fedhealth.study.columns import numeric_columns
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of
from fedhealth.training.growth import growth_rows
from fedhealth.training.local import LocalUpdate, train_local
from fedhealth.training.plan import LocalPlan, plan_tuning

Vector = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRound:
    """What a site answers a round with.

    Args:
      number: of the round.
      shape: of the round, as everybody knows it.
      rows: of who consents.
      plan: of the local training.
      declared: the site's declared weight; None without differential privacy.
      seed: of shuffling and dropout, where there is no privacy to keep.
      noise_key_of: gives the secret bytes of a plan's noise and stochastic rounding.
      memory: of the run.
      profile: of the site's data, for the profile alone.
      opened: gives what an earlier step of this round came to.
    """

    number: int
    shape: RoundShape
    rows: Rows
    plan: LocalPlan
    declared: float | None
    seed: int
    noise_key_of: Callable[[SumPlan], bytes]
    memory: SiteMemory
    profile: Callable[[], Profile | None]
    opened: Callable[[int], Vector]

    def vector(self, plan: SumPlan) -> Vector:
        """The site's int64 vector for a plan."""
        return _VECTORS[plan.purpose](self, plan)

    def figures(self) -> dict[str, float | None]:
        """How this round's model does on the site's own rows of its fold, None where fewer than 11 people would show.

        Numbers of people are not told, nor intervals or more than two decimals, which would give them away: next to
        the consortium's figures they would tell those of a site that does not share its own.
        """
        study, targets = self.shape.study, targets_of(self.shape.study)
        vector = _evaluation(self, self.weights())
        metrics = decode_evaluation(vector, targets, (), min_cell=study.evaluation.min_cell).metrics
        names = [prefix_of(t, targets) + name for t in targets for name in (headline_metric(t), "accuracy")]
        told = {name: metrics[name] for name in names if name in metrics}
        return {name: None if value is None else round(value, 2) for name, value in told.items()}

    def weights(self) -> Weights:
        """The whole model at this site: what everybody has, and its own parameters."""
        return dict(sorted({**self.shape.model, **self.memory.personal(self.number)}.items()))

    def scored(self) -> Rows:
        """The rows on which this round's model is scored: the test fold's in the last round or where nothing is chosen."""
        is_chosen = self.shape.study.validation > 0.0 and not self.memory.progress.is_final(self.number)
        return self.rows.validation() if is_chosen else self.rows.test()

    def rated_study(self) -> Study:
        """The study with the learning rate of this round."""
        return self.shape.study.at_rate(self.memory.progress.learning_rate(self.number))

    def statistics(self) -> Statistics:
        """What this site scales by."""
        if self.shape.statistics is None:
            raise ValueError("round 0 has no statistics yet")
        return site_statistics(self.rows.training().inputs(), self.shape.statistics, self.shape.study)


def _vocabulary(site: SiteRound, plan: SumPlan) -> Vector:
    training = site.rows.training()
    return encode_vocabulary(training.levels, training.level_names, training.person, site.shape.study)


def _moments(site: SiteRound, plan: SumPlan) -> Vector:
    training, study = site.rows.training(), site.shape.study
    columns, targets = numeric_columns(study), targets_of(study)
    return encode_statistics(training.features, training.labels, training.person, columns, targets)


def _profile(site: SiteRound, plan: SumPlan) -> Vector:
    return vector_of(site.profile())


def _evaluation(site: SiteRound, weights: Weights, subgroups: tuple[str, ...] = ()) -> Vector:
    rows, study = site.scored(), site.shape.study
    scores = predict(weights, site.statistics(), study, rows.inputs())
    return encode_evaluation(scores, rows.labels, rows.person, rows.groups, targets_of(study), subgroups)


def _personalised(site: SiteRound, plan: SumPlan) -> Vector:
    """The final model after some passes over this site's rows alone; the tuned model is forgotten."""
    study, weights = site.rated_study(), site.weights()
    tuned = train_local(
        weights,
        site.statistics(),
        site.rows.training(),
        study,
        plan=plan_tuning(site.plan, passes=study.training.fine_tune.epochs or 1),
        noise_key=None,
        seed=site.seed,
    )
    return _evaluation(site, {name: weights[name] + tuned.delta[name] for name in weights})


def _trained(
    site: SiteRound, study: Study, weights: Weights, plan: SumPlan, correction: Weights | None
) -> LocalUpdate:
    """The round's training; of a learning rate on trial at which it diverges, an update of nothing."""
    rows = site.rows.training()
    try:
        return train_local(
            weights,
            site.statistics(),
            rows,
            study,
            plan=site.plan,
            noise_key=site.noise_key_of(plan) if study.privacy.mode != "none" else None,
            seed=site.seed,
            correction=correction,
        )
    except DivergedError:
        if site.number > study.training.search.last:
            raise
        nothing = {name: np.zeros_like(array) for name, array in weights.items()}
        return LocalUpdate(delta=nothing, n_examples=len(rows.labels), steps=0, mean_loss=math.nan)


def _update(site: SiteRound, plan: SumPlan) -> Vector:
    study, weights = site.rated_study(), site.weights()
    has_control = study.training.algorithm == "scaffold"
    own = site.memory.control(site.number) if has_control else {}
    control = site.memory.progress.state(site.number).control
    update = _trained(site, study, weights, plan, subtract(control, own) if has_control else None)
    shared = {name: update.delta[name] for name in site.shape.model}
    personal = {name: weights[name] + update.delta[name] for name in weights if name not in shared}
    of_control = {"own": own, "control": control, "delta": shared} if has_control else {}
    owed = site.memory.owed(site.number) if study.aggregation.sent_share < 1.0 else {}
    told = {name: shared[name] + owed[name] for name in owed}
    site.memory.keep(site.number, personal=personal, told=told, **of_control)
    return encode_weighted(
        told or shared,
        site.shape,
        examples=update.n_examples,
        declared=site.declared,
        sites=len(plan.cohort),
        rounding=NoiseSource(site.noise_key_of(plan)).fork("rounding"),
    )


def _growth(site: SiteRound, plan: SumPlan) -> Vector:
    study, columns = site.shape.study, columns_of(site.shape)
    rows = growth_rows(site.rows.training(), site.statistics(), study)
    opened = [site.opened(step) for step in range(plan.step)]
    return STEPWISE[study.model.kind].encode_step(
        site.shape.model, opened, rows, columns=columns, study=study
    )


_VECTORS: dict[str, Callable[[SiteRound, SumPlan], Vector]] = {
    "vocabulary": _vocabulary,
    "moments": _moments,
    "profile": _profile,
    "evaluation": lambda site, plan: _evaluation(site, site.weights(), site.shape.subgroups),
    "personalised": _personalised,
    "update": _update,
    "growth": _growth,
}
