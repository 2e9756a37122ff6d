"""The one vector of a study: several outcomes, labels that are not known, subgroups, sites."""

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, mean_absolute_error, roc_auc_score

from fedhealth.evaluation import (
    decode_evaluation,
    encode_evaluation,
    encode_scores,
    evaluation_length,
    headline_metric,
    pooled_metrics,
    prefix_of,
    scores_length,
)
from fedhealth.study.language import Evaluation as EvaluationSection
from fedhealth.study.subgroups import SUBGROUPS
from fedhealth.study.targets import Target

DEATH = Target("death", "binary")
STAY = Target("stay", "number", low=0.0, high=30.0)
WHERE = Target("where", "classes", outputs=3, classes=("home", "facility", "died"))
LATER = Target("later", "hazard", outputs=5)
ALL = (DEATH, STAY, WHERE, LATER)
EVERY = tuple(SUBGROUPS)


def cohort(seed, rows, *, people=10**6, unknown=0.2):
    """Scores, labels, people and groups of `ALL` targets."""
    generator = np.random.default_rng(seed)
    truth = np.column_stack(
        [
            generator.random(rows) < 0.4,
            generator.gamma(2.0, 3.0, rows),
            generator.integers(3, size=rows),
            generator.integers(11, size=rows),
        ]
    ).astype(np.float32)
    labels = np.where(generator.random(truth.shape) < unknown, np.nan, truth).astype(np.float32)
    death = 1 / (1 + np.exp(1.0 - truth[:, 0] - generator.normal(0, 1, rows)))
    stay = 0.5 * truth[:, 1] + generator.normal(3, 2, rows)
    where = generator.dirichlet([1, 1, 1], rows) + 0.4 * (truth[:, 2:3] == np.arange(3))
    where = where / where.sum(axis=1, keepdims=True)
    later = 1 / (1 + np.exp(0.3 * truth[:, 3:4] + generator.normal(0, 1, (rows, 5))))
    scores = np.column_stack([death, stay, where, later]).astype(np.float32)
    person = generator.integers(people, size=rows)
    groups = np.column_stack([generator.integers(-1, len(bands), size=rows) for bands in SUBGROUPS.values()])
    return scores, labels, person, groups.astype(np.int8)


def encode(rows, targets=ALL, subgroupings=()):
    return encode_evaluation(*rows, targets, subgroupings)


def part(rows, which):
    return tuple(each[which] for each in rows)


def test_one_target_has_the_names_and_figures_that_single_studies_always_had():
    scores, labels, person, groups = cohort(1, 900, unknown=0.0)
    rows = scores[:, :1], labels[:, :1], person, groups
    vector = encode(rows, (DEATH,))
    assert len(vector) == evaluation_length((DEATH,), ()) == scores_length()
    np.testing.assert_array_equal(vector, encode_scores(scores[:, 0], labels[:, 0], person))
    found = decode_evaluation(vector, (DEATH,), ())
    assert found.metrics == pooled_metrics(vector).figures()
    assert {"auroc", "low", "high", "auroc_resolution", "auprc", "brier", "ece", "n", "n_positive"} <= set(
        found.metrics
    )
    assert set(found.tables) == {"thresholds", "decision_curve", "calibration"}


def test_several_targets_stand_under_their_names():
    found = decode_evaluation(encode(cohort(2, 900)), ALL, ())
    assert {"death.auroc", "stay.r2", "where.home.auroc", "where.accuracy", "later.c_index"} <= set(
        found.metrics
    )
    assert set(found.tables) == {
        "death.thresholds",
        "death.decision_curve",
        "death.calibration",
        "where.confusion",
    }
    for target in ALL:
        name = prefix_of(target, ALL) + headline_metric(target)
        low, high = (found.metrics[prefix_of(target, ALL) + end] for end in ("low", "high"))
        assert low < found.metrics[name] < high
    assert prefix_of(STAY, (STAY,)) == ""


