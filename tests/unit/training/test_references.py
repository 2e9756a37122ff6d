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
    assert {metric.n for metric in references.metrics.values()} == {rows}
    assert {metric.n for metric in references.local.values()} == {rows}


def test_training_together_beats_the_mean_of_training_alone(references):
    value = {row.model: row.value for row in references.rows}
    assert value["federated"] > value["local_mean"]
    assert value["centralised"] > value["local_mean"]
    assert value["local_mean"] == pytest.approx(
        np.mean([metric.auroc for metric in references.local.values()])
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
