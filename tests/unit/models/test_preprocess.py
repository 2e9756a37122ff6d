"""Imputation, scaling and one-hot levels, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fedhealth.models.inputs import RawInputs
from fedhealth.models.networks import network_inputs
from fedhealth.models.preprocess import expand_levels, prepare, site_statistics, static_inputs
from fedhealth.models.statistics import Statistics
from fedhealth.study.columns import FeatureColumn, feature_columns
from fedhealth.study.spec import Study

COLUMNS = (FeatureColumn("a", 0, 10, "number"), FeatureColumn("b", 100, 200, "number"))
VOCABULARY = {"pain": ("urn:x|1", "urn:x|2", "urn:x|3"), "smoker": ("false", "true")}


def study_of(**features):
    document = {
        "schema_version": 1,
        "name": "tiny",
        "outcomes": {"readmission": {"kind": "readmission"}},
        "privacy": {"mode": "none", "legal_basis": "public data"},
        "features": {
            "preset": None,
            "statics": ["age", "sex"],
            "categories": [{"name": name, "codes": [f"urn:x|{name}"]} for name in VOCABULARY],
            **features,
        },
    }
    return Study.model_validate_json(json.dumps(document))


def statistics_of(mean, sd, median, vocabulary=None):
    arrays = (np.array(each, dtype=np.float32) for each in (mean, sd, median))
    return Statistics(*arrays, np.full(len(mean), 99.0), vocabulary or {})


def filled(impute, *, is_scaled):
    raw = np.array([[np.nan, np.nan], [4.0, 500.0]])
    statistics = statistics_of([2, 150], [4, 10], [3, 140])
    return prepare(raw, statistics, COLUMNS, impute=impute, is_scaled=is_scaled)


@pytest.mark.parametrize(("impute", "first"), [("median", [3, 140]), ("mean", [2, 150]), ("zero", [0, 0])])
def test_a_missing_value_becomes_the_median_the_mean_or_zero_in_raw_units(impute, first):
    np.testing.assert_array_equal(filled(impute, is_scaled=False), [first, [4, 200]])
    scaled = (np.array([first, [4, 200]]) - [2, 150]) / [4, 10]
    np.testing.assert_allclose(filled(impute, is_scaled=True), scaled, rtol=1e-6)


def test_levels_are_one_hot_over_the_consortiums_codes_as_scikit_learn_has_them():
    names = (("urn:x|0", "urn:x|2", "urn:x|3"), ("true",))
    levels = np.array([[0, 0], [1, -1], [2, 0], [-1, -1]], dtype=np.int32)
    rows = RawInputs(np.zeros((4, 2), dtype=np.float32), levels=levels, level_names=names)
    found = expand_levels(rows, statistics_of([0] * 7, [1] * 7, [0] * 7, VOCABULARY), study_of())
    words = [[names[at][level] if level >= 0 else "" for at, level in enumerate(row)] for row in levels]
    encoder = OneHotEncoder(
        categories=[list(codes) for codes in VOCABULARY.values()],
        handle_unknown="ignore",
        sparse_output=False,
    )
    np.testing.assert_array_equal(found[:, 2:], encoder.fit(words[:1]).transform(words))
    assert found.dtype == np.float32


def test_rows_without_levels_have_none_of_them():
    statistics = statistics_of([0] * 7, [1] * 7, [0] * 7, VOCABULARY)
    rows = RawInputs(np.ones((3, 2), dtype=np.float32))
    np.testing.assert_array_equal(expand_levels(rows, statistics, study_of())[:, 2:], np.zeros((3, 5)))
    empty = RawInputs(np.zeros((0, 2), np.float32), levels=np.zeros((0, 2), np.int32), level_names=((), ()))
    assert static_inputs(empty, statistics, study_of()).shape == (0, 7)


def test_levels_of_other_categories_are_refused():
    statistics = statistics_of([0] * 7, [1] * 7, [0] * 7, VOCABULARY)
    rows = RawInputs(
        np.ones((3, 2), dtype=np.float32), levels=np.zeros((3, 1), np.int32), level_names=(("a",),)
    )
    with pytest.raises(ValueError, match="do not fit"):
        static_inputs(rows, statistics, study_of())


@pytest.fixture
def site():
    """A site's rows, of which some lack a number and a level."""
    generator = np.random.default_rng(3)
    features = np.column_stack([generator.normal(60, 25, 50), generator.random(50) < 0.4]).astype(np.float32)
    features[:7, 0] = np.nan
    levels = generator.integers(-1, 2, (50, 2)).astype(np.int32)
    return RawInputs(features, levels=levels, level_names=(("urn:x|1", "urn:x|3"), ("false", "true")))


@pytest.fixture
def consortium():
    return statistics_of(
        [55, 0.5, 0.1, 0.2, 0.3, 0.4, 0.5], [20, 0.5, 1, 1, 1, 1, 1], [50, 1, 0, 0, 0, 0, 0], VOCABULARY
    )


def test_a_site_may_scale_by_its_own_training_rows_as_scikit_learn_does(site, consortium):
    study = study_of(standardise="site")
    own = site_statistics(site, consortium, study)
    raw = np.clip(
        expand_levels(site, consortium, study).astype(np.float64), [0, 0] + [0] * 5, [90, 1] + [1] * 5
    )
    scaler = StandardScaler().fit(raw)
    complete = ~np.isnan(raw).any(axis=1)
    expected = scaler.transform(raw)[complete]
    nobody = 3  # no row of this site has urn:x|2
    found = static_inputs(site, own, study)
    np.testing.assert_allclose(
        np.delete(found[complete], nobody, axis=1), np.delete(expected, nobody, axis=1), rtol=1e-4, atol=1e-5
    )
    assert not found[:, nobody].any()
    np.testing.assert_allclose(found[:7, 0], (50 - scaler.mean_[0]) / scaler.scale_[0], rtol=1e-4)
    np.testing.assert_array_equal(own.median, consortium.median)


def test_a_column_that_no_row_of_a_site_has_keeps_the_consortiums_scale(site, consortium):
    nothing = RawInputs(np.full((4, 2), np.nan, dtype=np.float32))
    own = site_statistics(nothing, consortium, study_of(standardise="site"))
    np.testing.assert_array_equal(own.mean[:2], consortium.mean[:2])
    np.testing.assert_array_equal(own.sd[:2], consortium.sd[:2])


@pytest.mark.parametrize("standardise", ["consortium", "none"])
def test_otherwise_a_site_has_no_numbers_of_its_own(site, consortium, standardise):
    study = study_of(standardise=standardise)
    assert site_statistics(site, consortium, study) is consortium
    (found,) = network_inputs(site, consortium, study)
    columns = feature_columns(study, VOCABULARY)
    raw = prepare(expand_levels(site, consortium, study), consortium, columns, is_scaled=False)
    expected = raw if standardise == "none" else (raw - consortium.mean) / consortium.sd
    np.testing.assert_allclose(found, expected, rtol=1e-6)
