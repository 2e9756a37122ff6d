"""Profiles and drift: counts of people, alike sites agree, each kind of difference is found, one bad site spoils no other."""

import numpy as np
import pytest

from fedhealth.aggregation.profiles import Profile, profile_length, reference_of
from fedhealth.aggregation.quantities import QUANTITIES, Axis
from fedhealth.errors import DataError
from fedhealth.validation import drift_limits as limits
from fedhealth.validation.drift import find_drift, gap, median_ratio, median_shift, total_variation
from fedhealth.validation.profile import others, profile_cdm

BY_NAME = {each.name: each for each in QUANTITIES}
GLUCOSE, SEX, SODIUM = BY_NAME["value:glucose"], BY_NAME["sex"], BY_NAME["value:sodium"]


def histogram(axis, values):
    """What the SQL of an axis counts, one person per value."""
    scaled = np.log(values) if axis.is_log else np.asarray(values)
    place = np.clip(np.floor((scaled - axis.start) / axis.step) + 1, 0, axis.bins + 1).astype(int)
    return np.bincount(place, minlength=axis.bins + 2)


def site(seed, *, people=400, **changed):
    """A profile with glucose, sodium and sex alone; ``changed`` replaces counts of a quantity."""
    own = np.random.default_rng(seed)
    counts = {each.name: np.zeros(each.size, dtype=np.int64) for each in QUANTITIES}
    counts["value:glucose"] = histogram(GLUCOSE.axis, own.normal(122, 25, people).clip(40))
    counts["value:sodium"] = histogram(SODIUM.axis, own.normal(138, 3, people))
    counts["sex"] = np.bincount(own.integers(0, 2, people), minlength=3)
    counts |= changed
    return Profile(counts, {name: int(each.sum()) for name, each in counts.items()})


def found(sites, index=0):
    reference = reference_of(sum(each.to_vector() for each in sites))
    return {each.quantity: each for each in find_drift(sites[index], reference)}


def glucose(mean, sd=25.0, people=400):
    values = np.random.default_rng(9).normal(mean, sd, people)
    return {"value:glucose": histogram(GLUCOSE.axis, values.clip(0.1))}


def test_sites_of_one_population_find_nothing():
    sites = [site(seed) for seed in range(15)]
    assert all(not found(sites, index) for index in range(15))


def test_a_unit_that_is_wrong_by_a_factor_is_fatal_and_no_other_site_is_warned():
    sites = [site(0, **glucose(6.8, 1.4)), *(site(seed) for seed in range(1, 15))]
    drift = found(sites)["value:glucose"]
    assert (drift.kind, drift.severity, drift.code) == ("ratio", "fatal", "drift/measurement/value:glucose")
    assert all(not found(sites, index) for index in range(1, 15))


def test_a_shift_of_less_than_a_factor_warns():
    sites = [site(0, **glucose(175)), *(site(seed) for seed in range(1, 15))]
    drift = found(sites)["value:glucose"]
    assert drift.severity == "convention"
    assert drift.times > 1
    assert not found([site(0, **glucose(130)), *sites[1:]])


def test_one_sex_alone_warns():
    sites = [site(0, sex=np.array([400, 0, 0])), *(site(seed) for seed in range(1, 15))]
    assert found(sites)["sex"].kind in {"shares", "gap"}


def test_a_year_without_visits_warns_even_where_the_shares_are_near():
    even = np.full(13, 60)
    sites = [site(seed, visit_quarter=even) for seed in range(15)]
    assert not found(sites)
    hole = np.where(np.isin(np.arange(13), (4, 5, 6)), 0, even)
    drift = found([site(0, visit_quarter=hole), *sites[1:]])["visit_quarter"]
    assert (drift.kind, drift.table) == ("gap", "visit_occurrence")


def test_fewer_than_thirty_people_are_not_compared():
    few = limits.MIN_PEOPLE - 1
    sites = [site(0, people=few, **glucose(6.8, people=few)), *(site(seed) for seed in range(1, 15))]
    assert not found(sites)


def test_the_reference_hides_bins_of_fewer_than_eleven_people_and_a_site_takes_itself_away():
    total = np.full(profile_length(), 10)
    total[:2] = 11
    shown = np.concatenate([reference_of(total).counts[each.name] for each in QUANTITIES])
    assert shown[:2].tolist() == [11, 11]
    assert shown.sum() == 22
    one, two = site(1), site(2)
    rest = others(reference_of(one.to_vector() + two.to_vector()), one)
    where = one.counts["value:glucose"] + two.counts["value:glucose"] >= 11
    assert rest.counts["value:glucose"][where].tolist() == two.counts["value:glucose"][where].tolist()
    with pytest.raises(ValueError, match="no sum of profiles"):
        reference_of(np.zeros(3, dtype=np.int64))


def test_distances_are_what_they_say():
    axis = Axis(0, 100, 100)
    low, high = (histogram(axis, np.random.default_rng(0).normal(mean, 5, 50_000)) for mean in (40, 50))
    assert median_shift(low, high, axis) == pytest.approx(2, abs=0.1)
    assert median_ratio(low, high, axis) == pytest.approx(1.25, abs=0.02)
    assert total_variation(np.array([1, 1, 0]), np.array([0, 1, 1])) == pytest.approx(0.5)
    assert gap(np.array([500, 500, 2]), np.array([400, 400, 200])) == pytest.approx(0.2)


def test_what_the_sql_counts_is_people_in_the_bin_of_the_axis(tmp_path):
    import duckdb

    for axis in (GLUCOSE.axis, SODIUM.axis):
        values = [-5.0, 0.0, 0.5, 9.9, 90.0, 122.0, 139.9, 250.0, 5000.0]
        query = f"SELECT {axis.bin_of('v')} FROM (SELECT unnest(?::DOUBLE[]) AS v)"
        places = [row[0] for row in duckdb.execute(query, [values]).fetchall()]
        expected = [int(np.argmax(histogram(axis, [max(value, 1e-9)]))) for value in values]
        assert places == expected


def test_a_folder_that_is_no_cdm_is_an_error_without_its_values(tmp_path):
    with pytest.raises(DataError, match="cannot be profiled"):
        profile_cdm(tmp_path)
