"""Boosted trees against an exhaustive search in fractions, against scikit-learn, and at their edges."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from pydantic import ValidationError
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
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, r2_score, roc_auc_score
from threadpoolctl import threadpool_limits

from fedhealth.errors import DataError, PolicyError, ProtocolError
from fedhealth.models import weights as w
from fedhealth.models.stepwise import MAX_ROWS, MAX_SITES, boosting
from fedhealth.models.stepwise.rows import PERSON
from fedhealth.models.stepwise.splits import SCALE
from fedhealth.models.stepwise.trees import BINS, MISSING, bin_features, tree_of
from fedhealth.study.columns import FeatureColumn

L2, PEOPLE = 1.5, 11


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads of scikit-learn wait for each other where cores are busy."""
    with threadpool_limits(1):
        yield


def bin_by_hand(value, column):
    if math.isnan(value):
        return MISSING
    inside = min(max(value, column.low), column.high)
    return min(int((inside - column.low) / (column.high - column.low) * BINS), BINS - 1)


def candidates(columns):
    """Every split there is, the preferred one of two equals first."""
    return itertools.product(range(columns), range(BINS), (True, False))


def goes_left(row, split):
    feature, last, missing_left = split
    return missing_left if row[feature] == MISSING else row[feature] <= last


def best_by_hand(table, people, slopes, members):
    """The best split of some rows: every one tried, in fractions."""

    def strength(rows):
        gradient, hessian = (sum((slopes[row][k] for row in rows), Fraction(0)) for k in (0, 1))
        return gradient**2 / (hessian + Fraction(L2))

    best, best_gain = None, Fraction(0)
    for split in candidates(len(table[0])):
        left = [row for row in members if goes_left(table[row], split)]
        right = [row for row in members if not goes_left(table[row], split)]
        if min(len({people[row] for row in side}) for side in (left, right)) < PEOPLE:
            continue
        gain = strength(left) + strength(right) - strength(members)
        if gain > best_gain + Fraction(1, 10**8):
            best, best_gain = split, gain
    return best


def a_small_table(seed):
    generator = np.random.default_rng(seed)
    columns = (
        FeatureColumn("coarse", 0, 8, "number"),
        FeatureColumn("flag", 0, 1, "flag"),
        FeatureColumn("fine", -3, 3, "number"),
    )
    inputs = np.column_stack(
        [generator.integers(0, 9, 90), generator.integers(0, 2, 90), generator.normal(size=90)]
    ).astype(np.float32)
    inputs[generator.random(90) < 0.2, 2] = np.nan
    chance = 0.2 + 0.5 * (inputs[:, 0] > 4) * (inputs[:, 1] > 0)
    return columns, rows_of(inputs, generator.random(90) < chance)


@pytest.mark.parametrize("seed", range(4))
def test_the_first_tree_is_that_of_an_exhaustive_search(seed):
    columns, rows = a_small_table(seed)
    study = study_of("gbm", YES_OR_NO, rounds=1, depth=2, l2=L2, min_people=PEOPLE, learning_rate=0.3)
    model = train([part(rows, slice(0, 40)), part(rows, slice(40, 90))], columns=columns, study=study)[-1]
    table = [[bin_by_hand(float(v), c) for v, c in zip(row, columns, strict=True)] for row in rows.inputs]
    positive = Fraction(int(rows.labels.sum()), len(rows.labels))
    slopes = [(positive - int(label), positive * (1 - positive)) for label in rows.labels]
    assert float(model["base"][0]) == pytest.approx(math.log(positive / (1 - positive)), rel=1e-6)

    tree, levels = tree_of(model, 0), {0: list(range(len(table)))}
    leaves = []
    for node in range(3):
        split = best_by_hand(table, rows.person, slopes, levels[node])
        found = (int(tree.feature[node]), int(tree.bin[node]), bool(tree.missing_left[node]))
        assert found == (split or (-1, -1, False)), node
        split = split or (0, BINS, True)
        sides = [
            [row for row in levels[node] if goes_left(table[row], split) is side] for side in (True, False)
        ]
        levels |= {2 * node + 1: sides[0], 2 * node + 2: sides[1]}
        leaves += sides if node else []
    for value, leaf in zip(tree.value, leaves, strict=True):
        gradient, hessian = (sum((slopes[row][k] for row in leaf), Fraction(0)) for k in (0, 1))
        expected = float(-Fraction(0.3) * gradient / (hessian + Fraction(L2)))
        assert float(value) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def a_nonlinear_task(*, rows=4000, seed=0):
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(rows, 8))
    logit = (
        2 * np.sin(2 * inputs[:, 0]) + 2 * inputs[:, 1] * inputs[:, 2] + 2 * (np.abs(inputs[:, 3]) > 1) - 2.5
    )
    inputs[generator.random(inputs.shape) < 0.1] = np.nan
    return rows_of(inputs, generator.random(rows) < 1 / (1 + np.exp(-logit))), logit


