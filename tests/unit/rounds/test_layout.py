"""What a sum is refused for: labels of which there is nothing to learn, features that nobody has, noise instead of numbers."""

import json

import numpy as np
import pytest

from fedhealth.aggregation.statistics import encode_statistics
from fedhealth.aggregation.update import update_length
from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.privacy.noise import NoiseSource
from fedhealth.rounds.layout import RoundShape, decode_sum, encode_weighted, has_lane, sum_layout
from fedhealth.study.columns import feature_columns
from fedhealth.study.language import Aggregation
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of

OUTCOMES = {"death": {"kind": "death", "within_days": 30}, "stay": {"kind": "length_of_stay"}}
CREATININE = {
    "name": "crea",
    "codes": ["urn:x|crea"],
    "unit": "mg/dL",
    "clip": [0, 10],
    "aggregate": ["last", "missing"],
}


def study_of():
    document = {
        "schema_version": 1,
        "name": "tiny",
        "outcomes": OUTCOMES,
        "prediction": {"at": "admission", "plus_h": 24},
        "features": {
            "preset": None,
            "statics": ["age"],
            "measurements": [CREATININE],
            "conditions": [{"name": "diabetes", "codes": ["urn:x|E11*"]}],
        },
        "model": {"kind": "linear"},
    }
    return Study.model_validate_json(json.dumps(document))


def moments(*, measured=25, diabetic=15, dead=12, stays=30, people=40):
    """The sum of a consortium of so many people, of whom so many have each thing."""
    study, person = study_of(), np.arange(people)
    has = person < measured
    features = np.column_stack([np.full(people, 60.0), np.where(has, 1.5, np.nan), ~has, person < diabetic])
    labels = np.column_stack([person < dead, np.where(person < stays, 4.0, np.nan)]).astype(np.float32)
    vector = encode_statistics(features, labels, person, feature_columns(study), targets_of(study))
    shape = RoundShape(study=study, purposes=("moments",), model={}, statistics=None)
    assert sum_layout(shape, "moments").length == len(vector)
    return decode_sum(shape, "moments", vector, cohort=("a", "b", "c"), declared=None)


def test_a_sum_that_has_everything_is_published():
    found = moments()
    assert found.missing_columns == ()
    assert set(found.tensors) == {"mean", "sd", "median", "count"}


def test_a_feature_that_everybody_has_is_there():
    assert moments(measured=40, diabetic=40).missing_columns == ("crea_missing", "diabetes")


@pytest.mark.parametrize(
    ("few", "problem"),
    [
        ({"measured": 0}, "features.measurements.crea: fewer than 11 people"),
        ({"measured": 10}, "features.measurements.crea: fewer than 11 people"),
        ({"diabetic": 10}, "features.conditions.diabetes: fewer than 11 people"),
        ({"dead": 0}, "the outcome death has one class only"),
        ({"dead": 40}, "the outcome death has one class only"),
        ({"stays": 0}, "the outcome stay is known of fewer than 11 people"),
        ({"stays": 10}, "the outcome stay is known of fewer than 11 people"),
    ],
)
def test_what_too_few_people_have_is_refused_by_its_name(few, problem):
    with pytest.raises(PolicyError) as caught:
        moments(**few)
    assert caught.value.problem.startswith(problem)
    assert caught.value.fix


@pytest.mark.parametrize("mode", ["masks", "he"])
def test_only_an_update_is_encrypted_and_its_key_has_one_block(mode):
    study = study_of().model_copy(update={"aggregation": Aggregation(mode=mode)})
    model = {"weight": np.zeros((5, 3), dtype=np.float32)}
    shape = RoundShape(study=study, purposes=("evaluation", "update"), model=model, statistics=None)
    update, counts = sum_layout(shape, "update"), sum_layout(shape, "evaluation")
    length = update_length(model, lane=has_lane(study))
    assert (update.length, update.cipher_length) == {"masks": (length, None), "he": (4096, length)}[mode]
    assert (update.ring_bits, counts.ring_bits, counts.cipher_length) == (32, 64, None)


MODEL = {"bias": np.zeros(3, np.float32), "weight": np.zeros((4, 3), np.float32)}
SITES = ("a", "b", "c")


def shape_of(*purposes, mode="none"):
    privacy = {"mode": "none", "legal_basis": "public"} if mode == "none" else {"mode": mode, "epsilon": 4.0}
    study = Study.model_validate(study_of().model_dump() | {"privacy": privacy}, strict=False)
    return RoundShape(study=study, purposes=purposes, model=MODEL, statistics=None)


def noise(bits, length, seed):
    """What a sum is when one mask was wrong: words of a key stream."""
    words = np.random.default_rng(seed).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), length)
    return words.astype(np.int64)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["moments", "evaluation", "update"])
def test_noise_is_taken_for_no_sum(name, seed):
    shape = shape_of("evaluation", "update") if name == "update" else shape_of(name)
    layout = sum_layout(shape, name)
    with pytest.raises(ProtocolError, match=f"the sum {name} is noise"):
        decode_sum(shape, name, noise(layout.ring_bits, layout.length, seed), cohort=SITES, declared=None)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_taken_for_no_sum_under_declared_weights(seed):
    shape = shape_of("evaluation", "update", mode="local")
    vector = noise(32, sum_layout(shape, "update").length, seed)
    with pytest.raises(ProtocolError, match="is noise"):
        decode_sum(shape, "update", vector, cohort=SITES, declared=(45.0, 64.0, 64.0))


@pytest.mark.parametrize("mode", ["none", "local"])
@pytest.mark.parametrize("change", [0.0, 0.3, 1.0, 1000.0, -1000.0])
@pytest.mark.parametrize("examples", [1, 45, 100_000])
def test_every_sum_of_honest_updates_is_taken(mode, change, examples):
    """The largest changes are clipped at the site, and the largest sites count as one of 8192 examples."""
    shape = shape_of("evaluation", "update", mode=mode)
    delta = {name: np.full_like(array, change) for name, array in MODEL.items()}
    declared = None if mode == "none" else float(examples)
    rounding = NoiseSource(bytes(32))
    vector = 3 * encode_weighted(
        delta, shape, examples=examples, declared=declared, sites=3, rounding=rounding
    )
    all_declared = None if declared is None else (declared,) * 3
    found = decode_sum(shape, "update", vector, cohort=SITES, declared=all_declared)
    assert np.allclose(found.tensors["bias"], np.clip(change, -1, 1), atol=1e-3)
