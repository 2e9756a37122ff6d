import json

import pytest

from fedhealth.study.spec import Study


@pytest.fixture
def study():
    return Study.model_validate_json(
        json.dumps(
            {
                "schema_version": 1,
                "name": "tiny",
                "title": "A tiny study",
                "outcomes": {"death": {"kind": "death", "within": "stay"}},
                "prediction": {"at": "admission", "plus_h": 24},
                "model": {"kind": "mlp", "hidden": [8, 6], "dropout": [0.3]},
            }
        )
    )
