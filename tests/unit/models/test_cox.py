"""Cox regression against scipy on the same partial likelihood, against known coefficients, and at its edges."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from simulator.stepwise import SURVIVAL, columns_of, opened_round, part, rows_of, study_of, train

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.models import weights as w
from fedhealth.models.stepwise import MAX_ROWS, MAX_SITES, cox
from fedhealth.models.stepwise.rows import PERSON

EFFECTS = np.array([0.6, -0.4, 0.0, 0.25, 0.1])


def simulate(inputs, effects, *, hazard=0.03, lost=0.02, seed=0):
    """Labels 2 * interval + event of people with proportional hazards, some lost to follow-up."""
    generator = np.random.default_rng(seed)
    labels = np.full(len(inputs), 24.0)
    present = np.ones(len(inputs), dtype=bool)
    for interval in range(12):
        has_event = present & (generator.random(len(inputs)) < -np.expm1(-hazard * np.exp(inputs @ effects)))
        labels[has_event] = 2 * interval + 1
        present &= ~has_event
        leaves = present & (generator.random(len(inputs)) < lost)
        labels[leaves] = 2 * interval
        present &= ~leaves
    return labels


def a_cohort(*, rows=3000, effects=EFFECTS, seed=0, **times):
    inputs = np.random.default_rng(seed).normal(size=(rows, len(effects))).astype(np.float32)
    return rows_of(inputs, simulate(inputs, effects, seed=seed + 1, **times))


def sites_of(rows, count=3):
    return [part(rows, slice(k, None, count)) for k in range(count)]


def penalised_likelihood(beta, rows, group, ridge):
    """Minus the Breslow likelihood and its gradient, each event against everybody at risk, in a plain loop."""
    inputs = rows.inputs.astype(np.float64)
    interval, event = rows.labels // 2, rows.labels % 2 > 0
    value, slope = -ridge / 2 * beta @ beta, -ridge * beta
    for which in np.unique(group):
        members = np.flatnonzero(group == which)
        at_risk = sum(((interval > j) | ((interval == j) & event)).astype(float) for j in members)
        cases = np.flatnonzero(event & np.isin(interval, members))
        risk = at_risk * np.exp(inputs @ beta)
        mean = risk @ inputs / risk.sum()
        for case in cases:
            value += inputs[case] @ beta - math.log(risk.sum())
            slope = slope + inputs[case] - mean
    return -value, -slope


def fit_by_scipy(rows, group, ridge):
    start = np.zeros(rows.inputs.shape[1])
    found = minimize(
        penalised_likelihood,
        start,
        args=(rows, group, ridge),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-4},
    )
    assert np.abs(found.jac).max() < 1e-2  # of a slope that is summed over hundreds of events
    return found.x


@pytest.mark.parametrize("ridge", [0.01, 1.0, 50.0])
def test_coefficients_are_those_of_scipy_on_the_same_likelihood(ridge):
    rows = a_cohort(rows=1500)
    study, columns = study_of("cox", SURVIVAL, rounds=8, ridge=ridge), columns_of(5)
    model = train(sites_of(rows), columns=columns, study=study)[-1]
    expected = fit_by_scipy(rows, model["group"], ridge)
    np.testing.assert_allclose(model["coefficients"], expected, atol=2e-5)
    assert np.abs(expected).max() > 0.2


def test_coefficients_are_those_of_scipy_where_intervals_are_joined():
    rows = a_cohort(rows=800, hazard=0.004)
    study, columns = study_of("cox", SURVIVAL, rounds=8), columns_of(5)
    model = train(sites_of(rows), columns=columns, study=study)[-1]
    assert 1 < len(np.unique(model["group"])) < 12
    np.testing.assert_allclose(model["coefficients"], fit_by_scipy(rows, model["group"], 1.0), atol=2e-5)


def test_known_coefficients_are_recovered():
    rows = a_cohort(rows=20_000)
    study, columns = study_of("cox", SURVIVAL, rounds=7, ridge=0.1), columns_of(5)
    model = train(sites_of(rows), columns=columns, study=study)[-1]
    events = int((rows.labels % 2).sum())
    standard_error = 1 / math.sqrt(events)  # of a standardised input
    np.testing.assert_allclose(model["coefficients"], EFFECTS, atol=4 * standard_error)
    assert float(model["baseline"].mean()) == pytest.approx(0.03, rel=0.05)
    assert standard_error < 0.02


def concordance(risk, labels):
    """Harrell's C over intervals, pair by pair."""
    interval, event = labels // 2, labels % 2 > 0
    right, pairs = 0.0, 0
    for case in np.flatnonzero(event):
        later = interval > interval[case]
        right += (risk[case] > risk[later]).sum() + 0.5 * (risk[case] == risk[later]).sum()
        pairs += later.sum()
    return right / pairs


