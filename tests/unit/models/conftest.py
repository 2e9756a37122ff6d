import json

import pytest

from fedhealth.study.spec import Study


@pytest.fixture(scope="session")
def make_study():
    """A study of death with 8-6 hidden units; keyword arguments replace whole sections."""

    def make(**sections):
        document = {
            "schema_version": 1,
            "name": "tiny",
            "title": "A tiny study",
            "outcomes": {"death": {"kind": "death", "within": "stay"}},
            "prediction": {"at": "admission", "plus_h": 24},
            "model": {"kind": "mlp", "hidden": [8, 6], "dropout": [0.3]},
        }
        return Study.model_validate_json(json.dumps({**document, **sections}))

    return make


@pytest.fixture
def study(make_study):
    return make_study()
