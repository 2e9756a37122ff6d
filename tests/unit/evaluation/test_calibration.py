import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fedhealth.evaluation.calibration import recalibrate
from fedhealth.evaluation.scores import encode_scores, logit_bins, logit_centers, pooled_metrics


def cohort(seed, rows, *, slope=1.0, intercept=0.0):
    """Scores and labels of which the recalibration is known."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1.0, 1.2, rows)
    rate = 1 / (1 + np.exp(-(intercept + slope * logits)))
    return 1 / (1 + np.exp(-logits)), (generator.random(rows) < rate).astype(float)


def by_scikit_learn(logits, labels):
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logits[:, None], labels)
    return fitted.intercept_[0], fitted.coef_[0, 0]


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, 1.0), (2.5, -2.0), (-0.3, 0.2)])
def test_slope_and_intercept_are_scikit_learns_on_the_binned_scores(slope, intercept):
    scores, labels = cohort(1, 3000, slope=slope, intercept=intercept)
    metrics = pooled_metrics(encode_scores(scores, labels, np.arange(3000)))
    centers = logit_centers(512)[logit_bins(scores, bins=512)]
    a, b = by_scikit_learn(centers, labels)
    assert metrics.calibration_intercept == pytest.approx(a, abs=1e-5)
    assert metrics.calibration_slope == pytest.approx(b, abs=1e-5)


def test_binning_moves_the_slope_by_less_than_a_hundredth():
    scores, labels = cohort(2, 3000, slope=0.7, intercept=0.3)
    metrics = pooled_metrics(encode_scores(scores, labels, np.arange(3000)))
    a, b = by_scikit_learn(np.log(scores / (1 - scores)), labels)
    assert metrics.calibration_slope == pytest.approx(b, abs=0.01)
    assert metrics.calibration_intercept == pytest.approx(a, abs=0.01)


def test_the_middle_of_a_bin_lies_in_it():
    centers = logit_centers(512)
    np.testing.assert_array_equal(logit_bins(1 / (1 + np.exp(-centers)), bins=512), np.arange(512))


@pytest.mark.parametrize(
    ("negatives", "positives"),
    [
        ([50, 30, 0, 0], [0, 0, 20, 40]),
        ([50, 30, 5, 0], [0, 0, 20, 40]),
        ([0, 80, 0, 0], [0, 60, 0, 0]),
    ],
)
def test_without_a_maximum_of_the_likelihood_there_is_no_slope(negatives, positives):
    found = recalibrate(
        np.array([-3.0, -1.0, 1.0, 3.0]), np.array(negatives, float), np.array(positives, float)
    )
    assert found is None


def test_scores_that_are_all_alike_have_every_other_metric():
    metrics = pooled_metrics(encode_scores(np.full(100, 0.3), np.arange(100) % 2, np.arange(100)))
    assert metrics.calibration_slope is None
    assert metrics.calibration_intercept is None
    assert metrics.calibration_in_the_large == pytest.approx(0.2, abs=1e-8)
