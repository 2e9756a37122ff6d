from dataclasses import replace

import numpy as np
import pytest

from fedhealth.embedded.references import train_references
from fedhealth.errors import DataError

NAMES = ("local_mean", "federated_naive", "federated", "centralised")


@pytest.fixture(scope="module")
def sites(make_rows):
    return {f"h{index}": make_rows(index, patients) for index, patients in enumerate((40, 60, 200, 45, 90))}


@pytest.fixture(scope="module")
def study(make_study):
    return make_study(training={"rounds": 6, "local": {"epochs": 2}, "batch_size": 16})


@pytest.fixture(scope="module")
def references(sites, study, make_statistics):
    seen = []
    result = train_references(sites, study, make_statistics(*sites.values()), seed=0, progress=seen.append)
    assert tuple(seen) == NAMES
    return result


def test_every_reference_is_scored_with_an_interval(references):
    assert tuple(row.model for row in references.rows) == NAMES
    for row in references.rows:
        assert row.outcome == "death"
        assert row.metric == "auroc"
        assert 0.5 < row.low < row.value < row.high <= 1.0


def test_all_models_are_scored_on_all_sites_test_rows(references, sites):
    rows = sum(int(site.is_test.sum()) for site in sites.values())
    assert {scores["n"] for scores in references.metrics.values()} == {rows}
    assert {scores["n"] for scores in references.local.values()} == {rows}
    for name, scores in references.elsewhere.items():
        assert scores["n"] == rows - sites[name].is_test.sum()
        assert scores["auroc"] != references.local[name]["auroc"]


def test_training_together_beats_the_mean_of_training_alone(references):
    value = {row.model: row.value for row in references.rows}
    assert value["federated"] > value["local_mean"]
    assert value["centralised"] > value["local_mean"]
    assert value["local_mean"] == pytest.approx(
        np.mean([scores["auroc"] for scores in references.local.values()])
    )


def test_references_are_a_function_of_the_seed(references, sites, study, make_statistics):
    statistics = make_statistics(*sites.values())
    assert train_references(sites, study, statistics, seed=0) == references
    assert train_references(sites, study, statistics, seed=1) != references


def test_too_few_test_rows_are_suppressed(make_rows, study, make_statistics):
    few = {"h0": make_rows(9, 12)}
    result = train_references(few, study, make_statistics(few["h0"]), seed=0)
    positives = few["h0"].labels[few["h0"].is_test].sum()
    assert 0 < positives < 11
    assert all(row.value is None and row.low is None for row in result.rows)


def test_no_training_rows_at_all_are_refused(sites, study, make_statistics):
    rows = sites["h0"]
    held_out = type(rows)(
        features=rows.features, labels=rows.labels, person=rows.person, is_test=np.ones_like(rows.is_test)
    )
    with pytest.raises(DataError, match="no site has training rows"):
        train_references({"h0": held_out}, study, make_statistics(rows), seed=0)


def test_rows_of_no_known_label_neither_train_nor_are_scored(sites, study, make_statistics):
    statistics = make_statistics(*sites.values())
    labels = {name: rows.labels.copy() for name, rows in sites.items()}
    for each in labels.values():
        each[::5] = np.nan
    some = {name: replace(rows, labels=labels[name]) for name, rows in sites.items()}
    known = {name: rows.where(~np.isnan(rows.labels[:, 0])) for name, rows in some.items()}
    found, expected = (train_references(each, study, statistics, seed=0) for each in (some, known))
    for row, other in zip(found.rows, expected.rows, strict=True):
        assert row.value == pytest.approx(
            other.value, abs=1e-3
        )  # scores at the edge of a bin may round otherwise
    assert found.metrics["federated"]["n"] == sum(int(each.is_test.sum()) for each in known.values())
    none = {"h0": replace(sites["h0"], labels=np.full_like(sites["h0"].labels, np.nan))}
    with pytest.raises(DataError, match="with a label"):
        train_references(none, study, statistics, seed=0)