def test_it_ranks_as_scikit_learn_does_and_well_above_a_logistic_regression():
    rows, _ = a_nonlinear_task()
    training, test = part(rows, slice(0, 2000)), part(rows, slice(2000, None))
    study = study_of("gbm", YES_OR_NO, rounds=25, depth=4)
    columns = columns_of(8)
    model = train([part(training, slice(k, None, 3)) for k in range(3)], columns=columns, study=study)[-1]
    ours = boosting.score(model, test.inputs, columns=columns, study=study)[:, 0]
    theirs = HistGradientBoostingClassifier(
        max_iter=25, max_depth=4, max_leaf_nodes=None, l2_regularization=1.0, early_stopping=False
    ).fit(training.inputs, training.labels)
    linear = LogisticRegression().fit(np.nan_to_num(training.inputs), training.labels)
    reference = theirs.predict_proba(test.inputs)[:, 1]
    auroc = roc_auc_score(test.labels, ours)
    assert auroc == pytest.approx(roc_auc_score(test.labels, reference), abs=0.02)
    assert log_loss(test.labels, ours) == pytest.approx(log_loss(test.labels, reference), abs=0.02)
    plain = linear.predict_proba(np.nan_to_num(test.inputs))[:, 1]
    assert auroc > roc_auc_score(test.labels, plain) + 0.1


SAME = {
    "max_iter": 15,
    "max_depth": 4,
    "max_leaf_nodes": None,
    "l2_regularization": 1.0,
    "early_stopping": False,
}


def binned_for_scikit_learn(inputs, columns):
    bins = bin_features(inputs, columns)
    return np.where(bins == MISSING, np.nan, bins.astype(np.float64))


def test_on_the_same_bins_it_is_the_model_of_scikit_learn():
    rows, _ = a_nonlinear_task(rows=3000)
    study, columns = study_of("gbm", YES_OR_NO, rounds=15, depth=4), columns_of(8)
    model = train([part(rows, slice(k, None, 3)) for k in range(3)], columns=columns, study=study)[-1]
    scores = boosting.score(model, rows.inputs, columns=columns, study=study)[:, 0]
    inputs = binned_for_scikit_learn(rows.inputs, columns)
    theirs = HistGradientBoostingClassifier(**SAME).fit(inputs, rows.labels).predict_proba(inputs)[:, 1]
    np.testing.assert_allclose(scores, theirs, atol=1e-6)


def test_a_number_is_learnt_as_scikit_learn_learns_it():
    rows, logit = a_nonlinear_task(rows=3000)
    days = np.clip(15 + 1.5 * logit + np.random.default_rng(1).normal(size=len(logit)), 0.5, 29.5)
    rows = rows_of(rows.inputs, days)
    study, columns = study_of("gbm", DAYS, rounds=15, depth=4), columns_of(8)
    model = train([part(rows, slice(k, None, 3)) for k in range(3)], columns=columns, study=study)[-1]
    scores = boosting.score(model, rows.inputs, columns=columns, study=study)[:, 0]
    inputs = binned_for_scikit_learn(rows.inputs, columns)
    theirs = HistGradientBoostingRegressor(**SAME).fit(inputs, rows.labels).predict(inputs)
    np.testing.assert_allclose(scores, theirs, atol=1e-4)
    assert r2_score(days, scores) > 0.3


def test_a_number_stays_within_its_bounds():
    generator = np.random.default_rng(2)
    inputs = generator.normal(size=(400, 1))
    study, columns = study_of("gbm", DAYS, rounds=8, depth=2, learning_rate=1.0, l2=0.01), columns_of(1)
    rows = rows_of(inputs, np.where(inputs[:, 0] > 0, 400.0, 0.0))
    models = train([rows], columns=columns, study=study)
    assert float(models[1]["base"][0]) == pytest.approx((inputs > 0).mean(), rel=1e-6)
    scores = boosting.score(models[-1], rows.inputs, columns=columns, study=study)[:, 0]
    assert 0.0 <= scores.min() < 0.01
    assert 29.99 < scores.max() <= 30.0


def test_every_round_lowers_the_loss_of_the_training_rows():
    rows, _ = a_nonlinear_task(rows=1500)
    study, columns = study_of("gbm", YES_OR_NO, rounds=12, depth=3, learning_rate=0.3), columns_of(8)
    losses = [
        log_loss(rows.labels, boosting.score(model, rows.inputs, columns=columns, study=study)[:, 0])
        for model in train([rows], columns=columns, study=study)
    ]
    assert all(after < before for before, after in itertools.pairwise(losses))


