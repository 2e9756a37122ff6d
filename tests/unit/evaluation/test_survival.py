"""Harrell's C-index and the Brier score of survival against loops over pairs and rows."""

import numpy as np
import pytest

from fedhealth.evaluation import decode_evaluation, encode_evaluation
from fedhealth.evaluation.scores import logit_bins
from fedhealth.evaluation.survival import BINS
from fedhealth.study.targets import Target

INTERVALS = 6
TARGET = Target("survival", "hazard", outputs=INTERVALS)
NO_GROUPS = np.zeros((0, 3), dtype=np.int8)


def encode(scores, labels, person=None):
    rows = np.arange(len(labels)) if person is None else person
    return encode_evaluation(scores, labels[:, None], rows, NO_GROUPS, (TARGET,), ())


def decode(vector):
    return decode_evaluation(vector, (TARGET,), ()).metrics


def cohort(seed, rows, *, signal=0.8):
    """Hazards, and labels of people who die, are lost, or outlive the horizon."""
    generator = np.random.default_rng(seed)
    risk = generator.normal(0.0, 1.0, rows)
    hazard = 1 / (1 + np.exp(2.0 - signal * risk[:, None] - generator.normal(0, 0.2, (rows, INTERVALS))))
    time = np.full(rows, INTERVALS)
    event = np.zeros(rows, dtype=int)
    for interval in range(INTERVALS):
        here = time == INTERVALS
        dies = here & (generator.random(rows) < hazard[:, interval])
        lost = here & ~dies & (generator.random(rows) < 0.07)
        time[dies | lost], event[dies] = interval, 1
    return hazard.astype(np.float32), (2 * time + event).astype(np.float32)


def risk_of(scores):
    return 1.0 - np.cumprod(1.0 - scores.astype(float), axis=1)[:, -1]


def pairs_of(risk, labels):
    """By ordered pair: comparable (the first had its event before the second was last seen), and concordant."""
    time, event = labels.astype(int) // 2, labels.astype(int) % 2
    n = len(risk)
    comparable, concordant = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                comparable[i, j] = 1.0
                concordant[i, j] = 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return comparable, concordant


@pytest.mark.parametrize("seed", range(3))
def test_the_c_index_is_that_of_all_pairs(seed):
    scores, labels = cohort(seed, 220)
    metrics = decode(encode(scores, labels))
    binned = logit_bins(risk_of(scores), bins=BINS[0])
    comparable, concordant = pairs_of(binned, labels)
    assert metrics["c_index"] == pytest.approx(concordant.sum() / comparable.sum(), abs=1e-12)
    comparable, concordant = pairs_of(risk_of(scores), labels)
    assert (
        abs(metrics["c_index"] - concordant.sum() / comparable.sum()) <= metrics["c_index_resolution"] < 0.02
    )


def test_its_interval_is_that_of_the_jackknife():
    scores, labels = cohort(5, 300)
    metrics = decode(encode(scores, labels))
    comparable, concordant = pairs_of(logit_bins(risk_of(scores), bins=BINS[0]), labels)
    lost = [each.sum() - each.sum(axis=0) - each.sum(axis=1) for each in (concordant, comparable)]
    each = lost[0] / lost[1]
    sd = np.sqrt(299 / 300 * ((each - each.mean()) ** 2).sum())
    half = (metrics["high"] - metrics["low"]) / 2 - metrics["c_index_resolution"]
    assert half == pytest.approx(1.959964 * sd, rel=0.02)


def test_with_one_interval_it_is_the_area_under_the_roc_curve():
    from sklearn.metrics import roc_auc_score

    scores, labels = cohort(6, 400)
    dies = labels.astype(int) == 1
    target = Target("survival", "hazard", outputs=1)
    vector = encode_evaluation(
        scores[:, :1], np.where(dies, 1.0, 2.0)[:, None], np.arange(400), NO_GROUPS, (target,), ()
    )
    metrics = decode_evaluation(vector, (target,), ()).metrics
    area = roc_auc_score(dies, logit_bins(scores[:, 0].astype(float), bins=BINS[0]))
    assert metrics["c_index"] == pytest.approx(area, abs=1e-9)


def test_the_brier_score_is_that_of_a_loop_over_rows_and_intervals():
    scores, labels = cohort(8, 500)
    time, event = labels.astype(int) // 2, labels.astype(int) % 2
    survival = np.cumprod(1.0 - scores.astype(float), axis=1)
    stays = [1.0]  # Kaplan-Meier of not being lost, after each interval
    for j in range(INTERVALS):
        lost, there = (
            ((time == j) & (event == 0)).sum(),
            (time > j).sum() + ((time == j) & (event == 0)).sum(),
        )
        stays.append(stays[-1] * (1 - lost / there))
    totals = []
    for j in range(INTERVALS):
        total = 0.0
        for row in range(500):
            if time[row] <= j and event[row]:
                total += survival[row, j] ** 2 / stays[time[row]]
            elif time[row] > j:
                total += (1 - survival[row, j]) ** 2 / stays[j + 1]
        totals.append(total / 500)
    assert decode(encode(scores, labels))["integrated_brier"] == pytest.approx(np.mean(totals), abs=1e-8)


def test_sites_add_up_to_the_pooled_cohort():
    scores, labels = cohort(9, 700)
    sites = np.random.default_rng(1).integers(5, size=700)
    total = decode(sum(encode(scores[sites == site], labels[sites == site]) for site in range(5)))
    whole = decode(encode(scores, labels))
    assert total == pytest.approx(whole, abs=1e-8)
    assert whole["n"] == 700
    assert whole["n_events"] == (labels.astype(int) % 2).sum()


def test_a_perfect_order_still_has_an_interval():
    labels = np.repeat([1.0, 2.0 * INTERVALS], 30)
    scores = np.where(labels[:, None] == 1.0, 0.9, 0.01) * np.ones((60, INTERVALS))
    metrics = decode(encode(scores, labels))
    assert metrics["c_index"] == metrics["high"] == 1.0
    assert 0.9 < metrics["low"] < 1.0


def test_without_a_pair_to_compare_there_is_no_c_index():
    labels = np.repeat([0.0, 2.0 * INTERVALS - 1], 20)  # all lost in the first interval, or dead in the last
    metrics = decode(encode(np.full((40, INTERVALS), 0.2), labels))
    assert metrics["c_index"] is None
    assert metrics["n"] == 40


@pytest.mark.parametrize(("events", "shown"), [(0, False), (10, False), (11, True), (89, True), (90, False)])
def test_fewer_than_eleven_people_with_or_without_an_event_hide_everything(events, shown):
    scores, _ = cohort(10, 100)
    labels = np.where(np.arange(100) < events, 3.0, 2.0 * INTERVALS)
    assert {value is not None for value in decode(encode(scores, labels)).values()} == {shown}


@pytest.mark.parametrize("label", [-1.0, 2.0 * INTERVALS + 1])
def test_a_label_beyond_the_horizon_is_refused(label):
    with pytest.raises(ValueError, match="no interval"):
        encode(np.full((1, INTERVALS), 0.1), np.array([label]))