def test_a_row_counts_for_the_targets_whose_label_it_knows():
    scores, labels, person, groups = cohort(3, 1200)
    metrics = decode_evaluation(encode((scores, labels, person, groups)), ALL, ()).metrics
    known = ~np.isnan(labels)
    for column, target in enumerate(ALL):
        assert metrics[f"{target.name}.n"] == known[:, column].sum()
    d, s, w = known[:, 0], known[:, 1], known[:, 2]
    area = roc_auc_score(labels[d, 0], scores[d, 0])
    assert abs(metrics["death.auroc"] - area) <= metrics["death.auroc_resolution"]
    told = np.clip(scores[s, 1], 0, 30).astype(float), np.clip(labels[s, 1], 0, 30).astype(float)
    assert metrics["stay.mae"] == pytest.approx(mean_absolute_error(*told), abs=1e-8)
    assert metrics["where.accuracy"] == accuracy_score(labels[w, 2], scores[w, 2:5].argmax(axis=1))


def test_a_target_that_nobody_knows_is_hidden_and_leaves_the_others_alone():
    scores, labels, person, groups = cohort(4, 900)
    labels[:, 0] = np.nan
    found = decode_evaluation(encode((scores, labels, person, groups), ALL, EVERY), ALL, EVERY)
    assert {value for name, value in found.metrics.items() if name.startswith("death.")} == {None}
    assert found.tables["death.thresholds"] == ()
    assert found.metrics["stay.r2"] is not None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 400))
def test_however_people_are_spread_over_sites_the_sum_says_what_the_pooled_rows_say(seed, sites, rows):
    cohort_rows = cohort(seed, rows, people=200)
    site = np.random.default_rng(seed).integers(sites, size=200)[cohort_rows[2]]
    vectors = [encode(part(cohort_rows, site == each), ALL, EVERY) for each in range(sites)]
    total, whole = sum(vectors), encode(cohort_rows, ALL, EVERY)
    assert total.dtype == whole.dtype == np.int64
    assert np.abs(total - whole).max() <= sites  # counts are equal, fixed-point sums to half a step a site
    summed, pooled = (decode_evaluation(each, ALL, EVERY) for each in (total, whole))
    assert summed.metrics.keys() == pooled.metrics.keys()
    for name, value in pooled.metrics.items():
        told = summed.metrics[name]
        assert (told is None) is (value is None)
        # an interval is wide where its people are few, and then a difference of large sums
        within = 1e-5 if name.endswith((".low", ".high")) else 1e-6
        assert value is None or (
            math.isfinite(value) and told == pytest.approx(value, rel=within, abs=within)
        )
    assert summed.tables.keys() == pooled.tables.keys()


@pytest.mark.parametrize("column", range(len(EVERY)))
def test_a_subgroup_is_judged_by_its_own_rows(column):
    scores, labels, person, groups = cohort(6, 6000, unknown=0.0)
    name = EVERY[column]
    metrics = decode_evaluation(encode((scores, labels, person, groups), ALL, (name,)), ALL, (name,)).metrics
    for number, band in enumerate(SUBGROUPS[name]):
        inside = groups[:, column] == number
        prefix = f"{name}={band}"
        area = roc_auc_score(labels[inside, 0], scores[inside, 0])
        told = metrics[f"death.{prefix}.auroc"]
        assert abs(told - area) <= metrics[f"death.{prefix}.auroc_resolution"]
        assert metrics[f"death.{prefix}.low"] < told < metrics[f"death.{prefix}.high"]
        assert metrics[f"death.{prefix}.n"] == inside.sum()
        assert metrics[f"death.{prefix}.n_positive"] == labels[inside, 0].sum()
        off = labels[inside, 0].mean(dtype=float) - scores[inside, 0].mean(dtype=float)
        assert metrics[f"death.{prefix}.calibration_in_the_large"] == pytest.approx(off, abs=1e-8)
        error = np.abs(np.clip(scores[inside, 1], 0, 30) - np.clip(labels[inside, 1], 0, 30)).mean(
            dtype=float
        )
        assert metrics[f"stay.{prefix}.mae"] == pytest.approx(error, abs=1e-6)
        right = accuracy_score(labels[inside, 2], scores[inside, 2:5].argmax(axis=1))
        assert metrics[f"where.{prefix}.accuracy"] == right
        assert metrics[f"later.{prefix}.n_events"] == (labels[inside, 3] % 2).sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(30, 500), st.sampled_from([15, 60, 10**6]))