def test_a_split_has_so_many_people_on_each_side_not_rows():
    generator = np.random.default_rng(3)
    inputs = np.r_[np.ones(60), np.zeros(200)][:, None]
    labels = np.r_[generator.random(60) < 0.9, generator.random(200) < 0.2]
    study, columns = (
        study_of("gbm", YES_OR_NO, rounds=1, depth=1, min_people=15),
        columns_of(1, low=0, high=1),
    )

    def feature(people):
        person = np.r_[np.arange(60) % people, 1000 + np.arange(200)]
        model = train([rows_of(inputs, labels, person)], columns=columns, study=study)[-1]
        return int(model["trees.feature"][0, 0])

    assert [feature(people) for people in (14, 15)] == [-1, 0]


def test_nothing_is_told_of_fewer_people_than_the_smallest_cell():
    study = study_of("gbm", YES_OR_NO, rounds=1, depth=1, min_people=11)
    columns = columns_of(1)
    for labels, person in (([1] * 10 + [0] * 50, None), ([0] * 60, None), ([0, 1] * 30, np.arange(60) % 10)):
        with pytest.raises(PolicyError):
            train([rows_of(np.zeros((60, 1)), labels, person)], columns=columns, study=study)


def test_missing_values_go_to_the_better_side():
    generator = np.random.default_rng(5)
    values = generator.uniform(-4, 4, 600)
    inputs = np.where(np.arange(600) < 200, np.nan, values)[:, None]
    study, columns = study_of("gbm", YES_OR_NO, rounds=1, depth=1), columns_of(1)
    for label_if_missing in (0, 1):
        labels = np.where(np.isnan(inputs[:, 0]), label_if_missing, values > 0)
        model = train([rows_of(inputs, labels)], columns=columns, study=study)[-1]
        assert bool(model["trees.missing_left"][0, 0]) is (label_if_missing == 0)
        assert int(model["trees.bin"][0, 0]) == BINS // 2 - 1
        missing, low, high = boosting.score(
            model, np.array([[np.nan], [-1.0], [1.0]], dtype=np.float32), columns=columns, study=study
        )[:, 0]
        assert missing == (high if label_if_missing else low)


def test_of_equal_splits_the_lowest_column_and_bin_win():
    generator = np.random.default_rng(6)
    values = generator.integers(0, 2, 200) * 4.0
    study, columns = study_of("gbm", YES_OR_NO, rounds=1, depth=1), columns_of(3)
    inputs = np.column_stack([generator.normal(size=200), values, values])
    model = train([rows_of(inputs, values > 0)], columns=columns, study=study)[-1]
    assert int(model["trees.feature"][0, 0]) == 1
    assert int(model["trees.bin"][0, 0]) == BINS // 2  # 0 lies in the bin above the middle
    assert bool(model["trees.missing_left"][0, 0])


def test_where_nothing_can_be_learnt_there_is_no_split():
    study, columns = study_of("gbm", YES_OR_NO, rounds=2, depth=3), columns_of(2)
    model = train([rows_of(np.zeros((100, 2)), [0, 1] * 50)], columns=columns, study=study)[-1]
    assert (model["trees.feature"] == -1).all()
    assert boosting.score(model, np.ones((1, 2), dtype=np.float32), columns=columns, study=study) == 0.5


def test_rows_of_unknown_label_and_sites_without_rows_count_nowhere():
    rows, _ = a_nonlinear_task(rows=300)
    study, columns = study_of("gbm", YES_OR_NO, rounds=2, depth=2), columns_of(8)
    unknown = rows_of(rows.inputs[:50], np.full(50, np.nan), np.arange(50))
    nobody = part(rows, slice(0, 0))
    expected = train([rows], columns=columns, study=study)[-1]
    mixed = rows_of(
        np.r_[unknown.inputs, rows.inputs],
        np.r_[unknown.labels, rows.labels],
        np.r_[rows.person[:50], rows.person],
    )
    assert w.digest(train([mixed, nobody], columns=columns, study=study)[-1]) == w.digest(expected)
    model = boosting.initial_model(study, columns)
    assert not boosting.encode_step(model, (), nobody, columns=columns, study=study).any()


def test_a_site_that_vanishes_within_a_round_leaves_a_sound_tree():
    rows, _ = a_nonlinear_task(rows=1200)
    study, columns = study_of("gbm", YES_OR_NO, rounds=1, depth=3), columns_of(8)
    sites = [part(rows, slice(k, None, 4)) for k in range(4)]
    model, opened = boosting.initial_model(study, columns), []
    for step in range(3):
        present = sites if step == 0 else sites[:-1]
        opened.append(
            sum(boosting.encode_step(model, opened, each, columns=columns, study=study) for each in present)
        )
    after = boosting.next_model(model, opened, columns=columns, study=study, number=1)
    scores = boosting.score(after, rows.inputs, columns=columns, study=study)[:, 0]
    assert roc_auc_score(rows.labels, scores) > 0.65


