import itertools

import numpy as np
import pytest

from fedhealth.synthetic.model import Hospital, make_hospital, make_patient, stays_of
from fedhealth.synthetic.observations import measure


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def drawn():
    """Stays of 6000 patients in 15 hospitals."""
    stays = []
    for index in range(15):
        own = generator(index)
        hospital = make_hospital(index, 400, own)
        for number in range(400):
            stays += stays_of(make_patient(number, hospital, own), hospital, own)
    return stays


def test_outcomes_are_as_frequent_as_the_probabilities_say(drawn):
    died = np.array([stay.died for stay in drawn])
    expected = np.array([stay.p_death for stay in drawn])
    assert abs(died.mean() - expected.mean()) < 4 * np.sqrt((expected * (1 - expected)).sum()) / len(drawn)
    alive = [stay for stay in drawn if not stay.died]
    again = np.array([stay.readmitted for stay in alive])
    expected = np.array([stay.p_readmission for stay in alive])
    assert abs(again.mean() - expected.mean()) < 4 * np.sqrt((expected * (1 - expected)).sum()) / len(alive)


def test_rates_are_those_of_general_hospitals(drawn):
    alive = [stay for stay in drawn if not stay.died]
    assert 0.02 < np.mean([stay.died for stay in drawn]) < 0.08
    assert 0.08 < np.mean([stay.readmitted for stay in alive]) < 0.20
    assert 0.04 < np.mean([stay.kidney_injury for stay in drawn]) < 0.15
    assert 48 < np.median([stay.hours for stay in drawn]) < 120


def test_severity_drives_every_outcome(drawn):
    severity = np.array([stay.severity for stay in drawn])
    sick, well = severity > np.quantile(severity, 0.8), severity < np.quantile(severity, 0.2)
    for outcome in ("died", "kidney_injury", "hours"):
        values = np.array([float(getattr(stay, outcome)) for stay in drawn])
        assert values[sick].mean() > 1.1 * values[well].mean()


def test_a_readmission_comes_within_thirty_days_and_nobody_returns_from_death(drawn):
    by_patient = {}
    for stay in drawn:
        by_patient.setdefault(id(stay.patient), []).append(stay)
    for stays in by_patient.values():
        for before, after in itertools.pairwise(stays):
            assert not before.died
            assert after.start_day > before.end_day
            assert before.readmitted == (after.start_day - before.end_day <= 30)


def test_the_first_day_does_not_tell_the_outcome(drawn):
    for stay in drawn[:500]:
        for hour in (0.0, 12.0, 24.0):
            assert stay.severity_at(hour) == stay.severity
        if stay.hours > 24:
            assert (stay.severity_at(stay.hours) > stay.severity) == (stay.died or stay.severity < 0)


def test_measurements_follow_severity_and_stay_within_their_limits(drawn):
    hospital = Hospital("hospital-01", 400, 0.0, 0.0, 0.0, 0.1, 4.0, 0.5)
    rates = {True: [], False: []}
    for stay in drawn[:800]:
        for each in measure(stay, hospital, generator(stay.number)):
            assert each.quantity.low <= each.value <= each.quantity.high
            assert 0 <= each.hour < stay.hours
            if each.quantity.name == "heart_rate" and each.hour < 24:
                rates[stay.severity > 0].append(each.value)
    assert np.mean(rates[True]) > np.mean(rates[False]) + 5


def test_hospitals_differ_in_size_and_case_mix():
    hospitals = [make_hospital(index, 400, generator(index)) for index in range(300)]
    sizes = np.log([hospital.patients for hospital in hospitals])
    assert min(hospital.patients for hospital in hospitals) >= 240
    assert 0.2 < sizes.std() < 0.35
    assert abs(np.mean(sizes) - np.log(400)) < 0.1
    assert len({round(hospital.frailty, 6) for hospital in hospitals}) == 300
