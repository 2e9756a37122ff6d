import numpy as np
import pytest

from fedhealth.errors import ConfigError
from fedhealth.models.networks import initial_weights
from fedhealth.models.personal import frozen_names, split_personal


def weights_of(study):
    return initial_weights(study, inputs=4, seed=0)


def test_every_parameter_is_in_one_part(make_study):
    study = make_study(model={"kind": "multitask"}, training={"personal": ["heads.*", "trunk.1.bias"]})
    weights = weights_of(study)
    shared, personal = split_personal(weights, study)
    assert sorted(personal) == list(personal)
    assert set(personal) == {name for name in weights if name.startswith("heads.")} | {"trunk.1.bias"}
    assert {**shared, **personal}.keys() == weights.keys()
    assert not shared.keys() & personal.keys()
    for name, array in {**shared, **personal}.items():
        np.testing.assert_array_equal(array, weights[name])


def test_without_patterns_all_is_shared(make_study):
    weights = weights_of(make_study())
    assert split_personal(weights, make_study()) == (weights, {})


@pytest.mark.parametrize("kind", ["linear", "mlp", "multitask"])
def test_fedbn_keeps_the_input_norm(make_study, kind):
    study = make_study(model={"kind": kind}, training={"algorithm": "fedbn"})
    shared, personal = split_personal(weights_of(study), study)
    assert list(personal) == ["norm.scale", "norm.shift"]
    assert shared.keys() == weights_of(make_study(model={"kind": kind})).keys()


def test_fedbn_keeps_that_of_the_series_too(make_study):
    study = make_study(model={"kind": "lstm"}, training={"algorithm": "fedbn", "personal": ["dense.1.*"]})
    assert list(split_personal(weights_of(study), study)[1]) == [
        "dense.1.bias",
        "dense.1.weight",
        "norm.scale",
        "norm.shift",
        "series_norm.scale",
        "series_norm.shift",
    ]


def test_a_pattern_of_nothing_and_one_of_everything_are_refused(make_study):
    nothing = make_study(training={"personal": ["heads.*"]})
    with pytest.raises(ConfigError, match=r"training.personal: the pattern heads\.\*"):
        split_personal(weights_of(nothing), nothing)
    everything = make_study(training={"personal": ["*"]})
    with pytest.raises(ConfigError, match="every parameter"):
        split_personal(weights_of(everything), everything)


def test_frozen_are_the_parameters_of_the_patterns(make_study):
    def frozen(*patterns):
        study = make_study(training={"initial": {"freeze": list(patterns)}})
        return frozen_names(weights_of(study), study)

    assert frozen() == frozenset()
    assert frozen("layers.0.*", "layers.1.bias") == {"layers.0.weight", "layers.0.bias", "layers.1.bias"}
    with pytest.raises(ConfigError, match=r"training.initial.freeze: the pattern trunk\.\*"):
        frozen("trunk.*")
    with pytest.raises(ConfigError, match="nothing to train"):
        frozen("*")