def test_sums_that_no_rows_can_have_are_refused():
    rows, _ = a_nonlinear_task(rows=300)
    study, columns = study_of("gbm", YES_OR_NO, rounds=1, depth=1), columns_of(8)
    model = boosting.initial_model(study, columns)
    (opened,) = opened_round(model, [rows], columns=columns, study=study)
    wrong = opened.copy()
    wrong[3] += 1
    negative = opened.reshape(3, 8, BINS + 1).copy()
    negative[1, :, 0] -= 10**12
    negative[1, :, 1] += 10**12
    for vector in (wrong, negative.ravel()):
        with pytest.raises(ProtocolError):
            boosting.next_model(model, [vector], columns=columns, study=study, number=1)
    for vectors, number in (([opened[:-1]], 1), ([], 1), ([opened], 0), ([opened], 2)):
        with pytest.raises(ValueError, match="sum"):
            boosting.next_model(model, vectors, columns=columns, study=study, number=number)


def test_more_rows_than_a_sum_has_room_for_are_refused():
    study, columns = study_of("gbm", YES_OR_NO, rounds=1, depth=1), columns_of(1)
    rows = rows_of(np.zeros((MAX_ROWS + 1, 1)), np.zeros(MAX_ROWS + 1))
    with pytest.raises(DataError):
        boosting.encode_step(boosting.initial_model(study, columns), (), rows, columns=columns, study=study)


def test_neither_a_site_nor_the_ring_overflows():
    largest_term = max(SCALE, PERSON)
    assert MAX_ROWS * largest_term < 2**53
    assert MAX_SITES * MAX_ROWS * largest_term < 2**63
    rows, columns = rows_of(np.zeros((20, 1)), [1.0] * 20), columns_of(1)
    for outcome in (YES_OR_NO, DAYS):
        study = study_of("gbm", outcome, rounds=1, depth=1)
        steep = {
            **boosting.initial_model(study, columns),
            "trees.value": np.full((1, 2), 1e6, dtype=np.float32),
        }
        vector = boosting.encode_step(steep, (), rows, columns=columns, study=study)
        assert np.abs(vector).max() <= 20 * largest_term
    assert MAX_ROWS >= 10**6
    assert MAX_SITES >= 40


def test_a_score_depends_on_its_row_alone_and_survives_the_bytes():
    rows, _ = a_nonlinear_task(rows=800)
    study, columns = study_of("gbm", YES_OR_NO, rounds=5, depth=3), columns_of(8)
    models = train([rows], columns=columns, study=study)
    assert {name: array.shape for name, array in models[0].items()} == {
        name: array.shape for name, array in models[-1].items()
    }
    model = w.from_bytes(w.to_bytes(models[-1]))
    together = boosting.score(model, rows.inputs, columns=columns, study=study)
    alone = [boosting.score(model, row[None], columns=columns, study=study)[0] for row in rows.inputs[:20]]
    np.testing.assert_array_equal(together[:20], alone)
    assert together.shape == (800, 1)
    assert together.dtype == np.float32
    assert len(np.unique(together)) > 20


def test_bytes_per_round_are_those_of_the_page():
    study, columns = study_of("gbm", YES_OR_NO, rounds=1, depth=4), columns_of(128)
    sizes = [8 * boosting.step_length(study, columns, step=step) for step in range(boosting.steps_of(study))]
    assert sizes == [199_680, 399_360, 798_720, 1_597_440]


@pytest.mark.parametrize(
    ("kind", "outcome", "model", "problem"),
    [
        ("gbm", SURVIVAL, {}, "yes or no or a number"),
        ("gbm", {"kind": "disposition"}, {}, "yes or no or a number"),
        ("cox", YES_OR_NO, {}, "survival"),
        ("gbm", YES_OR_NO, {"ridge": 2.0}, "belongs to kind cox"),
        ("mlp", YES_OR_NO, {"depth": 3}, "belongs to kind gbm"),
        ("gbm", YES_OR_NO, {"depth": 7}, "less than or equal to 6"),
        ("gbm", YES_OR_NO, {"min_people": 10}, "greater than or equal to 11"),
        ("gbm", YES_OR_NO, {"l2": 0.0}, "greater than 0"),
    ],
)
def test_a_study_that_does_not_fit_the_kind_is_refused(kind, outcome, model, problem):
    with pytest.raises(ValidationError, match=problem):
        study_of(kind, outcome, rounds=5, **model)
