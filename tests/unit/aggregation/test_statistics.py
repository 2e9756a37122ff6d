import numpy as np
import pytest

from fedhealth.aggregation.statistics import (
    BINS,
    LabelCounts,
    absent_columns,
    decode_statistics,
    encode_statistics,
    missing_columns,
    statistics_length,
    with_levels,
)
from fedhealth.aggregation.vocabulary import LevelCounts
from fedhealth.models.preprocess import prepare
from fedhealth.study.columns import FeatureColumn
from fedhealth.study.targets import Target

TARGETS = (Target("readmission", "binary"),)

COLUMNS = (
    FeatureColumn(name="creatinine", low=0.1, high=30.0, kind="number"),
    FeatureColumn(name="heart_rate", low=20.0, high=250.0, kind="number"),
    FeatureColumn(name="temperature", low=-40.0, high=45.0, kind="number"),
    FeatureColumn(name="constant", low=0.0, high=100.0, kind="number"),
    FeatureColumn(name="nobody_has_it", low=10.0, high=20.0, kind="number"),
    FeatureColumn(name="diabetes", low=0.0, high=1.0, kind="flag"),
)


def rows(seed, size):
    generator = np.random.default_rng(seed)
    features = np.column_stack(
        [
            generator.lognormal(0.1, 0.6, size),
            generator.normal(85, 40, size),
            generator.normal(36.8, 0.6, size),
            np.full(size, 7.0),
            np.full(size, np.nan),
            generator.random(size) < 0.3,
        ]
    ).astype(np.float32)
    features[generator.random(size) < 0.4, 0] = np.nan
    return features, (generator.random(size) < 0.25).astype(np.float32)


def encode(features, labels):
    """Every row another patient's."""
    return encode_statistics(features, labels[:, None], np.arange(len(labels)), COLUMNS, TARGETS)


@pytest.fixture(scope="module")
def sites():
    return [rows(seed, size) for seed, size in enumerate((400, 35, 1, 0, 900))]


@pytest.fixture(scope="module")
def decoded(sites):
    total = sum(encode(features, labels) for features, labels in sites)
    return decode_statistics(total, COLUMNS, TARGETS)


@pytest.fixture(scope="module")
def pooled(sites):
    low, high = np.array([(c.low, c.high) for c in COLUMNS]).T
    return np.clip(np.concatenate([features for features, _ in sites]).astype(np.float64), low, high)


def test_summed_moments_equal_pooled_moments_to_the_quantisation(decoded, pooled, sites):
    statistics, _ = decoded
    for index, column in enumerate(COLUMNS):
        if column.name in ("constant", "nobody_has_it"):
            continue
        step = len(sites) * 2.0**-21 * (column.high - column.low)
        values = pooled[:, index]
        float32 = 1e-6 * abs(column.high)
        assert abs(statistics.mean[index] - np.nanmean(values)) <= step + float32
        assert statistics.sd[index] == pytest.approx(np.nanstd(values), rel=1e-3)
        assert statistics.count[index] == np.isfinite(values).sum()


def test_summed_medians_are_within_one_bin_of_the_pooled_median(decoded, pooled):
    for index, column in enumerate(COLUMNS[:3]):
        width = (column.high - column.low) / BINS
        assert abs(decoded[0].median[index] - np.nanmedian(pooled[:, index])) <= width


def test_a_flags_median_is_a_flag(decoded):
    assert decoded[0].median[5] == 0.0


def test_classes_are_counted(decoded, sites):
    labels = np.concatenate([labels for _, labels in sites])
    assert decoded[1] == (LabelCounts(len(labels), ((1 - labels).sum(), labels.sum())),)


ALL_KINDS = (
    Target("death", "binary"),
    Target("disposition", "classes", outputs=3, classes=("home", "facility", "died")),
    Target("stay", "number", high=30.0),
    Target("survival", "hazard", outputs=12),
)


def test_the_labels_of_every_target_are_counted_by_people_and_class():
    nan = np.nan
    labels = np.array([[1, 0, 3.5, 2 * 4 + 1], [nan, 2, nan, 2 * 7], [0, 2, 1.0, 0], [0, nan, 2.0, nan]])
    person = np.array([5, 5, 5, 9])
    features = np.zeros((4, len(COLUMNS)))
    vector = encode_statistics(features, labels, person, COLUMNS, ALL_KINDS)
    assert len(vector) == statistics_length(COLUMNS, ALL_KINDS)
    _, found = decode_statistics(2 * vector, COLUMNS, ALL_KINDS)
    assert found == (
        LabelCounts(4, (4, 2)),
        LabelCounts(2, (2, 0, 4)),
        LabelCounts(4, ()),
        LabelCounts(2, (4, 2)),
    )


@pytest.mark.parametrize(
    ("rows", "answer"),
    [((3, 0), True), ((0, 3), True), ((0, 0), True), ((1, 1), False), ((0, 4, 2), False), ((), False)],
)
def test_one_class_is_nothing_to_learn(rows, answer):
    assert LabelCounts(9, rows).has_one_class is answer


def test_a_column_that_nobody_has_is_named_and_harmless(decoded):
    statistics, _ = decoded
    assert missing_columns(statistics, COLUMNS) == ("nobody_has_it",)
    prepared = prepare(np.full((2, len(COLUMNS)), np.nan), statistics, COLUMNS)
    assert not prepared[:, 4].any()


