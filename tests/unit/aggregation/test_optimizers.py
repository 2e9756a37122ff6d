import json

import numpy as np
import pytest

from fedhealth.aggregation.optimizers import first_state, server_step, site_control
from fedhealth.aggregation.update import MAX_WEIGHT, largest_weight, site_weight
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


def after(rounds=1, **training):
    chosen = study(**training)
    state = first_state(WEIGHTS, chosen)
    for _ in range(rounds):
        state = server_step(state, DELTA, chosen)
    return state


def test_learning_rate_one_is_federated_averaging():
    weights = after().weights
    assert weights["a"].tolist() == [1.5, 1.0]
    assert weights["b"].tolist() == [[5.0]]
    assert all(array.dtype == np.float32 for array in weights.values())


def test_the_servers_learning_rate_scales_the_step():
    assert after(server={"kind": "sgd", "lr": 0.5}).weights["a"].tolist() == [1.25, 1.5]


def test_the_inputs_are_left_alone():
    after()
    assert WEIGHTS["a"].tolist() == [1.0, 2.0]


VARIANCE = {
    "adam": lambda v, d, beta: beta * v + (1 - beta) * d**2,
    "yogi": lambda v, d, beta: v - (1 - beta) * d**2 * np.sign(v - d**2),
    "adagrad": lambda v, d, beta: v + d**2,
}


@pytest.mark.parametrize("kind", VARIANCE)
def test_adaptive_optimisers_follow_the_papers_recursion(kind):
    """Reddi et al. 2021, Algorithm 2, written out in double precision for one coordinate."""
    lr, beta_1, beta_2, tau = 0.1, 0.8, 0.95, 0.01
    settings = {"kind": kind, "lr": lr, "beta_1": beta_1, "beta_2": beta_2, "tau": tau}
    state = after(4, algorithm=f"fed{kind}", server=settings)
    x, m, v = 2.0, 0.0, tau**2
    for _ in range(4):
        m = beta_1 * m + (1 - beta_1) * -1.0
        v = VARIANCE[kind](v, -1.0, beta_2)
        x += lr * m / (np.sqrt(v) + tau)
    assert state.weights["a"][1] == pytest.approx(x, rel=1e-5)
    assert state.weights["a"].dtype == np.float32


SCAFFOLD = {"algorithm": "scaffold", "local": {"steps": 4}, "optimizer": {"lr": 0.5}}


def test_the_servers_control_is_the_mean_of_the_sites_controls():
    """What the server computes from the mean update alone is what the sites hold on average."""
    chosen = study(**SCAFFOLD)
    state = first_state(WEIGHTS, chosen)
    generator = np.random.default_rng(0)
    owns = [{name: np.zeros_like(array) for name, array in WEIGHTS.items()} for _ in range(3)]
    for _ in range(3):
        deltas = [
            {name: generator.normal(size=a.shape).astype(np.float32) for name, a in WEIGHTS.items()}
            for _ in owns
        ]
        owns = [
            site_control(state.control, own, delta, chosen) for own, delta in zip(owns, deltas, strict=True)
        ]
        mean = {name: np.mean([delta[name] for delta in deltas], axis=0) for name in WEIGHTS}
        state = server_step(state, mean, chosen)
        for name in WEIGHTS:
            np.testing.assert_allclose(
                state.control[name], np.mean([own[name] for own in owns], axis=0), atol=1e-5
            )


def test_a_control_follows_the_sites_that_took_part():
    """Karimireddy et al. 2020, Algorithm 1, line 17: only |S| of N sites moved theirs."""
    chosen = study(**SCAFFOLD)
    state = server_step(first_state(WEIGHTS, chosen), DELTA, chosen, share=0.5)
    assert state.control["a"].tolist() == [-0.5 * 0.5 / 2.0, 0.5 / 2.0]


def test_an_update_of_another_model_is_refused():
    with pytest.raises(ValueError, match="other parameters"):
        server_step(first_state(WEIGHTS, study()), {"a": DELTA["a"]}, study())


@pytest.mark.parametrize(
    ("training", "problem"),
    [
        ({"algorithm": "fedadam"}, "server.kind"),
        ({"server": {"kind": "yogi"}}, "server.kind"),
        ({"algorithm": "scaffold"}, "local.steps"),
        ({**SCAFFOLD, "optimizer": {"lr": 0.5, "momentum": 0.9}}, "momentum"),
    ],
)
def test_an_algorithm_without_what_it_needs_is_refused(training, problem):
    with pytest.raises(ValueError, match=problem):
        study(**training)


def test_weighting_follows_the_study():
    assert site_weight(study(), examples=300) == 300.0
    assert site_weight(study(), examples=10**9) == largest_weight(study()) == MAX_WEIGHT
    uniform = study(weighting="uniform")
    assert site_weight(uniform, examples=300) == largest_weight(uniform) == 1
