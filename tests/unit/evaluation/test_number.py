import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from fedhealth.evaluation import decode_evaluation, encode_evaluation
from fedhealth.study.targets import Target

STAY = Target("stay", "number", low=0.0, high=30.0, center=5.0, spread=5.0)
NO_GROUPS = np.zeros((0, 3), dtype=np.int8)


def encode(scores, labels, person=None):
    rows = np.arange(len(labels)) if person is None else person
    return encode_evaluation(scores[:, None], labels[:, None], rows, NO_GROUPS, (STAY,), ())


def decode(vector):
    return decode_evaluation(vector, (STAY,), ()).metrics


def cohort(seed, rows, *, noise=2.0):
    generator = np.random.default_rng(seed)
    labels = np.clip(generator.gamma(2.0, 3.0, rows), 0.0, 30.0).astype(np.float32)
    scores = np.clip(2.0 + 0.5 * labels + generator.normal(0.0, noise, rows), 0.0, 30.0).astype(np.float32)
    return scores, labels


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_the_sum_are_scikit_learns_of_the_pooled_rows(seed):
    scores, labels = cohort(seed, 1500)
    sites = np.random.default_rng(seed).integers(4, size=1500)
    metrics = decode(sum(encode(scores[sites == site], labels[sites == site]) for site in range(4)))
    label, score = labels.astype(float), scores.astype(float)
    assert metrics["r2"] == pytest.approx(r2_score(label, score), abs=1e-8)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(label, score), abs=1e-8)
    assert metrics["rmse"] == pytest.approx(root_mean_squared_error(label, score), abs=1e-8)
    assert metrics["bias"] == pytest.approx((score - label).mean(), abs=1e-8)
    assert metrics["n"] == 1500


@pytest.mark.parametrize("noise", [0.5, 2.0, 8.0])
def test_intervals_are_those_of_the_jackknife(noise):
    scores, labels = cohort(7, 800, noise=noise)
    metrics = decode(encode(scores, labels))
    left = np.arange(800)
    for name, of in (("r2", r2_score), ("mae", mean_absolute_error)):
        each = np.array([of(labels[left != i].astype(float), scores[left != i]) for i in left])
        sd = np.sqrt(799 / 800 * ((each - each.mean()) ** 2).sum())
        low, high = (
            (metrics["low"], metrics["high"]) if name == "r2" else (metrics["mae_low"], metrics["mae_high"])
        )
        assert (high - low) / 2 == pytest.approx(1.959964 * sd, rel=0.02)
        assert low < metrics[name] < high


def test_labels_beyond_the_public_bounds_count_as_the_bounds():
    scores, labels = cohort(3, 100)
    labels[0], scores[1] = 400.0, -5.0
    metrics = decode(encode(scores, labels))
    expected = np.abs(np.clip(scores, 0, 30).astype(float) - np.clip(labels, 0, 30)).mean()
    assert metrics["mae"] == pytest.approx(expected, abs=1e-8)


def test_labels_that_are_all_alike_have_no_r2():
    metrics = decode(encode(np.linspace(1, 3, 50), np.full(50, 2.0)))
    assert metrics["r2"] is metrics["low"] is metrics["high"] is None
    assert metrics["mae"] == pytest.approx(np.abs(np.linspace(1, 3, 50) - 2).mean(), abs=1e-8)


def test_a_perfect_model_has_r2_one():
    _, labels = cohort(4, 50)
    metrics = decode(encode(labels, labels))
    assert (metrics["r2"], metrics["mae"], metrics["high"]) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize(("people", "shown"), [(0, False), (10, False), (11, True)])
def test_fewer_than_eleven_people_hide_everything(people, shown):
    scores, labels = cohort(5, 40 if people else 0)
    metrics = decode(encode(scores, labels, np.arange(len(labels)) % max(people, 1)))
    assert {value is not None for value in metrics.values()} == {shown}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        encode(np.array([1.0, bad]), np.array([1.0, 2.0]))
