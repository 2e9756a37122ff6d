import numpy as np
import pytest
import torch

from fedhealth.errors import ConfigError
from fedhealth.models import weights as w
from fedhealth.models.inputs import RawInputs
from fedhealth.models.networks import build_network, initial_weights, load_weights, read_weights, sigmoid
from fedhealth.models.preprocess import prepare
from fedhealth.models.scoring import predict
from fedhealth.models.series import CHANNELS
from fedhealth.models.statistics import Statistics
from fedhealth.study.columns import SERIES, feature_columns


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


OUTCOMES = {
    "death": {"kind": "death", "within": "stay"},
    "type": {"kind": "disposition"},
    "los": {"kind": "length_of_stay"},
}
MULTITASK = {"kind": "multitask", "shared": [8, 6], "heads": [4], "dropout": [0.3]}
LSTM = {"kind": "lstm", "units": [6, 5], "dense": [4], "dropout": [0.3]}


def rows_of(features, *, seed=0, steps=9):
    """Rows with series, a third of whose values are there, and that begin at different steps."""
    generator = np.random.default_rng(seed)
    shape = (len(features), steps, len(SERIES))
    series = generator.uniform([s.clip_low for s in SERIES], [s.clip_high for s in SERIES], shape)
    late = np.arange(steps)[None, :, None] < generator.integers(0, steps, len(features))[:, None, None]
    series[late | (generator.random(shape) > 0.3)] = np.nan
    return RawInputs(features, series.astype(np.float32))


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        ({"kind": "linear"}, {"layers.0.weight": (7, 128)}),
        (
            MULTITASK,
            {
                "trunk.0.weight": (8, 128),
                "trunk.1.bias": (6,),
                "heads.death.0.weight": (4, 6),
                "heads.death.1.weight": (1, 4),
                "heads.type.1.weight": (5, 4),
                "heads.los.1.bias": (1,),
            },
        ),
        (
            LSTM,
            {
                "lstm.0.gates.weight": (24, CHANNELS + 6),
                "lstm.1.gates.weight": (20, 6 + 5),
                "lstm.1.gates.bias": (20,),
                "dense.0.weight": (4, 5 + 128),
                "dense.1.weight": (7, 4),
            },
        ),
    ],
    ids=lambda each: each.get("kind"),
)
def test_every_kind_has_its_layers_and_no_other_state(make_study, model, shapes):
    study = make_study(model=model, outcomes=OUTCOMES)
    network = build_network(study, inputs=128)
    found = {name: array.shape for name, array in read_weights(network).items()}
    assert shapes.items() <= found.items()
    assert not list(network.buffers())
    assert found == {name: array.shape for name, array in initial_weights(study, inputs=128, seed=0).items()}


def test_a_linear_model_starts_at_zero_whatever_the_seed(make_study):
    weights = initial_weights(make_study(model={"kind": "linear"}), inputs=5, seed=7)
    assert [array.shape for array in weights.values()] == [(1,), (1, 5)]
    assert all((array == 0).all() for array in weights.values())


@pytest.mark.parametrize("model", [{"kind": "linear"}, MULTITASK, LSTM], ids=lambda each: each["kind"])
@pytest.mark.parametrize("algorithm", ["fedavg", "fedbn"])
def test_a_rows_scores_are_its_own(make_study, features, statistics, columns, model, algorithm):
    study = make_study(model=model, outcomes=OUTCOMES, training={"algorithm": algorithm})
    generator, rows = np.random.default_rng(0), rows_of(features)
    weights = {
        name: array + generator.normal(0.0, 0.1, array.shape).astype(np.float32)
        for name, array in initial_weights(study, inputs=len(columns), seed=0).items()
    }
    scores = predict(weights, statistics, study, rows)
    assert scores.shape == (20, 7)
    for row in range(20):
        alone = RawInputs(rows.features[[row]], rows.series[[row]])
        np.testing.assert_allclose(predict(weights, statistics, study, alone)[0], scores[row], atol=1e-5)
    assert len(np.unique(scores[:, 0])) > 15
    np.testing.assert_allclose(scores[:, 2:].sum(axis=1), 1.0, atol=1e-6)
    assert ((scores[:, 1] >= 0) & (scores[:, 1] <= 30)).all()
    none = RawInputs(features[:0])
    assert predict(weights, statistics, study, none).shape == (0, 7)


