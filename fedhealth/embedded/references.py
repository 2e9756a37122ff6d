"""Reference models for comparison: local-only, federated without DP, centralised.

They pool the data of all sites on this machine and carry no privacy (epsilon = infinity). They are never
registered and never leave the process; what comes out is metrics over all sites' test rows, suppressed like
all others.

All references share one optimiser (`REFERENCE_SGD`; Adam for a recurrent network), one initial model and the same
number of passes over the data, so that they differ only in who trains with whom. Where the study stops early, each ends
with its patience and keeps its best round by the validation rows of all sites: also a site's own model, which is more
than it could know alone. The study's own optimiser is not used: a learning rate chosen for noisy gradients would handicap
the references. Nor is its algorithm: all is plain federated averaging of every parameter.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fedhealth.errors import DataError, PolicyError
from fedhealth.evaluation import (
    Figures,
    decode_evaluation,
    encode_evaluation,
    evaluation_length,
    headline_metric,
    prefix_of,
)
from fedhealth.features.rows import Rows
from fedhealth.models.networks import initial_weights, network_inputs, score_inputs
from fedhealth.models.preprocess import site_statistics
from fedhealth.models.scoring import predict
from fedhealth.models.statistics import Statistics
from fedhealth.models.stepwise import STEPWISE
from fedhealth.models.stepwise.rows import TrainingRows
from fedhealth.models.weights import Weights
from fedhealth.study.spec import Study
from fedhealth.study.targets import Target, targets_of
from fedhealth.training.growth import grow, growth_rows
from fedhealth.training.sequential import MakeOptimizer, SequentialTrainer
from fedhealth.training.stacked import SgdSettings, StackedTrainer
from fedhealth.training.threads import one_thread

REFERENCE_SGD = SgdSettings(lr=0.05, momentum=0.9, weight_decay=1e-3, batch_size=32)
REFERENCE_ADAM_LR = 3e-3

Dataset = tuple[tuple[NDArray[np.float32], ...], NDArray[np.float32]]
"""What a network takes, and labels (rows, targets), of one site's training rows with a known label."""
Scores = Figures
"""Pooled figures by name, as `fedhealth.evaluation` names them."""
_Alone = tuple[Scores, Scores]
"""A local model's figures on the test rows of all sites, and of the other sites alone."""
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One line of the comparison: a model, a metric over all sites' test rows, its 95% interval."""

    outcome: str
    model: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class References:
    """What the references reached.

    Attributes:
      rows: per outcome of yes or no, AUROC of ``local_mean``, ``federated_naive``, ``federated``, ``centralised``.
      metrics: all pooled metrics of the three models that are one model, by model and outcome.
      local: pooled metrics of each site's own model, by site and outcome.
      elsewhere: the same on the test rows of the other sites alone.
    """

    rows: tuple[ComparisonRow, ...]
    metrics: Mapping[str, Scores]
    local: Mapping[str, Scores]
    elsewhere: Mapping[str, Scores]


def train_references(
    site_rows: Mapping[str, Rows],
    study: Study,
    statistics: Statistics,
    *,
    seed: int,
    progress: Progress | None = None,
) -> References:
    """Train and score the references.

    ``local_mean`` is the mean over sites of the AUROC that a model trained at that site alone reaches on
    the test rows of **all** sites; its interval is the mean of their intervals (which overlap in data, so
    it is conservative). ``federated_naive`` averages sites equally, ``federated`` by training rows.

    Guarantees: a function of its arguments; one thread.

    Args:
      site_rows: rows of every site, both folds; a site without training rows only adds its test rows.
      study: gives rounds, epochs, network and columns.
      statistics: the consortium's.
      seed: of the initial model, shuffling and dropout.
      progress: called with each model's name as its training ends.

    Raises:
      DataError: no site has training rows with a known label.
    """
    if study.model.kind in STEPWISE:
        alone, metrics = _grown(site_rows, study, statistics, progress or (lambda name: None))
    else:
        alone, metrics = _trained(
            site_rows, _plainly(study), statistics, seed, progress or (lambda name: None)
        )
    local = {site: each for site, (each, _) in alone.items()}
    models = {"local_mean": list(local.values()), **{name: [each] for name, each in metrics.items()}}
    targets = targets_of(study)
    rows = [
        _row(target, prefix_of(target, targets), name, scores)
        for target in targets
        for name, scores in models.items()
    ]
    elsewhere = {site: each for site, (_, each) in alone.items()}
    return References(rows=tuple(rows), metrics=metrics, local=local, elsewhere=elsewhere)


