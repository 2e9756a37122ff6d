"""What counts of an update in the clear, and what is published of all of them."""

import numpy as np
import pytest
from simulator.network import make_study
from simulator.sums import make_plan

from fedhealth.aggregation.robust import RULES
from fedhealth.aggregation.update import MAX_WEIGHT
from fedhealth.errors import ProtocolError
from fedhealth.privacy.noise import NoiseSource
from fedhealth.rounds import plain
from fedhealth.rounds.layout import RoundShape, encode_weighted, scale_of
from fedhealth.rounds.plain import PlainUpdates, travels_in_the_clear

MODEL = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32)}
PLAN = make_plan(5, length=11)
LOCAL = {"mode": "local", "epsilon": 8.0}


def updates_of(declared=None, **sections):
    study = make_study(**{"aggregation": {"mode": "plain"}} | sections)
    shape = RoundShape(study=study, purposes=("evaluation", "update"), model=MODEL, statistics=None)
    length = 11 if declared is None else 10
    return PlainUpdates(shape=shape, plan=make_plan(5, length=length), declared=declared)


def delta_of(seed):
    generator = np.random.default_rng(seed)
    return {name: (0.1 * generator.normal(size=a.shape)).astype(np.float32) for name, a in MODEL.items()}


def posted(updates, *, examples=(10, 400, 30, 50, 20)):
    return {
        site: encode_weighted(
            delta_of(number),
            updates.shape,
            examples=count,
            declared=None if updates.declared is None else updates.declared[site],
            sites=5,
            rounding=NoiseSource(bytes(32)),
        )
        for number, (site, count) in enumerate(zip(PLAN.cohort, examples, strict=True))
    }


def test_an_update_is_read_back_as_it_was_posted():
    updates = updates_of()
    for site, vector in posted(updates).items():
        np.testing.assert_array_equal(updates.vector(site, updates.payload(vector)), vector)


def test_without_a_rule_the_result_is_the_mean_weighted_by_the_posted_sizes():
    updates, examples = updates_of(), (10, 400, 30, 50, 20)
    result = updates.result(posted(updates, examples=examples))
    expected = sum(count * delta_of(number)["b"] for number, count in enumerate(examples)) / sum(examples)
    np.testing.assert_allclose(result.tensors["b"], expected, atol=1e-5)


def test_under_a_rule_every_site_counts_once():
    updates = updates_of(aggregation={"mode": "plain", "robust": "median"})
    result = updates.result(posted(updates, examples=(1, MAX_WEIGHT, 1, 1, 1)))
    expected = np.median([delta_of(number)["b"] for number in range(5)], axis=0)
    np.testing.assert_allclose(result.tensors["b"], expected, atol=2e-4)


def test_declared_weights_are_taken_where_none_travels():
    declared = dict(zip(PLAN.cohort, (16.0, 64.0, 16.0, 32.0, 16.0), strict=True))
    updates = updates_of(declared, privacy=LOCAL)
    result = updates.result(posted(updates))
    expected = sum(w * delta_of(n)["b"] for n, w in enumerate(declared.values())) / sum(declared.values())
    np.testing.assert_allclose(result.tensors["b"], expected, atol=1e-5)
    assert result.metrics == {"total_weight": 144.0}


def beyond(updates, site):
    vector = posted(updates)[site]
    vector[0] = int(scale_of(updates.shape.study, sites=5) * vector[-1]) + 1
    return vector


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda u, v: u.payload(v)[:-1], "wrong size"),
        (lambda u, v: u.payload(np.append(v, 0)), "wrong size"),
        (lambda u, v: u.payload(np.append(v[:-1], 0)), "weight out of bounds"),
        (lambda u, v: u.payload(np.append(v[:-1], -5)), "weight out of bounds"),
        (lambda u, v: u.payload(np.append(v[:-1], MAX_WEIGHT + 1)), "weight out of bounds"),
        (lambda u, v: u.payload(np.append(-v[-1] * 2**20, v[1:])), "above the public bound"),
        (lambda u, v: u.payload(beyond(u, "site-02")), "above the public bound"),
    ],
)
def test_an_update_that_does_not_keep_to_the_bounds_is_refused_with_its_site(spoil, line):
    updates = updates_of()
    payload = spoil(updates, posted(updates)["site-02"])
    with pytest.raises(ProtocolError, match=f"site-02 .*{line}"):
        updates.vector("site-02", payload)


def test_a_site_that_declared_no_weight_has_no_update():
    updates = updates_of({}, privacy=LOCAL)
    with pytest.raises(ProtocolError, match="weight out of bounds"):
        updates.vector("site-01", updates.payload(np.zeros(10, dtype=np.int64)))


def test_under_uniform_weighting_every_weight_but_one_is_refused():
    training = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "weighting": "uniform"}
    updates = updates_of(training=training)
    with pytest.raises(ProtocolError, match="weight out of bounds"):
        updates.vector("site-01", updates.payload(np.append(np.zeros(10, dtype=np.int64), 2)))


def test_a_value_beyond_the_ring_is_not_posted():
    updates = updates_of()
    with pytest.raises(ValueError, match="leaves the ring"):
        updates.payload(np.full(11, 2**31))


def test_only_updates_travel_in_the_clear_and_only_where_the_study_says_so():
    plain, masked = make_study(aggregation={"mode": "plain"}), make_study()
    assert travels_in_the_clear(plain, "update")
    assert not any(travels_in_the_clear(plain, name) for name in ("moments", "evaluation", "growth"))
    assert not travels_in_the_clear(masked, "update")


def test_rules_give_the_same_bytes_where_sums_are_rounded_otherwise(monkeypatch):
    updates = updates_of(aggregation={"mode": "plain", "robust": "geometric_median"})
    rule = RULES["geometric_median"]
    expected = updates.result(posted(updates)).to_bytes()
    monkeypatch.setattr(plain, "RULES", {"geometric_median": lambda rows, f: rule(rows, f) * (1 + 2**-52)})
    assert updates.result(posted(updates)).to_bytes() == expected
