import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from fedhealth.evaluation import encode_scores as encode_rows
from fedhealth.evaluation import pooled_metrics, scores_length
from fedhealth.evaluation.bands import BANDS
from fedhealth.evaluation.curves import auroc_with_interval

BINS = 512


def encode_scores(scores, labels):
    """Every row another patient's."""
    return encode_rows(scores, labels, np.arange(len(labels)))


def cohort(seed, rows, *, rate=0.2, signal=1.0):
    generator = np.random.default_rng(seed)
    labels = (generator.random(rows) < rate).astype(np.float32)
    logits = generator.normal(-1.5, 1.0, rows) + signal * labels
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


def binned(scores):
    """The bin index of each score, through the public encoding of one row at a time."""
    return np.array(
        [np.flatnonzero(encode_scores(scores[i : i + 1], np.zeros(1))[:BINS])[0] for i in range(len(scores))]
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("signal", [0.0, 0.5, 2.0])
def test_auroc_is_within_one_bin_and_within_its_stated_resolution_of_the_exact_area(seed, signal):
    scores, labels = cohort(seed, 1500, signal=signal)
    metrics = pooled_metrics(encode_scores(scores, labels))
    exact = roc_auc_score(labels, scores)
    assert abs(metrics.auroc - exact) <= 1 / BINS
    assert abs(metrics.auroc - exact) <= metrics.auroc_resolution + 1e-12
    assert metrics.low <= exact <= metrics.high


def test_equal_scores_count_half():
    scores = np.full(100, 0.3, dtype=np.float32)
    labels = np.arange(100) % 2
    metrics = pooled_metrics(encode_scores(scores, labels))
    assert metrics.auroc == 0.5
    assert metrics.auroc_resolution == 0.5


def test_brier_and_calibration_are_exact():
    scores, labels = cohort(1, 2000)
    metrics = pooled_metrics(encode_scores(scores, labels))
    assert metrics.brier == pytest.approx(brier_score_loss(labels, scores), abs=1e-8)
    tenth = np.minimum((scores.astype(float) * 10).astype(int), 9)
    counts = np.array([[(labels[tenth == t] == side).sum() for side in (0, 1)] for t in range(10)])
    assert counts[8:].sum(axis=0).min() < 11 <= counts[:8].min()  # so the last three tenths are one
    tenth = np.minimum(tenth, 7)
    gaps = [abs((scores[tenth == t].astype(float) - labels[tenth == t]).sum()) for t in range(10)]
    assert metrics.ece == pytest.approx(sum(gaps) / 2000, abs=1e-8)
    assert metrics.calibration_in_the_large == pytest.approx(
        labels.mean() - scores.astype(float).mean(), abs=1e-8
    )


def test_average_precision_is_that_of_the_binned_scores():
    scores, labels = cohort(2, 400)
    metrics = pooled_metrics(encode_scores(scores, labels))
    assert metrics.auprc == pytest.approx(average_precision_score(labels, binned(scores)), abs=1e-12)


def test_sites_add_up_to_the_pooled_cohort():
    scores, labels = cohort(3, 900)
    parts = [slice(0, 100), slice(100, 101), slice(101, 900), slice(900, 900)]
    total = sum(encode_scores(scores[part], labels[part]) for part in parts)
    whole = encode_scores(scores, labels)
    assert total.dtype == np.int64
    assert total.shape == (scores_length(),)
    np.testing.assert_array_equal(total[: 2 * BINS], whole[: 2 * BINS])
    sums = 2 * BINS + 4 * BANDS
    np.testing.assert_array_equal(total[2 * BINS : sums], whole[2 * BINS : sums])
    assert np.abs(total[sums:] - whole[sums:]).max() <= len(parts)


@pytest.mark.parametrize(
    ("positives", "shown"), [(0, False), (10, False), (11, True), (189, True), (190, False)]
)
def test_fewer_than_eleven_of_a_class_suppress_everything(positives, shown):
    labels = (np.arange(200) < positives).astype(np.float32)
    metrics = pooled_metrics(encode_scores(np.linspace(0.01, 0.99, 200), labels))
    assert metrics.n == 200
    assert (metrics.auroc is not None) is shown
    assert (metrics.n_positive is not None) is shown
    values = (metrics.auroc, metrics.low, metrics.high, metrics.auprc, metrics.brier, metrics.ece)
    assert all((value is not None) is shown for value in values)


@pytest.mark.parametrize(("people", "shown"), [(1, False), (10, False), (11, True)])
def test_rows_of_fewer_than_eleven_people_suppress_everything(people, shown):
    labels = (np.arange(400) % 2).astype(np.float32)
    vector = encode_rows(np.linspace(0.01, 0.99, 400), labels, np.arange(400) % people)
    assert (pooled_metrics(vector).auroc is not None) is shown
    assert pooled_metrics(vector).n == (400 if shown else None)


def test_a_cohort_below_the_smallest_cell_hides_its_size():
    assert pooled_metrics(encode_scores(np.full(10, 0.5), np.zeros(10))).n is None


def test_interval_is_delongs_and_what_binning_hides():
    scores, labels = cohort(4, 300)
    index = binned(scores)
    positive, negative = index[labels == 1], index[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    metrics = pooled_metrics(encode_scores(scores, labels))
    assert metrics.auroc == pytest.approx(wins.mean(), abs=1e-12)
    half = 1.959964 * variance**0.5 + metrics.auroc_resolution
    assert metrics.high - metrics.auroc == pytest.approx(half, rel=1e-6)
    assert metrics.auroc - metrics.low == pytest.approx(half, rel=1e-6)


def test_the_interval_holds_areas_that_binning_hides():
    """Scores beyond the bins: whatever their order, the exact area is in the interval."""
    scores = np.array([1e-7] * 30 + [1e-6] * 30)
    labels = np.array([0] * 30 + [1] * 30)
    for order in (scores, scores[::-1]):
        metrics = pooled_metrics(encode_scores(order, labels))
        assert (metrics.auroc, metrics.low, metrics.high) == (0.5, 0.0, 1.0)


def test_perfect_separation_still_has_an_interval():
    negatives, positives = np.zeros(8), np.zeros(8)
    negatives[1], positives[6] = 40, 20
    area = auroc_with_interval(negatives, positives)
    assert area.value == area.high == 1.0
    assert 0.9 < area.low < 1.0


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan"), float("inf")])
def test_what_is_not_a_probability_is_refused(bad):
    with pytest.raises(ValueError, match="probability"):
        encode_scores(np.array([0.5, bad]), np.zeros(2))


def test_the_ends_of_the_scale_fall_into_the_outer_bins():
    vector = encode_scores(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert vector[0] == 1
    assert vector[2 * BINS - 1] == 1


@pytest.mark.parametrize("vector", [np.zeros(7, dtype=np.int64), np.full(scores_length(), -1)])
def test_a_sum_that_is_no_score_count_is_refused(vector):
    with pytest.raises(ValueError, match="score counts"):
        pooled_metrics(vector)