def _trained(
    site_rows: Mapping[str, Rows], study: Study, statistics: Statistics, seed: int, done: Progress
) -> tuple[dict[str, _Alone], dict[str, Scores]]:
    """Networks: figures of each site's own, and of the three models that are one."""
    folds = {site: _training_fold(rows, study, statistics) for site, rows in sorted(site_rows.items())}
    trained = {site: fold for site, fold in folds.items() if len(fold[1])}
    if not trained:
        raise _nobody()
    datasets = list(trained.values())
    start = initial_weights(study, inputs=datasets[0][0][0].shape[1], seed=seed)
    sizes = np.array([len(labels) for _, labels in datasets], dtype=np.float64)

    def score(weights: Weights) -> Scores:
        return _score(weights, site_rows.values(), study, statistics)

    signal = _signal(list(site_rows.values()), study, statistics)

    def kept() -> _Kept:
        return _Kept(study.training.early_stopping.patience, signal)

    with one_thread():
        own = _alone(datasets, start, study, seed, [kept() for _ in datasets])
        local = {
            site: _score_apart(weights, site, site_rows, study, statistics)
            for site, weights in zip(trained, own, strict=True)
        }
        done("local_mean")
        metrics = {}
        for name, shares in (
            ("federated_naive", np.full(len(sizes), 1.0 / len(sizes))),
            ("federated", sizes / sizes.sum()),
        ):
            metrics[name] = score(_together(datasets, start, study, seed, shares.tolist(), kept()))
            done(name)
        metrics["centralised"] = score(_alone([_pooled(datasets)], start, study, seed, [kept()])[0])
        done("centralised")
    return local, metrics


def _grown(
    site_rows: Mapping[str, Rows], study: Study, statistics: Statistics, done: Progress
) -> tuple[dict[str, _Alone], dict[str, Scores]]:
    """Models that grow by sums: federated and centralised are one model; a site alone may have too few people for any."""
    rows = {site: growth_rows(each.training(), statistics, study) for site, each in sorted(site_rows.items())}
    known = {site: each for site, each in rows.items() if not np.isnan(each.labels).all()}
    if not known:
        raise _nobody()
    signal = _signal(list(site_rows.values()), study, statistics)

    def grown(parts: Sequence[TrainingRows]) -> Weights:
        kept = _Kept(study.training.early_stopping.patience, signal)
        for weights in grow(parts, statistics, study):
            kept.offer(weights)
            if kept.is_final:
                break
        return kept.weights

    local = {}
    for site, each in known.items():
        with suppress(PolicyError):
            local[site] = _score_apart(grown([each]), site, site_rows, study, statistics)
    done("local_mean")
    together = _score(grown(list(known.values())), site_rows.values(), study, statistics)
    done("centralised")
    return local, {"federated": together, "centralised": together}


def _nobody() -> DataError:
    return DataError("no site has training rows with a label", "check the cohort of the study")


def _plainly(study: Study) -> Study:
    """The study with plain federated averaging of the network without an input norm."""
    plain = {"algorithm": "fedavg", "proximal_mu": 0.0}
    return study.model_copy(update={"training": study.training.model_copy(update=plain)})


def _training_fold(rows: Rows, study: Study, statistics: Statistics) -> Dataset:
    fold = rows.where(rows.is_training & ~np.isnan(rows.labels).all(axis=1))
    own = site_statistics(rows.training().inputs(), statistics, study)
    return network_inputs(fold.inputs(), own, study), fold.labels


def _pooled(datasets: Sequence[Dataset]) -> Dataset:
    inputs = zip(*(each for each, _ in datasets), strict=True)
    return tuple(map(np.concatenate, inputs)), np.concatenate([labels for _, labels in datasets])


def _trainer(datasets: Sequence[Dataset], study: Study, seed: int) -> StackedTrainer | SequentialTrainer:
    """All sites' networks at once where that is built, else one after the other."""
    is_binary = [target.kind for target in targets_of(study)] == ["binary"]
    if study.model.kind in ("linear", "mlp") and is_binary:
        flat = [(inputs[0], labels[:, 0]) for inputs, labels in datasets]
        return StackedTrainer(flat, dropout=study.model.dropout, settings=REFERENCE_SGD, seed=seed)
    batch_size = REFERENCE_SGD.batch_size
    return SequentialTrainer(datasets, study, optimizer=_optimizer(study), batch_size=batch_size, seed=seed)


def _optimizer(study: Study) -> MakeOptimizer:
    if study.model.kind == "lstm":
        return partial(torch.optim.Adam, lr=REFERENCE_ADAM_LR)
    sgd = REFERENCE_SGD
    return partial(torch.optim.SGD, lr=sgd.lr, momentum=sgd.momentum, weight_decay=sgd.weight_decay)


def _passes(study: Study) -> int:
    """Passes over the rows per round; a study counted in steps gets one."""
    return study.training.local.epochs or 1


