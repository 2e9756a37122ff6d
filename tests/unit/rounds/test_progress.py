"""A run replayed from aggregates made here: when it ends, with which model, and what it may start from."""

import json

import numpy as np
import pytest

from fedhealth.errors import ConfigError
from fedhealth.models.networks import initial_weights
from fedhealth.models.statistics import Statistics
from fedhealth.rounds.aggregate import Aggregate
from fedhealth.rounds.progress import Progress
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study


def study_of(**training):
    document = {
        "schema_version": 1,
        "name": "tiny",
        "outcomes": {"readmission": {"kind": "readmission"}},
        "features": {"preset": None, "statics": ["age", "sex"]},
        "model": {"kind": "linear"},
        "training": {"rounds": 9, "local": {"epochs": 1}, **training},
    }
    return Study.model_validate_json(json.dumps(document))


def progress_of(study, signals=(), transferred=None):
    """A run whose rounds had these pooled areas; every update moves the model by one."""
    columns = len(feature_columns(study))
    ones = np.ones(columns, dtype=np.float32)
    statistics = Statistics(mean=ones, sd=ones, median=ones, count=np.full(columns, 99.0))
    first = Aggregate(tensors={name: getattr(statistics, name) for name in ("mean", "sd", "median", "count")})
    delta = {n: np.ones_like(a) for n, a in initial_weights(study, inputs=columns, seed=0).items()}

    def aggregate_of(number):
        if number == 0:
            return first
        return Aggregate(tensors=delta, metrics={"auroc": signals[number - 1]}, survivors={"update": ("a",)})

    return Progress(study=study, seed=0, sites=1, aggregate_of=aggregate_of, transferred=lambda: transferred)


def test_a_run_ends_when_its_signal_stood_still_and_keeps_the_best_model():
    progress = progress_of(study_of(early_stopping={"patience": 2}), [0.6, 0.7, 0.7, 0.65])
    assert [progress.is_final(number) for number in range(1, 6)] == [False, False, False, False, True]
    assert progress.origin(5) == 2
    assert progress.weights(5)["layers.0.bias"].tolist() == [1.0]
    assert progress.purposes(5) == ("evaluation",)


@pytest.mark.parametrize("signal", [None, 0.5])
def test_a_signal_that_is_never_told_ends_nothing(signal):
    progress = progress_of(study_of(early_stopping={"patience": 2}), [signal] * 9)
    ends = next(number for number in range(1, 11) if progress.is_final(number))
    assert ends == (10 if signal is None else 4)
    assert progress.weights(ends)["layers.0.bias"].tolist() == [9.0 if signal is None else 0.0]


def test_a_transferred_model_of_other_layers_is_refused():
    other = {"layers.0.weight": np.zeros((1, 7), np.float32), "layers.0.bias": np.zeros(1, np.float32)}
    study = study_of(initial={"model": "readmission-30d/3", "digest": "0" * 64})
    with pytest.raises(ConfigError, match="other layers"):
        progress_of(study, transferred=other).weights(1)


SEARCH = {"lr": [0.1, 0.3, 0.9], "rounds": 2}


@pytest.mark.parametrize(
    ("signals", "rate", "told"),
    [
        ([0.5, 0.6, 0.5, 0.8, 0.5, 0.7], 0.3, [0.6, 0.8, 0.7]),
        ([0.5, 0.8, 0.5, 0.8, 0.5, 0.7], 0.1, [0.8, 0.8, 0.7]),
        ([0.9, None, 0.9, None, 0.5, 0.4], 0.9, [None, None, 0.4]),
        ([None] * 6, 0.1, [None, None, None]),
    ],
    ids=["best", "first of equals", "only one told", "none told"],
)
def test_a_search_goes_on_with_the_rate_whose_last_model_did_best(signals, rate, told):
    progress = progress_of(study_of(search=SEARCH), [*signals, 0.5, 0.5, 0.5])
    assert [progress.learning_rate(n) for n in range(1, 7)] == [0.1, 0.1, 0.3, 0.3, 0.9, 0.9]
    assert [progress.weights(n)["layers.0.bias"].item() for n in range(1, 7)] == [0, 1, 0, 1, 0, 1]
    assert [trial.signal for trial in progress.trials()] == told
    assert [trial.learning_rate for trial in progress.trials() if trial.is_chosen] == [rate]
    assert {progress.learning_rate(n) for n in range(7, 11)} == {rate}
    # the two updates of the chosen rate's trial, and those since
    assert [progress.weights(n)["layers.0.bias"].item() for n in range(7, 11)] == [2, 3, 4, 5]


def test_a_search_is_over_before_patience_counts():
    study = study_of(search=SEARCH, early_stopping={"patience": 1})
    progress = progress_of(study, [0.9, 0.9, 0.9, 0.5, 0.9, 0.8, 0.6, 0.5, 0.5])
    assert [progress.is_final(number) for number in range(1, 10)] == [False] * 8 + [True]
    assert progress.origin(9) == 7
    assert progress.learning_rate(9) == 0.1


def test_a_restarted_party_computes_the_same_model_as_one_that_was_there():
    signals = [0.5, 0.6, 0.5, 0.8, 0.5, 0.7, 0.5, 0.5, 0.5]
    watched = progress_of(study_of(search=SEARCH), signals)
    for number in range(1, 11):
        weights = watched.weights(number)
        fresh = progress_of(study_of(search=SEARCH), signals)
        assert {k: v.tobytes() for k, v in fresh.weights(number).items()} == {
            k: v.tobytes() for k, v in weights.items()
        }


def test_a_study_without_a_search_trains_at_its_own_rate():
    progress = progress_of(study_of(optimizer={"lr": 0.7}), [0.5] * 9)
    assert progress.trials() == ()
    assert {progress.learning_rate(number) for number in range(1, 11)} == {0.7}
