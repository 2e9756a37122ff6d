import numpy as np
import pytest

from fedhealth.models.series import CHANNELS, prepare_series
from fedhealth.study.columns import SERIES

NAN = np.nan
RATE = [each.name for each in SERIES].index("heart_rate")
LACTATE = [each.name for each in SERIES].index("lactate")


def empty(rows=1, steps=6):
    return np.full((rows, steps, len(SERIES)), NAN, dtype=np.float32)


def test_values_are_carried_on_scaled_and_clipped_to_their_bounds():
    series = empty()
    series[0, :, RATE] = [NAN, 105, NAN, 300, -np.inf, NAN]
    seen = prepare_series(series, step_h=1.0)
    assert seen.shape == (1, 6, CHANNELS)
    assert seen.dtype == np.float32
    feature = SERIES[RATE]
    top, bottom = ((each - feature.center) / feature.spread for each in (feature.clip_high, feature.clip_low))
    np.testing.assert_allclose(seen[0, :, RATE], [0, 1, 1, top, bottom, bottom], rtol=1e-6)


def test_masks_say_what_was_measured_and_times_how_long_ago():
    series = empty(steps=60)
    series[0, [1, 4], LACTATE] = 2.0
    seen = prepare_series(series, step_h=2.0)
    masks, since = seen[0, :, 20 + LACTATE], seen[0, :, 40 + LACTATE]
    np.testing.assert_array_equal(np.flatnonzero(masks), [1, 4])
    np.testing.assert_allclose(since[:7], [1, 0, 2 / 48, 4 / 48, 0, 2 / 48, 4 / 48], rtol=1e-6)
    assert since[4 + 24] == 1.0 == since[-1]


def test_what_was_never_measured_is_typical_and_as_old_as_can_be():
    seen = prepare_series(empty(), step_h=1.0)
    np.testing.assert_array_equal(seen[0, 0], np.repeat([0, 0, 1], 20))
    assert (seen == seen[:, :1]).all()


def test_no_step_sees_a_later_one_and_padding_changes_nothing():
    generator = np.random.default_rng(0)
    series = np.where(generator.random((5, 12, 20)) < 0.3, generator.uniform(0, 200, (5, 12, 20)), NAN)
    seen = prepare_series(series, step_h=1.0)
    for steps in (1, 5):
        np.testing.assert_array_equal(prepare_series(series[:, :steps], step_h=1.0), seen[:, :steps])
    padded = np.concatenate((np.full((5, 7, 20), NAN), series), axis=1)
    np.testing.assert_array_equal(prepare_series(padded, step_h=1.0)[:, 7:], seen)
    np.testing.assert_array_equal(prepare_series(series[[3]], step_h=1.0)[0], seen[3])
    assert np.isfinite(seen).all()


def test_other_shapes_are_refused_and_no_rows_are_none():
    for shape in ((3, 5), (3, 5, 19), (3, 0, 20), (3, 0, 0)):
        with pytest.raises(ValueError, match="are not steps"):
            prepare_series(np.zeros(shape, dtype=np.float32), step_h=1.0)
    assert prepare_series(np.zeros((0, 0, 0), dtype=np.float32), step_h=1.0).shape == (0, 1, CHANNELS)


def test_the_public_constants_are_within_the_public_bounds():
    for each in SERIES:
        assert each.clip_low < each.center < each.clip_high
        assert 0 < each.spread < each.clip_high - each.clip_low
