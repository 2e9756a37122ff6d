"""Reference models for comparison: local-only, federated without DP, centralised.

They pool the data of all sites on this machine and carry no privacy (epsilon = infinity). They are never
registered and never leave the process; what comes out is metrics over all sites' test rows, suppressed like
all others.

All references share one SGD setting (`REFERENCE_SGD`), one initial model and the same number of passes over
the data, so that they differ only in who trains with whom. The study's own optimiser is not used: a learning
rate chosen for noisy gradients would handicap the references.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import DataError
from fedhealth.evaluation import Metrics, encode_scores, pooled_metrics, scores_length
from fedhealth.features.rows import Rows
from fedhealth.models.networks import initial_weights, predict
from fedhealth.models.preprocess import site_statistics, static_inputs
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study
from fedhealth.training.stacked import SgdSettings, StackedTrainer
from fedhealth.training.threads import one_thread

REFERENCE_SGD = SgdSettings(lr=0.05, momentum=0.9, weight_decay=1e-3, batch_size=32)

Dataset = tuple[NDArray[np.float32], NDArray[np.float32]]
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
      rows: AUROC of ``local_mean``, ``federated_naive``, ``federated``, ``centralised``.
      metrics: all pooled metrics of the three models that are one model.
      local: pooled metrics of each site's own model, by site.
    """

    rows: tuple[ComparisonRow, ...]
    metrics: Mapping[str, Metrics]
    local: Mapping[str, Metrics]


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
      DataError: no site has training rows.
    """
    folds = {site: _training_fold(rows, study, statistics) for site, rows in sorted(site_rows.items())}
    trained = {site: fold for site, fold in folds.items() if len(fold[1])}
    if not trained:
        raise DataError("no site has training rows", "check the cohort of the study")
    start = initial_weights(study, inputs=len(feature_columns(study)), seed=seed)
    datasets = list(trained.values())
    sizes = np.array([len(labels) for _, labels in datasets], dtype=np.float64)
    pooled = (np.concatenate([x for x, _ in datasets]), np.concatenate([y for _, y in datasets]))

    def score(weights: Weights) -> Metrics:
        return _score(weights, site_rows.values(), study, statistics)

    def done(name: str) -> None:
        if progress is not None:
            progress(name)

    with one_thread():
        local = dict(zip(trained, map(score, _alone(datasets, start, study, seed)), strict=True))
        done("local_mean")
        metrics = {}
        for name, shares in (
            ("federated_naive", np.full(len(sizes), 1.0 / len(sizes))),
            ("federated", sizes / sizes.sum()),
        ):
            metrics[name] = score(_together(datasets, start, study, seed, shares.tolist()))
            done(name)
        metrics["centralised"] = score(_alone([pooled], start, study, seed)[0])
        done("centralised")
    rows = [_row(study, name, (metric,)) for name, metric in metrics.items()]
    return References(
        rows=(_row(study, "local_mean", tuple(local.values())), *rows), metrics=metrics, local=local
    )


def _training_fold(rows: Rows, study: Study, statistics: Statistics) -> Dataset:
    training = rows.training()
    own = site_statistics(training.inputs(), statistics, study)
    return static_inputs(training.inputs(), own, study), training.labels[:, 0]


def _passes(study: Study) -> int:
    """Passes over the rows per round; a study counted in steps gets one."""
    return study.training.local.epochs or 1


def _alone(datasets: Sequence[Dataset], start: Weights, study: Study, seed: int) -> list[Weights]:
    """Each dataset's own model, after rounds * epochs passes."""
    trainer = StackedTrainer(datasets, dropout=study.model.dropout, settings=REFERENCE_SGD, seed=seed)
    trainer.load(start)
    for _ in range(study.training.rounds * _passes(study)):
        trainer.run_pass()
    return trainer.weights()


def _together(
    datasets: Sequence[Dataset], start: Weights, study: Study, seed: int, shares: Sequence[float]
) -> Weights:
    """Federated averaging with fixed shares, momentum fresh in every round."""
    trainer = StackedTrainer(datasets, dropout=study.model.dropout, settings=REFERENCE_SGD, seed=seed)
    weights = start
    for _ in range(study.training.rounds):
        trainer.load(weights)
        for _ in range(_passes(study)):
            trainer.run_pass()
        weights = trainer.average(shares)
    return weights


def _score(weights: Weights, sites: Iterable[Rows], study: Study, statistics: Statistics) -> Metrics:
    """Pooled metrics on all sites' test rows, by the same counts as the study's own model."""
    total = np.zeros(scores_length(), dtype=np.int64)
    for rows in sites:
        test = rows.test()
        own = site_statistics(rows.training().inputs(), statistics, study)
        scores = predict(weights, own, study, test.inputs())
        total += encode_scores(scores[:, 0], test.labels[:, 0], test.person)
    return pooled_metrics(total, min_cell=study.evaluation.min_cell)


def _row(study: Study, model: str, metrics: Sequence[Metrics]) -> ComparisonRow:
    """Mean over models of AUROC and interval; None where any is suppressed."""

    def mean(values: Sequence[float | None]) -> float | None:
        shown = [value for value in values if value is not None]
        return float(np.mean(shown)) if len(shown) == len(values) else None

    return ComparisonRow(
        outcome=study.outcome_name,
        model=model,
        metric="auroc",
        value=mean([metric.auroc for metric in metrics]),
        low=mean([metric.low for metric in metrics]),
        high=mean([metric.high for metric in metrics]),
    )
