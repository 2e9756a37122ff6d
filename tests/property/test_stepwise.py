"""However people are spread over sites, a stepwise model is that of the pooled rows, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.stepwise import (
    DAYS,
    SURVIVAL,
    YES_OR_NO,
    columns_of,
    opened_round,
    part,
    rows_of,
    study_of,
    train,
)

from fedhealth.models import weights as w
from fedhealth.models.stepwise import STEPWISE
from fedhealth.models.stepwise.rows import PERSON

KINDS = [
    ("gbm", YES_OR_NO, {"depth": 3, "min_people": 11}),
    ("gbm", DAYS, {"depth": 2, "min_people": 11}),
    ("cox", SURVIVAL, {}),
]


def a_table(outcome, *, seed, people):
    """Rows of people with one to four rows each; some values and labels missing."""
    generator = np.random.default_rng(seed)
    person = np.repeat(generator.permutation(people), generator.integers(1, 5, people))
    inputs = generator.normal(size=(len(person), 3)) * [1.0, 5.0, 0.1]
    signal = inputs[:, 0] + 0.5 * generator.normal(size=len(person))
    labels = {
        "death": signal > 0.3,
        "length_of_stay": np.exp(1 + signal),
        "survival": np.clip(10 - 6 * signal, 0, 24).astype(int),
    }[outcome["kind"]].astype(np.float64)
    labels[generator.random(len(person)) < 0.05] = np.nan
    if outcome is not SURVIVAL:  # what Cox regression is given is prepared
        inputs[generator.random(inputs.shape) < 0.1] = np.nan
    return rows_of(inputs, labels, person)


@pytest.mark.parametrize(("kind", "outcome", "model"), KINDS)
@given(seed=st.integers(0, 10**6), people=st.integers(60, 150), sites=st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_any_split_of_people_into_sites_gives_the_pooled_model(kind, outcome, model, seed, people, sites):
    rows = a_table(outcome, seed=seed, people=people)
    study, columns = study_of(kind, outcome, rounds=4, **model), columns_of(3)
    place = np.random.default_rng(seed + 1).integers(0, sites, people)[rows.person]
    split = [
        part(rows, np.random.default_rng(k).permutation(np.flatnonzero(place == k))) for k in range(sites)
    ]
    for pooled, federated in zip(
        train([rows], columns=columns, study=study), train(split, columns=columns, study=study), strict=True
    ):
        assert w.digest(federated) == w.digest(pooled)


@pytest.mark.parametrize(("kind", "outcome", "model"), KINDS)
@given(seed=st.integers(0, 10**6), cut=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_the_vectors_of_two_sites_add_up_to_that_of_both(kind, outcome, model, seed, cut):
    rows = a_table(outcome, seed=seed, people=100)
    study, columns = study_of(kind, outcome, rounds=3, **model), columns_of(3)
    current = train([rows], columns=columns, study=study)[2]
    is_first = rows.person < cut * 100
    together = opened_round(current, [rows], columns=columns, study=study)
    for step, expected in enumerate(together):
        parts = [
            STEPWISE[kind].encode_step(
                current, together[:step], part(rows, side), columns=columns, study=study
            )
            for side in (is_first, ~is_first)
        ]
        np.testing.assert_array_equal(parts[0] + parts[1], expected)


@given(seed=st.integers(0, 10**6), people=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_parts_of_people_never_sum_to_more_than_the_people(seed, people):
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), generator.integers(1, 40, people))
    rows = rows_of(np.zeros((len(person), 1)), np.zeros(len(person)), person)
    parts = rows.person_parts()
    chosen = generator.random(len(person)) < generator.random()
    assert parts[chosen].sum() <= PERSON * len(np.unique(person[chosen]))
    few = np.bincount(person)[person] <= 16
    assert parts[few].sum() == PERSON * len(np.unique(person[few]))
