"""The tables of a yes or no against scikit-learn, and what can be had from them against a count of the people."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix

from fedhealth.evaluation.bands import THRESHOLDS
from fedhealth.evaluation.scores import encode_scores, pooled_metrics, pooled_tables

FIGURES = ["sensitivity", "specificity", "ppv", "npv", "flagged"]


def cohort(seed, rows, *, rate=0.3, signal=1.0, spread=1.3, people=None):
    generator = np.random.default_rng(seed)
    labels = (generator.random(rows) < rate).astype(float)
    logits = generator.normal(-1.0, spread, rows) + signal * labels
    person = np.arange(rows) if people is None else generator.integers(people, size=rows)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels, person


@pytest.fixture(scope="module")
def large():
    scores, labels, person = cohort(1, 40_000, spread=2.5)
    vector = encode_scores(scores, labels, person)
    return scores.astype(float), labels, pooled_tables(vector), pooled_metrics(vector)


def test_thresholds_rise_and_hold_the_tenths():
    assert all(low < high for low, high in pairwise(THRESHOLDS))
    assert {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9} <= set(THRESHOLDS)


def test_the_threshold_table_is_that_of_the_pooled_rows(large):
    scores, labels, tables, _ = large
    assert [row["threshold"] for row in tables["thresholds"]] == list(THRESHOLDS)
    for row in tables["thresholds"]:
        flagged = scores >= row["threshold"]
        (tn, fp), (fn, tp) = confusion_matrix(labels, flagged)
        expected = (tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn), flagged.mean())
        assert [row[name] for name in FIGURES] == pytest.approx(expected, abs=1e-12)


def test_the_decision_curve_is_that_of_the_pooled_rows(large):
    scores, labels, tables, _ = large
    for row in tables["decision_curve"]:
        odds = row["threshold"] / (1 - row["threshold"])
        flagged = scores >= row["threshold"]
        assert row["model"] == pytest.approx((flagged * (labels - odds * (1 - labels))).mean(), abs=1e-12)
        assert row["all"] == pytest.approx((labels - odds * (1 - labels)).mean(), abs=1e-12)
        assert row["none"] == 0.0


def test_the_calibration_table_is_that_of_the_pooled_rows(large):
    scores, labels, tables, _ = large
    assert [row["from"] for row in tables["calibration"]] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    for row in tables["calibration"]:
        inside = (scores >= row["from"]) & (scores < row["to"])
        assert row["n"] == inside.sum()
        assert row["mean_score"] == pytest.approx(scores[inside].mean(), abs=1e-8)
        assert row["observed"] == pytest.approx(labels[inside].mean(), abs=1e-12)


def test_accuracy_is_that_at_a_half(large):
    scores, labels, _, metrics = large
    assert metrics.accuracy == pytest.approx(accuracy_score(labels, scores >= 0.5), abs=1e-12)


def test_a_score_that_equals_a_threshold_reaches_it():
    scores = np.repeat([0.2, 0.5], 50)
    labels = np.tile([0.0, 1.0], 50)
    tables = pooled_tables(encode_scores(scores, labels, np.arange(100)))
    at = {row["threshold"]: row["flagged"] for row in tables["thresholds"]}
    assert at[0.5] == 0.5
    assert at[0.2] is None  # nobody is below it


def test_a_half_that_few_people_reach_hides_accuracy_and_that_line():
    scores = np.concatenate([np.linspace(0.05, 0.45, 190), np.full(10, 0.6)])
    labels = (np.arange(200) % 2).astype(float)
    vector = encode_scores(scores, labels, np.arange(200))
    assert pooled_metrics(vector).accuracy is None
    assert pooled_metrics(vector).auroc is not None
    (line,) = [row for row in pooled_tables(vector)["thresholds"] if row["threshold"] == 0.5]
    assert [line[name] for name in FIGURES] == [None] * 5


def test_without_eleven_people_of_a_class_there_is_no_table():
    labels = (np.arange(200) < 10).astype(float)
    tables = pooled_tables(encode_scores(np.linspace(0.01, 0.99, 200), labels, np.arange(200)))
    assert set(tables.values()) == {()}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(60, 700), st.sampled_from([20, 60, 300, 5000]))
def test_what_lies_between_two_figures_is_never_of_fewer_than_eleven_people(seed, rows, people):
    scores, labels, person = cohort(seed, rows, people=people)
    vector = encode_scores(scores, labels, person)
    tables, metrics = pooled_tables(vector), pooled_metrics(vector)
    told = [row["threshold"] for row in tables["thresholds"] if row["flagged"] is not None]
    curve = [row["threshold"] for row in tables["decision_curve"] if row["model"] is not None]
    ends = [row["from"] for row in tables["calibration"]][1:]
    assert told == curve
    assert set(ends) <= set(told)
    assert (metrics.accuracy is not None) is (0.5 in told)
    for low, high in pairwise([-1.0, *told, 2.0]):
        inside = (scores.astype(float) >= low) & (scores.astype(float) < high)
        held = [len(set(person[inside & (labels == side)])) for side in (0, 1)]
        assert metrics.auroc is None or min(held) >= 11


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_calibration_error_follows_from_the_calibration_table(seed):
    scores, labels, person = cohort(seed, 400)
    vector = encode_scores(scores, labels, person)
    table = pooled_tables(vector)["calibration"]
    gaps = sum(row["n"] * abs(row["mean_score"] - row["observed"]) for row in table)
    assert pooled_metrics(vector).ece == pytest.approx(gaps / 400, abs=1e-9)
