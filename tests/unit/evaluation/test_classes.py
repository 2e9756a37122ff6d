from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score

from fedhealth.evaluation import decode_evaluation, encode_evaluation
from fedhealth.study.targets import Target

NO_GROUPS = np.zeros((0, 3), dtype=np.int8)
WHERE = Target("where", "classes", outputs=4, classes=("home", "facility", "transfer", "died"))
THREE = Target("where", "classes", outputs=3, classes=("home", "facility", "died"))


def encode(scores, labels, person=None, *, target=WHERE):
    rows = np.arange(len(labels)) if person is None else person
    return encode_evaluation(scores, labels[:, None], rows, NO_GROUPS, (target,), ())


def decode(vector, *, target=WHERE):
    return decode_evaluation(vector, (target,), ())


def cohort(seed, rows, *, classes=4, weights=None, signal=1.0):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, size=rows, p=weights).astype(np.float32)
    logits = generator.normal(0.0, 1.0, (rows, classes)) + signal * (labels[:, None] == np.arange(classes))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores.astype(np.float32), labels


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_the_sum_are_scikit_learns_of_the_pooled_rows(seed):
    scores, labels = cohort(seed, 1600)
    sites = np.random.default_rng(seed).integers(4, size=1600)
    found = decode(sum(encode(scores[sites == site], labels[sites == site]) for site in range(4)))
    metrics, predicted = found.metrics, scores.argmax(axis=1)
    exact = np.array([roc_auc_score(labels == each, scores[:, each]) for each in range(4)])
    assert abs(metrics["auroc"] - exact.mean()) <= metrics["auroc_resolution"] < 0.005
    for name, area in zip(WHERE.classes, exact, strict=True):
        assert metrics[f"{name}.auroc"] == pytest.approx(area, abs=0.002)
        assert metrics[f"{name}.low"] < area < metrics[f"{name}.high"]
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted), abs=1e-12)
    assert metrics["n"] == 1600
    table = [[line[name] for name in WHERE.classes] for line in found.tables["confusion"]]
    assert table == confusion_matrix(labels, predicted).tolist()
    assert [line["n"] for line in found.tables["confusion"]] == np.bincount(labels.astype(int)).tolist()


def test_the_mean_area_has_an_interval_that_is_not_too_narrow():
    areas, widths = [], []
    for seed in range(60):
        metrics = decode(encode(*cohort(100 + seed, 300, signal=0.7))).metrics
        areas.append(metrics["auroc"])
        widths.append(metrics["high"] - metrics["low"])
    assert np.mean(widths) / 2 > 1.959964 * np.std(areas, ddof=1)


def test_a_class_of_too_few_people_is_left_out_of_the_mean():
    scores, labels = cohort(1, 800, weights=[0.5, 0.3, 0.2, 0.0])
    labels[:10] = 3
    metrics = decode(encode(scores, labels)).metrics
    assert metrics["died.auroc"] is None
    others = [metrics[f"{name}.auroc"] for name in ("home", "facility", "transfer")]
    assert metrics["auroc"] == pytest.approx(np.mean(others), abs=1e-12)


def test_a_class_that_is_never_predicted_has_a_line():
    scores, labels = cohort(2, 900, signal=2.0)
    scores[:, 3] = 0.0
    table = decode(encode(scores, labels)).tables["confusion"]
    assert [line["died"] for line in table] == [0, 0, 0, 0]
    assert table[3]["n"] == (labels == 3).sum()


def test_few_wrong_predictions_hide_the_accuracy_and_the_whole_table():
    scores, labels = cohort(3, 400, signal=30.0)
    labels[:5] = (labels[:5] + 1) % 4
    found = decode(encode(scores, labels))
    assert found.metrics["accuracy"] is None
    assert found.metrics["n"] == 400
    assert {line[name] for line in found.tables["confusion"] for name in ("n", *WHERE.classes)} == {None}


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 400), st.sampled_from([15, 60, 5000]), st.floats(0.0, 4.0))
def test_no_number_of_fewer_than_eleven_people_follows_from_what_is_told(seed, rows, people, signal):
    """Every sum of cells that linear algebra yields from table, accuracy and n is of nobody or of enough people."""
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet([1.0, 1.0, 0.5])
    scores, labels = cohort(seed, rows, classes=3, weights=weights, signal=signal)
    person = generator.integers(people, size=rows)
    found = decode(encode(scores, labels, person, target=THREE), target=THREE)
    truth, predicted = labels.astype(int), scores.argmax(axis=1)
    cell = truth * 3 + predicted
    known = []
    if found.metrics["n"] is not None:
        known.append(np.ones(9))
    if found.metrics["accuracy"] is not None:
        known.append(np.eye(3).ravel())
    for line, told in enumerate(found.tables["confusion"]):
        for column, name in enumerate(THREE.classes):
            if told[name] is not None:
                assert told[name] == (cell == line * 3 + column).sum()
                known.append(np.eye(9)[line * 3 + column])
        if told["n"] is not None:
            known.append(np.repeat(np.eye(3)[line], 3))
    if not known:
        return
    basis = np.linalg.svd(np.array(known), full_matrices=False)[2][: np.linalg.matrix_rank(known)]
    for subset in product([0.0, 1.0], repeat=9):
        wanted = np.array(subset)
        if np.abs(wanted - basis.T @ (basis @ wanted)).max() < 1e-9:
            held = set(person[wanted[cell] == 1.0])
            assert len(held) == 0 or len(held) >= 11


@pytest.mark.parametrize(("people", "shown"), [(1, False), (10, False), (11, True)])
def test_rows_of_fewer_than_eleven_people_hide_everything(people, shown):
    scores, labels = cohort(4, 400)
    found = decode(encode(scores, labels, np.arange(400) % people))
    assert (found.metrics["n"] is not None) is shown
    if not shown:
        assert set(found.metrics.values()) == {None}


@pytest.mark.parametrize("label", [-1.0, 4.0])
def test_a_label_that_is_no_class_is_refused(label):
    with pytest.raises(ValueError, match="no class"):
        encode(np.full((1, 4), 0.25), np.array([label]))