def test_neither_a_told_subgroup_nor_those_left_over_are_fewer_than_eleven_people(seed, rows, people):
    scores, labels, person, groups = cohort(seed, rows, people=people, unknown=0.1)
    groups[np.random.default_rng(seed).random(groups.shape) < 0.7] = 0  # one large band, many small ones
    vector = encode((scores, labels, person, groups), ALL, EVERY)
    metrics = decode_evaluation(vector, ALL, EVERY).metrics
    sides = (labels[:, 0], np.zeros(rows), labels[:, 2] == scores[:, 2:5].argmax(axis=1), labels[:, 3] % 2)
    for index, (target, side) in enumerate(zip(ALL, sides, strict=True)):
        known = ~np.isnan(labels[:, index])
        for column, (name, bands) in enumerate(SUBGROUPS.items()):
            left = known.copy()
            for number, band in enumerate(bands):
                if metrics[f"{target.name}.{name}={band}.n"] is None:
                    assert {metrics[each] for each in metrics if f"{target.name}.{name}={band}." in each} == {
                        None
                    }
                    continue
                inside = known & (groups[:, column] == number)
                left &= ~inside
                assert min(len(set(person[inside & (side == each)])) for each in set(side[known])) >= 11
            held = [len(set(person[left & (side == each)])) for each in set(side[known])]
            is_told = bool((left != known).any())
            assert not is_told or not left.any() or min(held) >= 11


def test_a_small_subgroup_takes_the_smallest_other_with_it():
    scores, labels, person, groups = cohort(8, 800, unknown=0.0)
    groups[:, 0] = np.where(np.arange(800) < 8, 0, 1)  # 8 women, 792 men
    metrics = decode_evaluation(
        encode((scores, labels, person, groups), ALL, ("sex",)), ALL, ("sex",)
    ).metrics
    assert metrics["death.sex=female.n"] is None
    assert metrics["death.sex=male.n"] is None
    assert metrics["death.n"] == 800


def test_one_site_of_few_people_tells_nothing():
    found = decode_evaluation(encode(cohort(9, 10, unknown=0.0), ALL, EVERY), ALL, EVERY)
    assert set(found.metrics.values()) == {None}
    cells = [
        cell
        for table in found.tables.values()
        for row in table
        for name, cell in row.items()
        if name != "true"
    ]
    assert set(cells) <= {None}


def test_no_rows_give_zeros_and_no_metric():
    vector = encode(cohort(10, 0), ALL, EVERY)
    assert not vector.any()
    assert set(decode_evaluation(vector, ALL, EVERY).metrics.values()) == {None}


def test_a_larger_cell_hides_more():
    rows = cohort(11, 120, unknown=0.0)
    vector = encode(rows, ALL, ("sex",))
    assert decode_evaluation(vector, ALL, ("sex",)).metrics["death.auroc"] is not None
    assert decode_evaluation(vector, ALL, ("sex",), min_cell=100).metrics["death.auroc"] is None


def test_a_vector_of_another_study_or_with_a_negative_count_is_refused():
    vector = encode(cohort(12, 100))
    with pytest.raises(ValueError, match="not one of these targets"):
        decode_evaluation(vector, ALL, ("sex",))
    starts = np.cumsum([0, *(evaluation_length((target,), ()) for target in ALL)])[:-1]
    for start in starts:
        broken = vector.copy()
        broken[start] = -1
        with pytest.raises(ValueError, match="count"):
            decode_evaluation(broken, ALL, ())


def test_shapes_that_do_not_fit_are_refused():
    scores, labels, person, groups = cohort(13, 50)
    for rows in ((scores[:, 1:], labels, person, groups), (scores, labels[1:], person, groups)):
        with pytest.raises(ValueError, match="do not fit"):
            encode(rows)
    with pytest.raises(ValueError, match="groups"):
        encode((scores, labels, person, groups[:, :1]), ALL, ("sex",))


def test_the_language_offers_the_subgroupings_that_rows_have():
    (kind, _) = get_args(EvaluationSection.model_fields["subgroups"].annotation)
    assert set(get_args(kind)) == set(SUBGROUPS)