def test_the_studys_algorithm_is_not_the_references(sites, make_study, study, make_statistics, references):
    training = {"rounds": 6, "local": {"epochs": 2}, "batch_size": 16}
    statistics = make_statistics(*sites.values())
    for other in ({"algorithm": "fedbn"}, {"algorithm": "fedprox", "proximal_mu": 9.0}):
        assert (
            train_references(sites, make_study(training={**training, **other}), statistics, seed=0)
            == references
        )


SEVERAL = {
    "death": {"kind": "death", "within": "stay"},
    "icu": {"kind": "icu_transfer"},
    "los": {"kind": "length_of_stay"},
}
TRAINING = {"rounds": 8, "local": {"epochs": 2}, "batch_size": 16}


@pytest.mark.parametrize(
    "model",
    [{"kind": "mlp", "hidden": [16, 8]}, {"kind": "multitask", "shared": [16, 8], "heads": [8]}],
    ids=lambda each: each["kind"],
)
def test_several_outcomes_have_a_row_each(sites, make_study, make_statistics, model):
    """icu is the opposite of death and known of every other row; los is a number."""
    study = make_study(model=model, outcomes=SEVERAL, training=TRAINING)

    def several(rows):
        death = rows.labels[:, 0]
        icu = np.where(np.arange(len(death)) % 2, 1 - death, np.nan)
        return replace(rows, labels=np.column_stack((death, icu, 3 + 4 * death)).astype(np.float32))

    named = {name: several(rows) for name, rows in sites.items()}
    result = train_references(named, study, make_statistics(*sites.values()), seed=0)
    assert [(row.outcome, row.model) for row in result.rows] == [(o, m) for o in SEVERAL for m in NAMES]
    for row in result.rows:
        assert row.metric == ("r2" if row.outcome == "los" else "auroc")
        if row.model in ("federated", "centralised"):
            assert row.low < row.value
            assert row.value > 0.0 if row.outcome == "los" else row.low > 0.5
    tests = [rows.labels[rows.is_test] for rows in named.values()]
    assert result.metrics["federated"]["icu.n"] == sum(int((~np.isnan(each[:, 1])).sum()) for each in tests)
    assert result.metrics["federated"]["death.n"] == sum(map(len, tests))


def test_a_recurrent_network_learns_from_its_series(make_rows, make_study, make_statistics, with_series):
    """The static inputs are made missing, so that the series alone can tell."""
    training = {"rounds": 6, "local": {"epochs": 2}}
    study = make_study(model={"kind": "lstm", "units": [8], "dense": [6], "dropout": []}, training=training)
    rows = {f"h{seed}": make_rows(seed, patients) for seed, patients in enumerate((120, 140, 220))}
    statistics = make_statistics(*rows.values())
    named = {
        name: with_series(replace(each, features=np.full_like(each.features, np.nan)), seed=seed)
        for seed, (name, each) in enumerate(rows.items())
    }
    result = train_references(named, study, statistics, seed=0)
    assert tuple(row.model for row in result.rows) == NAMES
    assert result.metrics["centralised"]["low"] > 0.9
    assert result.metrics["federated"]["low"] > 0.75


def test_where_the_study_stops_early_references_keep_their_best_pass(sites, make_study, make_statistics):
    """Validation labels are turned round: the more is learnt, the worse the figure, so the first pass is kept."""
    statistics = make_statistics(*sites.values())
    held = {
        name: replace(rows, is_validation=(rows.person % 10 >= 3) & (rows.person % 10 < 6))
        for name, rows in sites.items()
    }
    turned = {
        name: replace(rows, labels=np.where(rows.is_validation[:, None], 1 - rows.labels, rows.labels))
        for name, rows in held.items()
    }
    plain = {"local": {"epochs": 4}, "batch_size": 16}
    once = train_references(held, make_study(training=plain | {"rounds": 1}), statistics, seed=0)
    stopping = make_study(training=plain | {"rounds": 6, "early_stopping": {"patience": 2}})
    assert train_references(turned, stopping, statistics, seed=0).metrics == once.metrics
    assert train_references(held, stopping, statistics, seed=0).metrics != once.metrics