def values_of(people, *, rows_each, value):
    """Forty people, of whom some have a value of the first column, in several rows, and the flag."""
    person = np.repeat(np.arange(40), rows_each)
    features = np.full((len(person), len(COLUMNS)), np.nan, dtype=np.float32)
    features[:, 5] = person < people
    features[person < people, 0] = value
    return encode_statistics(features, np.zeros((len(person), 1)), person, COLUMNS, TARGETS)


@pytest.mark.parametrize(("people", "told"), [(1, False), (10, False), (11, True), (29, True)])
def test_what_fewer_than_eleven_people_have_is_not_told(people, told):
    statistics, _ = decode_statistics(values_of(people, rows_each=12, value=13.37), COLUMNS, TARGETS)
    assert (statistics.mean[0] == pytest.approx(13.37, abs=1e-4)) == told
    assert (abs(statistics.median[0] - 13.37) < 0.5) == told
    assert statistics.count[0] == (12 * people if told else 0)
    assert ("creatinine" not in missing_columns(statistics, COLUMNS)) is told
    assert (statistics.mean[5] > 0) == told
    assert statistics.sd[0] > 0


def test_a_flag_that_fewer_than_eleven_people_lack_is_not_told():
    statistics, _ = decode_statistics(values_of(30, rows_each=1, value=1.0), COLUMNS, TARGETS)
    assert "diabetes" in missing_columns(statistics, COLUMNS)
    assert "diabetes" not in absent_columns(values_of(40, rows_each=1, value=1.0), COLUMNS)


@pytest.mark.parametrize(("people", "is_absent"), [(0, True), (10, True), (11, False), (40, False)])
def test_a_column_that_too_few_people_have_is_absent(people, is_absent):
    absent = absent_columns(values_of(people, rows_each=3, value=2.0), COLUMNS)
    assert ("creatinine" in absent) is is_absent
    assert ("diabetes" in absent) is is_absent


COUNTED = (
    FeatureColumn("tests_count", 0, 50, "number", empty=0),
    FeatureColumn("tests_time_since", 0, 48, "number", empty=48),
    FeatureColumn("tests_missing", 0, 1, "flag", empty=1),
)


@pytest.mark.parametrize(("people", "told"), [(0, False), (10, False), (11, True)])
def test_a_number_that_is_never_missing_tells_nothing_of_few_people_either(people, told):
    has = np.arange(40) < people
    features = np.where(has[:, None], [3.0, 5.0, 0.0], [0.0, 48.0, 1.0])
    vector = encode_statistics(features, np.zeros((40, 1)), np.arange(40), COUNTED, TARGETS)
    statistics, _ = decode_statistics(vector, COUNTED, TARGETS)
    expected = features.mean(axis=0) if told else [0.0, 48.0, 0.0]
    np.testing.assert_allclose(statistics.mean, expected, atol=1e-4)
    assert (absent_columns(vector, COUNTED) == ()) is told
    if not told:
        assert set(statistics.count) == {0.0}
        without = prepare(np.array([[0.0, 48.0]]), _first(statistics, 2), COUNTED[:2])
        np.testing.assert_array_equal(without, [[0.0, 0.0]])


def _first(statistics, size):
    names = ("mean", "sd", "median", "count")
    return type(statistics)(**{name: getattr(statistics, name)[:size] for name in names})


def test_levels_get_the_statistics_of_the_flags_that_they_are():
    vocabulary = {"pain": ("a", "b", "c"), "smoker": ("true",)}
    counts = LevelCounts(rows=200, levels={"pain": (50, None, 120), "smoker": (200,)})
    numbers, _ = decode_statistics(values_of(30, rows_each=1, value=1.0), COLUMNS, TARGETS)
    statistics = with_levels(numbers, vocabulary, counts)
    flags = np.zeros((200, 2))
    flags[:50, 0], flags[50:170, 1] = 1.0, 1.0
    size = len(COLUMNS)
    np.testing.assert_array_equal(statistics.mean[:size], numbers.mean)
    np.testing.assert_allclose(statistics.mean[size:], [flags[:, 0].mean(), 0.0, flags[:, 1].mean(), 1.0])
    np.testing.assert_allclose(statistics.sd[size:], [flags[:, 0].std(), 1.0, flags[:, 1].std(), 1.0])
    assert statistics.median[size:].tolist() == [0, 0, 1, 1]
    assert statistics.count[size:].tolist() == [200, 0, 200, 200]
    assert {array.dtype for array in (statistics.mean, statistics.sd)} == {np.dtype(np.float32)}
    assert type(statistics).from_bytes(statistics.to_bytes()).vocabulary == vocabulary


def test_a_constant_column_has_sd_one(decoded):
    assert decoded[0].sd[3] == 1.0
    assert decoded[0].mean[3] == pytest.approx(7.0, abs=1e-4)


def test_values_beyond_the_public_bounds_are_clipped_so_one_row_moves_an_entry_by_at_most_one_unit():
    wild = np.array([[1e9, -1e9, np.inf, -np.inf, 12.0, 1.0]], dtype=np.float32)
    vector = encode(wild, np.ones(1, dtype=np.float32))
    size = len(COLUMNS)
    assert vector.min() >= 0
    assert vector[:size].max() == 1
    assert vector[size : 3 * size].max() == 2**20
    assert vector[3 * size :].max() == 1


def test_no_rows_give_zeros_of_the_right_length():
    vector = encode(np.zeros((0, 6), dtype=np.float32), np.zeros(0))
    assert vector.shape == (statistics_length(COLUMNS, TARGETS),)
    assert not vector.any()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        encode(np.zeros((3, 5)), np.zeros(3))
    with pytest.raises(ValueError, match="does not fit"):
        decode_statistics(np.zeros(9, dtype=np.int64), COLUMNS, TARGETS)