@dataclass(slots=True)
class _Kept:
    """The model that a training ends with: with patience the one of the best signal, else the last.

    Args:
      patience: rounds without a gain after which the training ends; None: it does not.
      signal: of a model; None if it may not be told.
    """

    patience: int | None
    signal: Callable[[Weights], float | None]
    weights: Weights = field(default_factory=dict)
    _best: float | None = None
    _since: int = 0

    @property
    def is_final(self) -> bool:
        """Whether the best is so many rounds old as there is patience."""
        return self.patience is not None and self._best is not None and self._since >= self.patience

    def offer(self, weights: Weights) -> None:
        """Take weights that are better, or any as long as no signal is told."""
        if self.is_final:
            return
        signal = None if self.patience is None else self.signal(weights)
        self._since += 1
        if self._best is None or (signal is not None and signal > self._best):
            self.weights, self._best, self._since = weights, signal, 0


def _signal(sites: Sequence[Rows], study: Study, statistics: Statistics) -> Callable[[Weights], float | None]:
    """The pooled metric of the study's first target on the rows by which it chooses, of all sites."""
    folds = [rows.validation() if study.validation else rows.test() for rows in sites]
    own = [site_statistics(rows.training().inputs(), statistics, study) for rows in sites]
    is_network = study.model.kind not in STEPWISE
    inputs = []
    if is_network:  # prepared once: networks are scored after every pass
        prepared = [network_inputs(fold.inputs(), each, study) for fold, each in zip(folds, own, strict=True)]
        inputs = [np.concatenate(arrays) for arrays in zip(*prepared, strict=True)]
    labels = np.concatenate([fold.labels for fold in folds])
    person, groups = (np.concatenate([getattr(f, name) for f in folds]) for name in ("person", "groups"))
    targets = targets_of(study)
    name = prefix_of(targets[0], targets) + headline_metric(targets[0])

    def signal(weights: Weights) -> float | None:
        if is_network:
            scores = score_inputs(weights, study, inputs)
        else:
            parts = zip(folds, own, strict=True)
            scores = np.concatenate([predict(weights, each, study, fold.inputs()) for fold, each in parts])
        return _figures(encode_evaluation(scores, labels, person, groups, targets, ()), study).get(name)

    return signal


def _alone(
    datasets: Sequence[Dataset], start: Weights, study: Study, seed: int, kept: Sequence[_Kept]
) -> list[Weights]:
    """Each dataset's own model, after rounds * epochs passes or when it is good enough."""
    trainer = _trainer(datasets, study, seed)
    trainer.load(start)
    for _ in range(study.training.rounds):
        for _ in range(_passes(study)):
            trainer.run_pass()
        for each, weights in zip(kept, trainer.weights(), strict=True):
            each.offer(weights)
        if all(each.is_final for each in kept):
            break
    return [each.weights for each in kept]


def _together(
    datasets: Sequence[Dataset],
    start: Weights,
    study: Study,
    seed: int,
    shares: Sequence[float],
    kept: _Kept,
) -> Weights:
    """Federated averaging with fixed shares, momentum fresh in every round."""
    trainer = _trainer(datasets, study, seed)
    weights = start
    for _ in range(study.training.rounds):
        trainer.load(weights)
        for _ in range(_passes(study)):
            trainer.run_pass()
        weights = trainer.average(shares)
        kept.offer(weights)
        if kept.is_final:
            break
    return kept.weights


def _score(weights: Weights, sites: Iterable[Rows], study: Study, statistics: Statistics) -> Scores:
    """Pooled figures on all sites' test rows, from the same counts as those of the study's own model."""
    total = np.zeros(evaluation_length(targets_of(study), ()), dtype=np.int64)
    for rows in sites:
        total += _counts(weights, rows, study, statistics)
    return _figures(total, study)


def _score_apart(
    weights: Weights, own: str, sites: Mapping[str, Rows], study: Study, statistics: Statistics
) -> _Alone:
    """The figures of a site's own model on the test rows of all sites, and of the others alone."""
    counts = {site: _counts(weights, rows, study, statistics) for site, rows in sites.items()}
    total = np.sum(list(counts.values()), axis=0)
    return _figures(total, study), _figures(total - counts[own], study)


def _counts(weights: Weights, rows: Rows, study: Study, statistics: Statistics) -> NDArray[np.int64]:
    """A site's counts of its test rows, as it would send them."""
    test = rows.test()
    own = site_statistics(rows.training().inputs(), statistics, study)
    scores = predict(weights, own, study, test.inputs())
    return encode_evaluation(scores, test.labels, test.person, test.groups, targets_of(study), ())


def _figures(counts: NDArray[np.int64], study: Study) -> Scores:
    return decode_evaluation(counts, targets_of(study), (), min_cell=study.evaluation.min_cell).metrics


def _row(target: Target, prefix: str, model: str, scores: Sequence[Scores]) -> ComparisonRow:
    """The mean over models of a target's headline metric and interval; None where any is suppressed."""

    def mean(name: str) -> float | None:
        shown = [value for each in scores if (value := each.get(prefix + name)) is not None]
        return float(np.mean(shown)) if len(shown) == len(scores) > 0 else None

    metric = headline_metric(target)
    return ComparisonRow(
        outcome=target.name,
        model=model,
        metric=metric,
        value=mean(metric),
        low=mean("low"),
        high=mean("high"),
    )
