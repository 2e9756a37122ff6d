import numpy as np
import pytest
import torch

from fedhealth.models import weights as w
from fedhealth.models.inputs import RawInputs
from fedhealth.models.networks import (
    build_network,
    initial_weights,
    load_weights,
    predict,
    read_weights,
    sigmoid,
)
from fedhealth.models.preprocess import prepare
from fedhealth.models.statistics import Statistics
from fedhealth.study.columns import feature_columns


@pytest.fixture
def columns(study):
    return feature_columns(study)


@pytest.fixture
def statistics(columns):
    middle = np.array([(c.low + c.high) / 2 for c in columns], dtype=np.float32)
    width = np.array([(c.high - c.low) / 5 for c in columns], dtype=np.float32)
    return Statistics(mean=middle, sd=width, median=middle + width, count=np.full(len(columns), 9.0))


@pytest.fixture
def features(columns):
    generator = np.random.default_rng(0)
    low, high = np.array([(c.low, c.high) for c in columns]).T
    values = generator.uniform(low, high, (20, len(columns))).astype(np.float32)
    values[generator.random(values.shape) < 0.2] = np.nan
    return values


def test_missing_values_become_the_median_and_the_rest_is_standardised(features, statistics, columns):
    prepared = prepare(features, statistics, columns)
    assert prepared.dtype == np.float32
    missing = np.isnan(features)
    np.testing.assert_allclose(prepared[missing], 1.0, rtol=1e-4)
    expected = (features - statistics.mean) / statistics.sd
    np.testing.assert_allclose(prepared[~missing], expected[~missing], rtol=1e-4, atol=1e-5)


def test_values_beyond_the_public_bounds_are_clipped(features, statistics, columns):
    wild = features.copy()
    wild[0], wild[1] = np.inf, -1e30
    prepared = prepare(wild, statistics, columns)
    np.testing.assert_allclose(prepared[0], 2.5, rtol=1e-4)
    np.testing.assert_allclose(prepared[1], -2.5, rtol=1e-4)


def test_a_wrong_number_of_columns_is_refused(features, statistics, columns):
    with pytest.raises(ValueError, match="do not fit"):
        prepare(features[:, :-1], statistics, columns)


def test_scores_equal_those_of_the_torch_network(study, features, statistics, columns):
    weights = initial_weights(study, inputs=len(columns), seed=3)
    network = build_network(study, inputs=len(columns))
    load_weights(network, weights)
    network.eval()
    with torch.no_grad():
        expected = torch.sigmoid(network(torch.from_numpy(prepare(features, statistics, columns))))
    scores = predict(weights, statistics, study, RawInputs(features))
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-6)
    assert len(np.unique(scores)) > 10


def test_initial_weights_are_a_function_of_the_seed(study):
    torch.manual_seed(1)
    first = initial_weights(study, inputs=128, seed=0)
    torch.manual_seed(2)
    assert w.digest(initial_weights(study, inputs=128, seed=0)) == w.digest(first)
    assert w.digest(initial_weights(study, inputs=128, seed=1)) != w.digest(first)
    assert list(first) == sorted(first)
    assert first["layers.0.weight"].std() == pytest.approx((2 / 128) ** 0.5, rel=0.1)
    assert not first["layers.1.bias"].any()


def test_building_a_network_leaves_the_global_generator_alone(study):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_network(study, inputs=4)
    torch.testing.assert_close(torch.rand(3), expected)


def test_the_networks_have_the_studys_layers_and_no_other_state(study):
    network = build_network(study, inputs=128)
    shapes = {name: array.shape for name, array in read_weights(network).items()}
    assert shapes["layers.0.weight"] == (8, 128)
    assert shapes["layers.1.weight"] == (6, 8)
    assert shapes["layers.2.weight"] == (1, 6)
    assert not list(network.buffers())


def test_dropout_masks_come_from_the_seed_and_stop_at_scoring(study):
    rows = torch.ones(50, 4)

    def run(seed, *, training):
        network = build_network(study, inputs=4, seed=seed)
        load_weights(network, initial_weights(study, inputs=4, seed=0))
        return network.train(training)(rows).detach().numpy()

    np.testing.assert_array_equal(run(1, training=True), run(1, training=True))
    assert (run(1, training=True) != run(2, training=True)).any()
    assert len(np.unique(run(1, training=False))) == 1


def test_dropout_keeps_the_expected_value(study):
    drop = build_network(study, inputs=4, seed=0).drops[0]
    out = drop.train()(torch.ones(200, 200))
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(out.mean()) == pytest.approx(1.0, abs=0.02)


def test_weights_of_another_network_are_refused(study):
    network = build_network(study, inputs=4)
    with pytest.raises(ValueError, match="do not fit"):
        load_weights(network, initial_weights(study, inputs=5, seed=0))


def test_the_logistic_function_does_not_overflow():
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-500.0, 0.0, 500.0], dtype=np.float32)).tolist() == [0.0, 0.5, 1.0]