def test_it_ranks_unseen_people_as_their_true_risks_do():
    rows, unseen = a_cohort(rows=3000), a_cohort(rows=3000, seed=10)
    study, columns = study_of("cox", SURVIVAL, rounds=7), columns_of(5)
    model = train(sites_of(rows), columns=columns, study=study)[-1]
    hazards = cox.score(model, unseen.inputs, columns=columns, study=study)
    ours = concordance(1 - np.prod(1 - hazards.astype(np.float64), axis=1), unseen.labels)
    assert ours == pytest.approx(concordance(unseen.inputs @ EFFECTS, unseen.labels), abs=0.005)
    assert ours > 0.65


def test_hazards_add_up_to_the_events_that_happened():
    rows = a_cohort()
    study, columns = study_of("cox", SURVIVAL, rounds=7), columns_of(5)
    model = train(sites_of(rows), columns=columns, study=study)[-1]
    hazards = cox.score(model, rows.inputs, columns=columns, study=study)
    assert hazards.shape == (3000, 12)
    assert hazards.dtype == np.float32
    interval, event = rows.labels // 2, rows.labels % 2 > 0
    for j in range(12):
        has_event = event & (interval == j)
        expected = -np.log1p(-hazards[(interval > j) | has_event, j].astype(np.float64))
        assert expected.sum() == pytest.approx(has_event.sum(), rel=1e-4)


def test_coefficients_stay_in_the_last_round():
    study, columns = study_of("cox", SURVIVAL, rounds=4), columns_of(5)
    models = train(sites_of(a_cohort()), columns=columns, study=study)
    assert not models[1]["coefficients"].any()
    assert (models[3]["coefficients"] != models[2]["coefficients"]).all()
    np.testing.assert_array_equal(models[4]["coefficients"], models[3]["coefficients"])
    np.testing.assert_allclose(models[4]["baseline"], models[3]["baseline"], rtol=0.02)


def grouped(events_by_interval, *, rows_per_person):
    """The groups that so many people with an event make, beside 100 without; some have other rows as well."""
    intervals = np.repeat(np.arange(12), events_by_interval)
    labels = np.r_[np.repeat(2 * intervals + 1, rows_per_person), np.full(100, 24)]
    person = np.r_[np.repeat(np.arange(len(intervals)), rows_per_person), np.arange(100)]
    rows = rows_of(np.zeros((len(labels), 1)), labels, person)
    study, columns = study_of("cox", SURVIVAL, rounds=3), columns_of(1)
    model = cox.initial_model(study, columns)
    opened = opened_round(model, [rows], columns=columns, study=study)
    assert not opened[0][12:].any()
    assert not opened[1].any()
    after = cox.next_model(model, opened, columns=columns, study=study, number=1)
    return after["group"].astype(int).tolist()


@pytest.mark.parametrize("rows_per_person", [1, 3])
def test_intervals_are_joined_until_each_group_has_enough_people_with_events(rows_per_person):
    def groups(events):
        return grouped(events, rows_per_person=rows_per_person)

    assert groups([11] * 12) == list(range(12))
    assert groups([10] * 12) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert groups([11, 0, 0, 11, 30, 5, 5, 5, 0, 0, 0, 10]) == [0, 1, 1, 1, 2] + [3] * 7
    assert groups([11] + [0] * 11) == [0] * 12
    with pytest.raises(PolicyError):
        groups([5, 5] + [0] * 10)


def test_nothing_is_told_where_all_but_ten_people_with_an_event_were_lost():
    rows = a_cohort(rows=400, hazard=0.01)
    study, columns = study_of("cox", SURVIVAL, rounds=3), columns_of(5)
    model = train([rows], columns=columns, study=study)[1]
    events = np.flatnonzero(rows.labels % 2)
    for kept, is_told in ((10, False), (11, True)):
        left = part(rows, np.r_[np.flatnonzero(rows.labels % 2 == 0), events[:kept]])
        slopes = cox.encode_step(model, (), left, columns=columns, study=study)
        if is_told:
            curvature = cox.encode_step(model, [slopes], left, columns=columns, study=study)
            after = cox.next_model(model, [slopes, curvature], columns=columns, study=study, number=2)
            assert not after["baseline"].any()  # each group has fewer than 11 of them
        else:
            with pytest.raises(PolicyError):
                cox.encode_step(model, [slopes], left, columns=columns, study=study)