def test_rows_beyond_one_batch_are_scored_as_any(make_study, statistics, columns, features, monkeypatch):
    study = make_study(model=LSTM)
    weights, rows = initial_weights(study, inputs=len(columns), seed=0), rows_of(features)
    whole = predict(weights, statistics, study, rows)
    monkeypatch.setattr("fedhealth.models.networks._SCORED_AT_ONCE", 7)
    np.testing.assert_allclose(predict(weights, statistics, study, rows), whole, atol=1e-6)


def test_steps_before_a_row_begins_are_no_time(make_study, statistics, columns, features):
    study, rows = make_study(model=LSTM), rows_of(features)
    weights = initial_weights(study, inputs=len(columns), seed=0)
    padding = np.full((20, 4, len(SERIES)), np.nan, dtype=np.float32)
    padded = RawInputs(features, np.concatenate((padding, rows.series), axis=1))
    np.testing.assert_allclose(
        predict(weights, statistics, study, padded), predict(weights, statistics, study, rows), atol=1e-6
    )
    other = RawInputs(features, rows.series[::-1])
    assert (predict(weights, statistics, study, other) != predict(weights, statistics, study, rows)).any()


def test_a_multitask_network_is_its_trunk_and_each_targets_head(make_study):
    study = make_study(model=MULTITASK, outcomes=OUTCOMES)
    network = build_network(study, inputs=5).eval()
    weights = initial_weights(study, inputs=5, seed=1)
    load_weights(network, weights)

    def layer(values, name):
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    inputs = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    shared = np.maximum(layer(np.maximum(layer(inputs, "trunk.0"), 0), "trunk.1"), 0)
    expected = [
        layer(np.maximum(layer(shared, f"heads.{name}.0"), 0), f"heads.{name}.1") for name in sorted(OUTCOMES)
    ]
    with torch.no_grad():
        outputs = network(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(outputs, np.concatenate(expected, axis=1), atol=1e-5)


def test_an_input_norm_starts_as_the_identity_and_then_scales_and_shifts(make_study, statistics, features):
    plain, normed = (make_study(model=LSTM, training={"algorithm": each}) for each in ("fedavg", "fedbn"))
    rows, weights = rows_of(features), initial_weights(plain, inputs=128, seed=0)
    with_norm = initial_weights(normed, inputs=128, seed=0)
    assert with_norm["norm.scale"].tolist() == [1.0] * 128
    assert with_norm["series_norm.shift"].tolist() == [0.0] * CHANNELS
    assert with_norm.keys() - weights.keys() == {
        f"{a}.{b}" for a in ("norm", "series_norm") for b in ("scale", "shift")
    }
    same = {**with_norm, **weights}
    np.testing.assert_array_equal(
        predict(same, statistics, normed, rows), predict(weights, statistics, plain, rows)
    )
    doubled = {**same, "norm.scale": 2 * same["norm.scale"]}
    halved = {**weights, "dense.0.weight": weights["dense.0.weight"].copy()}
    halved["dense.0.weight"][:, 5:] *= 2
    np.testing.assert_allclose(
        predict(doubled, statistics, normed, rows), predict(halved, statistics, plain, rows), atol=1e-6
    )


def test_recurrent_weights_start_uniform_and_the_cell_keeps(make_study):
    study = make_study(model={"kind": "lstm", "units": [50, 20], "dense": [30]})
    weights = initial_weights(study, inputs=10, seed=0)
    gates = weights["lstm.0.gates.weight"]
    assert np.abs(gates).max() <= 50**-0.5
    assert gates.std() == pytest.approx((50 * 3) ** -0.5, rel=0.02)
    np.testing.assert_array_equal(weights["lstm.1.gates.bias"], np.repeat([0, 1, 0, 0], 20))
    assert weights["dense.0.weight"].std() == pytest.approx((2 / 30) ** 0.5, rel=0.1)
    assert w.digest(initial_weights(study, inputs=10, seed=0)) == w.digest(weights)
    assert w.digest(initial_weights(study, inputs=10, seed=1)) != w.digest(weights)


def test_a_kind_that_is_no_network_is_refused(make_study):
    open_data = {"mode": "none", "legal_basis": "public"}
    study = make_study(model={"kind": "gbm"}, training={"rounds": 4}, privacy=open_data)
    with pytest.raises(ConfigError, match="gbm is no network"):
        build_network(study, inputs=3)
