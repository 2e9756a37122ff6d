import json

import numpy as np
import pytest

from fedhealth.aggregation.optimizers import server_step
from fedhealth.aggregation.update import MAX_WEIGHT, largest_weight, site_weight
from fedhealth.errors import ConfigError
from fedhealth.study.spec import Study

WEIGHTS = {"a": np.array([1.0, 2.0], dtype=np.float32), "b": np.array([[3.0]], dtype=np.float32)}
DELTA = {"a": np.array([0.5, -1.0], dtype=np.float32), "b": np.array([[2.0]], dtype=np.float32)}


def study(**training):
    return Study.model_validate_json(
        json.dumps(
            {
                "schema_version": 1,
                "name": "tiny",
                "title": "A tiny study",
                "outcomes": {"death": {"kind": "death", "within": "stay"}},
                "prediction": {"at": "admission", "plus_h": 24},
                "training": {"local": {"epochs": 1}, **training},
            }
        )
    )


def test_learning_rate_one_is_federated_averaging():
    after = server_step(WEIGHTS, DELTA, study())
    assert after["a"].tolist() == [1.5, 1.0]
    assert after["b"].tolist() == [[5.0]]
    assert all(array.dtype == np.float32 for array in after.values())


def test_the_servers_learning_rate_scales_the_step():
    after = server_step(WEIGHTS, DELTA, study(server={"kind": "sgd", "lr": 0.5}))
    assert after["a"].tolist() == [1.25, 1.5]


def test_the_inputs_are_left_alone():
    server_step(WEIGHTS, DELTA, study())
    assert WEIGHTS["a"].tolist() == [1.0, 2.0]


def test_a_server_optimiser_that_is_not_built_is_refused():
    with pytest.raises(ConfigError, match="adam"):
        server_step(WEIGHTS, DELTA, study(server={"kind": "adam", "lr": 1.0}))


def test_an_update_of_another_model_is_refused():
    with pytest.raises(ValueError, match="other parameters"):
        server_step(WEIGHTS, {"a": DELTA["a"]}, study())


def test_weighting_follows_the_study():
    assert site_weight(study(), examples=300) == 300.0
    assert site_weight(study(), examples=10**9) == largest_weight(study()) == MAX_WEIGHT
    uniform = study(weighting="uniform")
    assert site_weight(uniform, examples=300) == largest_weight(uniform) == 1