def hard_inputs(name):
    generator = np.random.default_rng(7)
    if name == "rare flags":
        flags = generator.random((6000, 3)) < [0.002, 0.005, 0.5]
        return flags.astype(np.float64), np.array([4.0, 3.0, 0.5]), 0.003
    if name == "many flags":
        flags = generator.random((2500, 80)) < 0.02
        return flags.astype(np.float64), np.full(80, 1.5), 0.004
    if name == "collinear":
        shared = generator.normal(size=(4000, 1))
        return shared + 0.05 * generator.normal(size=(4000, 8)), generator.normal(size=8) * 0.3, 0.03
    if name == "strong":
        return generator.normal(size=(6000, 6)), generator.normal(size=6) * 1.5, 0.001
    return generator.standard_t(2, size=(4000, 4)), np.array([0.2, -0.1, 0.2, 0.1]), 0.03


@pytest.mark.parametrize(
    ("name", "rounds"),
    [("rare flags", 9), ("many flags", 6), ("collinear", 6), ("strong", 8), ("heavy tails", 8)],
)
def test_newton_steps_settle_on_hard_inputs(name, rounds):
    inputs, effects, hazard = hard_inputs(name)
    standardised = np.clip((inputs - inputs.mean(axis=0)) / inputs.std(axis=0), -8, 8)
    labels = simulate(inputs - inputs.mean(axis=0), effects, hazard=hazard)
    rows, columns = rows_of(standardised, labels), columns_of(len(effects))
    study = study_of("cox", SURVIVAL, rounds=rounds, ridge=0.05)
    model = train(sites_of(rows), columns=columns, study=study)[-1]
    _, slope = penalised_likelihood(model["coefficients"].astype(np.float64), rows, model["group"], 0.05)
    assert np.abs(slope).max() < 0.05
    assert np.abs(model["coefficients"]).max() > 0.25


def test_separable_people_do_not_drive_coefficients_away():
    inputs = np.random.default_rng(8).normal(size=(3000, 3))
    labels = np.where(inputs[:, 0] > 2, 2 * (np.arange(3000) % 12) + 1, 24)
    study, columns = study_of("cox", SURVIVAL, rounds=25, ridge=0.001), columns_of(3)
    models = train([rows_of(inputs, labels)], columns=columns, study=study)
    largest = [float(np.abs(model["coefficients"]).max()) for model in models]
    assert 2 < largest[-1] < 6
    assert max(largest) < 6
    assert all(abs(after - before) <= 0.5 + 1e-6 for before, after in itertools.pairwise(largest))


def test_values_far_out_are_cut():
    rows = a_cohort()
    wild = rows_of(np.where(np.arange(3000)[:, None] < 5, 1e6, rows.inputs), rows.labels)
    cut = rows_of(np.where(np.arange(3000)[:, None] < 5, 8.0, rows.inputs), rows.labels)
    study, columns = study_of("cox", SURVIVAL, rounds=4), columns_of(5)
    first, second = (train([each], columns=columns, study=study)[-1] for each in (wild, cut))
    assert w.digest(first) == w.digest(second)
    steep = {**first, "coefficients": np.full(5, 1e6, dtype=np.float32)}
    hazards = cox.score(steep, wild.inputs, columns=columns, study=study)
    assert ((hazards >= 0) & (hazards <= 1)).all()


def test_rows_of_unknown_label_and_sites_without_rows_count_nowhere():
    rows = a_cohort(rows=600)
    study, columns = study_of("cox", SURVIVAL, rounds=3), columns_of(5)
    nobody = part(rows, slice(0, 0))
    mixed = rows_of(
        np.r_[rows.inputs[:30], rows.inputs],
        np.r_[np.full(30, np.nan), rows.labels],
        np.r_[rows.person[:30], rows.person],
    )
    expected = train([rows], columns=columns, study=study)
    assert w.digest(train([mixed, nobody], columns=columns, study=study)[-1]) == w.digest(expected[-1])
    assert not cox.encode_step(expected[1], (), nobody, columns=columns, study=study).any()


