import math

import pytest
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import RDPAccountant as OpacusAccountant

from fedhealth.privacy.accounting import dp_sgd_event, epsilon_spent, noise_multiplier_for
from fedhealth.privacy.buckets import bucket

SETTINGS = [
    {"delta": 1e-5, "sampling_probability": 0.125, "steps": 80},
    {"delta": 1e-6, "sampling_probability": 256 / 5000, "steps": 400},
    {"delta": 1e-5, "sampling_probability": 1.0, "steps": 10},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 6.4])
def test_calibrated_noise_spends_the_budget_to_one_percent_and_never_more(settings, epsilon):
    noise = noise_multiplier_for(epsilon=epsilon, **settings)
    spent = epsilon_spent(noise_multiplier=noise, **settings)
    assert 0.99 * epsilon <= spent <= epsilon


def test_known_examples_of_the_privacy_design():
    for epsilon, sigma in ((1.0, 4.75), (3.0, 1.90), (8.0, 1.03)):
        noise = noise_multiplier_for(epsilon=epsilon, **SETTINGS[1])
        assert noise == pytest.approx(sigma, rel=0.015)


@pytest.mark.parametrize("settings", SETTINGS)
def test_epsilon_agrees_with_an_independent_accountant(settings):
    other = OpacusAccountant()
    other.history = [(1.5, settings["sampling_probability"], settings["steps"])]
    theirs = other.get_epsilon(settings["delta"], alphas=list(range(2, 65)))
    assert epsilon_spent(noise_multiplier=1.5, **settings) == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("settings", SETTINGS)
def test_pld_is_tighter_than_rdp_but_not_by_a_factor(settings):
    rdp = epsilon_spent(noise_multiplier=1.5, **settings)
    pld = epsilon_spent(noise_multiplier=1.5, accountant="pld", **settings)
    assert 0.7 * rdp < pld <= rdp


def test_one_gaussian_without_sampling_is_bounded_by_its_closed_form():
    """The exact epsilon of one Gaussian sum (Balle and Wang 2018) lies below both, PLD within a percent."""
    sigma, delta = 2.0, 1e-5
    rdp, pld = (
        epsilon_spent(
            noise_multiplier=sigma, sampling_probability=1.0, steps=1, delta=delta, accountant=accountant
        )
        for accountant in ("rdp", "pld")
    )

    def phi(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    low, high = 0.0, 20.0
    while high - low > 1e-9:
        epsilon = (low + high) / 2
        reached = phi(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * phi(-0.5 / sigma - epsilon * sigma)
        low, high = (epsilon, high) if reached > delta else (low, epsilon)
    assert high <= pld <= 1.01 * high
    assert high <= rdp


def test_spending_nothing_costs_nothing_and_more_steps_cost_more():
    arguments = {"noise_multiplier": 1.2, "sampling_probability": 0.1, "delta": 1e-5}
    assert epsilon_spent(steps=0, **arguments) == 0.0
    spent = [epsilon_spent(steps=steps, **arguments) for steps in (1, 10, 100)]
    assert spent == sorted(spent)
    assert spent[0] > 0.0


def test_integer_orders_lose_little_against_all_orders():
    event = dp_sgd_event(noise_multiplier=1.2, sampling_probability=0.125, steps=80)
    all_orders = RdpAccountant([1 + x / 10 for x in range(6, 100)]).compose(event).get_epsilon(1e-5)
    ours = epsilon_spent(noise_multiplier=1.2, sampling_probability=0.125, steps=80, delta=1e-5)
    assert all_orders <= ours + 1e-9 <= 1.02 * all_orders


@pytest.mark.parametrize(
    "bad",
    [
        {"epsilon": 0.0},
        {"epsilon": math.inf},
        {"delta": 0.0},
        {"delta": 1.0},
        {"sampling_probability": 0.0},
        {"sampling_probability": 1.1},
        {"steps": 0},
    ],
)
def test_arguments_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        noise_multiplier_for(**{"epsilon": 1.0, **SETTINGS[0], **bad})


def test_buckets_round_down_to_half_powers_of_two():
    sizes = [math.floor(2 ** (k / 2) + 1e-9) for k in range(30)]
    for count in range(1, 5000):
        declared = bucket(count)
        assert declared == max(size for size in sizes if size <= count)
        assert bucket(declared) == declared
        assert min(1.0, 32 / declared) >= min(1.0, 32 / count)
    with pytest.raises(ValueError, match="at least one"):
        bucket(0)
