"""References of models that grow by sums: the model of all sites is the pooled one, and a small site has none."""

import pytest

from fedhealth.embedded.references import train_references
from fedhealth.errors import DataError
from fedhealth.training.growth import grow, growth_rows

NONE = {"mode": "none", "legal_basis": "public"}


@pytest.fixture
def study(make_study):
    model = {"kind": "gbm", "depth": 2, "learning_rate": 0.5, "min_people": 11}
    return make_study(model=model, training={"rounds": 4}, privacy=NONE)


def test_trees_are_compared_with_those_of_single_sites(study, make_rows, make_statistics):
    sites = {f"h{seed}": make_rows(seed, 150) for seed in range(3)} | {"tiny": make_rows(9, 4)}
    found = train_references(sites, study, make_statistics(*sites.values()), seed=0)
    value = {row.model: row.value for row in found.rows}
    assert list(value) == ["local_mean", "federated", "centralised"]
    assert value["federated"] == value["centralised"] > value["local_mean"]
    assert set(found.local) >= {"h0", "h1", "h2"}


def test_who_grows_together_grows_the_pooled_model(study, make_rows, make_statistics):
    whole = make_rows(0, 200).training()
    statistics = make_statistics(whole)
    halves = [whole.where(whole.person % 2 == rest) for rest in (0, 1)]
    parts = [growth_rows(half, statistics, study) for half in halves]
    *_, pooled = grow([growth_rows(whole, statistics, study)], statistics, study)
    *_, together = grow(parts, statistics, study)
    assert {name: array.tobytes() for name, array in together.items()} == {
        name: array.tobytes() for name, array in pooled.items()
    }


def test_nobody_with_a_label_is_refused(study, make_rows, make_statistics):
    rows = make_rows(0, 30)
    statistics = make_statistics(rows)
    rows.labels[:] = float("nan")
    with pytest.raises(DataError, match="with a label"):
        train_references({"h0": rows}, study, statistics, seed=0)