def test_a_site_that_vanishes_within_every_round_does_not_change_where_the_steps_lead():
    rows = a_cohort(rows=1500)
    sites, columns = sites_of(rows, 5), columns_of(5)
    study = study_of("cox", SURVIVAL, rounds=12)
    model = cox.initial_model(study, columns)
    for number in range(1, 13):
        opened = []
        for step in range(2):
            present = sites if step == 0 else sites[:-1]
            vectors = [cox.encode_step(model, opened, each, columns=columns, study=study) for each in present]
            opened.append(sum(vectors))
        model = cox.next_model(model, opened, columns=columns, study=study, number=number)
    whole = train(sites, columns=columns, study=study)[-1]
    np.testing.assert_allclose(model["coefficients"], whole["coefficients"], atol=1e-5)


def test_sums_that_no_rows_can_have_are_refused():
    study, columns = study_of("cox", SURVIVAL, rounds=3), columns_of(5)
    sites = [a_cohort(rows=500)]
    model = train(sites, columns=columns, study=study)[1]
    slopes, curvature = opened_round(model, sites, columns=columns, study=study)
    of_nobody, negative = slopes.copy(), slopes.copy()
    of_nobody[12] = 0
    negative[0] = -1
    for opened in ([of_nobody, curvature], [negative, curvature], [slopes, -curvature]):
        with pytest.raises(ProtocolError):
            cox.next_model(model, opened, columns=columns, study=study, number=2)
    untrained = cox.initial_model(study, columns)
    with pytest.raises(ProtocolError):
        cox.next_model(untrained, [negative, curvature], columns=columns, study=study, number=1)
    for opened in ([slopes], [slopes[:-1], curvature], [slopes, curvature[:-1]]):
        with pytest.raises(ValueError, match="sum"):
            cox.next_model(model, opened, columns=columns, study=study, number=2)
    with pytest.raises(ValueError, match="sum"):
        cox.next_model(untrained, [slopes[:-1], curvature], columns=columns, study=study, number=1)


def test_neither_a_site_nor_the_ring_overflows():
    riskiest = 12 * math.exp(cox.RISK_LIMIT) * cox.INPUT_LIMIT * cox.SCALE + 12 * 0.5
    root = math.sqrt(cox.WEIGHT_LIMIT) * 2 * cox.INPUT_LIMIT * cox.ROOT_SCALE
    assert MAX_SITES * MAX_ROWS * riskiest < 2**63
    assert MAX_SITES * MAX_ROWS * 12 * root**2 < 2**63
    assert MAX_ROWS * root**2 < 2**53
    assert MAX_SITES * MAX_ROWS * PERSON < 2**63


def test_a_row_at_every_limit_stays_within_its_bound():
    study, columns = study_of("cox", SURVIVAL, rounds=5), columns_of(2)
    model = {
        "baseline": np.zeros(12, dtype=np.float32),
        "coefficients": np.array([cox.RISK_LIMIT / cox.INPUT_LIMIT - 1e-6, 0.0], dtype=np.float32),
        "group": np.zeros(12, dtype=np.float32),
    }
    rows = rows_of([[8.0, 8.0]] * 20, [23.0] * 20)
    slopes = cox.encode_step(model, (), rows, columns=columns, study=study)
    bound = 12 * math.exp(cox.RISK_LIMIT) * cox.INPUT_LIMIT * cox.SCALE
    assert 0.99 * 20 * bound < np.abs(slopes).max() <= 20 * bound
    far = rows_of([[-8.0, -8.0]] * 20, [23.0] * 20)
    apart = slopes + cox.encode_step(model, (), far, columns=columns, study=study)
    curvature = cox.encode_step(model, [apart], rows, columns=columns, study=study)
    assert 0 <= curvature[0] <= 20 * cox.WEIGHT_LIMIT * (2 * cox.INPUT_LIMIT * cox.ROOT_SCALE) ** 2


def test_a_score_depends_on_its_row_alone_and_survives_the_bytes():
    rows = a_cohort()
    study, columns = study_of("cox", SURVIVAL, rounds=4), columns_of(5)
    models = train([rows], columns=columns, study=study)
    assert {name: array.shape for name, array in models[0].items()} == {
        name: array.shape for name, array in models[-1].items()
    }
    model = w.from_bytes(w.to_bytes(models[-1]))
    together = cox.score(model, rows.inputs, columns=columns, study=study)
    alone = [cox.score(model, row[None], columns=columns, study=study)[0] for row in rows.inputs[:20]]
    np.testing.assert_array_equal(together[:20], alone)


def test_bytes_per_round_are_those_of_the_page():
    study, columns = study_of("cox", SURVIVAL, rounds=3), columns_of(128)
    assert [8 * cox.step_length(study, columns, step=step) for step in range(2)] == [13_504, 66_048]
