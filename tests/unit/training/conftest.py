import json
from dataclasses import replace

import numpy as np
import pytest

from fedhealth.aggregation.statistics import decode_statistics, encode_statistics
from fedhealth.features.rows import Rows
from fedhealth.study.columns import SERIES, feature_columns
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of


@pytest.fixture(scope="session")
def make_study():
    """A study with 16-8 hidden units; keyword arguments replace whole sections."""

    def make(**sections):
        document = {
            "schema_version": 1,
            "name": "tiny",
            "title": "A tiny study",
            "outcomes": {"death": {"kind": "death", "within": "stay"}},
            "prediction": {"at": "admission", "plus_h": 24},
            "model": {"kind": "mlp", "hidden": [16, 8], "dropout": [0.3]},
            "training": {"rounds": 5, "local": {"epochs": 1}, "batch_size": 16},
            "privacy": {"mode": "local", "epsilon": 8.0},
        }
        return Study.model_validate_json(json.dumps({**document, **sections}))

    return make


@pytest.fixture(scope="session")
def make_rows(make_study):
    """Rows of so many patients, one to three each, whose outcome depends on the features."""
    columns = feature_columns(make_study())
    low, high = np.array([(c.low, c.high) for c in columns]).T

    def make(seed, patients):
        generator = np.random.default_rng(seed)
        counts = generator.integers(1, 4, patients)
        person = np.repeat(generator.integers(1, 2**60, patients), counts)
        unit = generator.random((len(person), len(columns)))
        flags = np.array([c.kind == "flag" for c in columns])
        unit = np.where(flags, unit < 0.3, unit)
        logits = 4.0 * (unit[:, ~flags][:, :10] - 0.5).sum(axis=1)
        labels = (generator.random(len(person)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
        features = (low + unit * (high - low)).astype(np.float32)
        features[(generator.random(features.shape) < 0.2) & ~flags] = np.nan
        return Rows(features=features, labels=labels[:, None], person=person, is_test=person % 10 < 3)

    return make


@pytest.fixture(scope="session")
def with_series():
    """The same rows with series of so many steps, whose heart rate rises with the first label."""

    def make(rows, *, seed=0, steps=8):
        generator = np.random.default_rng(seed)
        low, high = np.array([(each.clip_low, each.clip_high) for each in SERIES]).T
        shape = (len(rows), steps, len(SERIES))
        series = low + generator.random(shape) * (high - low)
        slope = np.where(rows.labels[:, :1] > 0.5, 8.0, -8.0) * np.arange(steps)
        series[:, :, 0] = np.clip(slope + generator.normal(90, 20, shape[:2]), 25, 215)
        late = np.arange(steps)[None, :] < generator.integers(0, steps // 2, len(rows))[:, None]
        series[late | (generator.random(shape[:2]) < 0.2)] = np.nan
        series[generator.random(shape) < 0.4] = np.nan
        return replace(rows, series=series.astype(np.float32))

    return make


@pytest.fixture(scope="session")
def make_statistics(make_study):
    columns, targets = feature_columns(make_study()), targets_of(make_study())

    def make(*sites):
        total = sum(
            encode_statistics(rows.features, rows.labels, rows.person, columns, targets) for rows in sites
        )
        return decode_statistics(total, columns, targets)[0]

    return make
