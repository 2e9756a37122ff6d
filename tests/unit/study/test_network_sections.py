"""What a study may say of its network and of training at the sites: every key belongs to what it is written for."""

import json

import pytest
from pydantic import ValidationError

from fedhealth.study import Study


def study_of(**sections):
    document = {
        "schema_version": 1,
        "name": "small",
        "outcomes": {"death": {"kind": "death", "within": "stay"}},
        "prediction": {"at": "admission", "plus_h": 24},
    }
    return Study.model_validate_json(json.dumps({**document, **sections}))


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ({"kind": "linear"}, {"hidden": (), "dropout": (), "units": None, "dense": None, "shared": None}),
        ({"kind": "mlp"}, {"hidden": (256, 128, 64), "dropout": (0.3, 0.2), "units": None, "heads": None}),
        ({"kind": "lstm"}, {"units": (128, 64), "dense": (64,), "dropout": (0.2,), "hidden": ()}),
        ({"kind": "multitask"}, {"shared": (256, 128), "heads": (64,), "dropout": (0.3, 0.2), "hidden": ()}),
        ({"kind": "lstm", "units": [9], "dense": [], "dropout": []}, {"units": (9,), "dense": ()}),
    ],
)
def test_each_kind_has_its_own_defaults_and_comes_back(model, layers):
    study = study_of(model=model)
    assert {key: getattr(study.model, key) for key in layers} == layers
    assert Study.from_canonical(study.canonical()) == study
    spelt_out = study_of(model=json.loads(study.canonical())["model"])
    assert spelt_out.digest == study.digest


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"model": {"kind": "linear", "hidden": [8]}}, "hidden does not belong to kind linear"),
        ({"model": {"kind": "mlp", "units": [8]}}, "units does not belong to kind mlp"),
        ({"model": {"kind": "multitask", "dense": [8]}}, "dense does not belong to kind multitask"),
        ({"model": {"kind": "lstm", "units": None}}, "kind lstm needs units"),
        ({"model": {"kind": "lstm", "units": []}}, "at least 1 item"),
        ({"model": {"kind": "lstm", "units": 8}}, "valid array"),
        ({"model": {"kind": "lstm", "dense": []}}, "dropout has more entries than dense"),
        ({"model": {"kind": "multitask", "shared": [8]}}, "dropout has more entries than shared"),
        ({"model": {"kind": "mlp", "hidden": [8]}}, "dropout has more entries than hidden"),
        ({"model": {"kind": "mlp", "hidden": [0]}}, "greater than or equal to 1"),
        ({"model": {"kind": "lstm"}, "features": {"series": {"preset": None}}}, "lstm needs features.series"),
        ({"training": {"optimizer": {"kind": "adam", "momentum": 0.9}}}, "momentum does not belong"),
        ({"training": {"proximal_mu": 0.1}}, "fedprox needs proximal_mu above 0"),
        ({"training": {"algorithm": "fedprox"}}, "fedprox needs proximal_mu above 0"),
        ({"training": {"algorithm": "fedprox", "proximal_mu": -1.0}}, "greater than or equal to 0"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(sections, why):
    with pytest.raises(ValidationError, match=why):
        study_of(**sections)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_the_optimisers_and_fedprox_are_built(kind):
    study = study_of(training={"algorithm": "fedprox", "proximal_mu": 0.1, "optimizer": {"kind": kind}})
    assert Study.from_canonical(study.canonical()) == study
