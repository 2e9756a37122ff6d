import pytest

from fedhealth.errors import ConfigError
from fedhealth.privacy.accounting import epsilon_spent
from fedhealth.training.plan import local_seed, plan_local

NONE = {"mode": "none", "legal_basis": "public"}


@pytest.mark.parametrize("patients", [5, 16, 100, 700])
@pytest.mark.parametrize("local", [{"epochs": 2}, {"steps": 7}])
def test_the_whole_study_spends_the_training_share_and_no_more(make_study, patients, local):
    study = make_study(training={"rounds": 4, "local": local, "batch_size": 16})
    plan = plan_local(study, declared_patients=patients)
    spent = epsilon_spent(
        noise_multiplier=plan.noise_multiplier,
        sampling_probability=plan.sampling_probability,
        steps=4 * plan.steps,
        delta=study.privacy.delta,
    )
    assert 0.99 * 6.4 <= spent <= 6.4


@pytest.mark.parametrize("patients", [1, 5, 16, 17, 100, 500, 725])
def test_sampling_never_understates(make_study, patients):
    plan = plan_local(make_study(), declared_patients=patients)
    assert plan.sampling_probability >= min(1.0, 16 / patients)
    assert plan.sampling_probability <= 1.0
    assert plan.expected_batch_size <= 16


def test_sizes_of_one_bucket_have_one_plan(make_study):
    study = make_study()
    assert plan_local(study, declared_patients=362) == plan_local(study, declared_patients=511)
    assert plan_local(study, declared_patients=362) != plan_local(study, declared_patients=361)


def test_an_epoch_is_one_expected_pass_over_the_bucket(make_study):
    plan = plan_local(make_study(), declared_patients=300)
    assert plan.sampling_probability == 16 / 256
    assert plan.steps == 16


def test_without_privacy_there_is_no_noise_and_no_bucket(make_study):
    plan = plan_local(make_study(privacy=NONE), declared_patients=300)
    assert plan.noise_multiplier is None
    assert plan.sampling_probability == 16 / 300


@pytest.mark.parametrize("privacy", [{"epsilon": 1e-6}, {"shares": {"training": 1e-9}}])
def test_a_budget_for_which_no_noise_is_enough_is_a_clear_error(make_study, privacy):
    with pytest.raises(ConfigError, match="no noise is enough"):
        plan_local(make_study(privacy=privacy), declared_patients=300)


def test_no_patients_cannot_be_planned(make_study):
    with pytest.raises(ValueError, match="at least one"):
        plan_local(make_study(), declared_patients=0)


def test_seeds_differ_by_run_site_and_round():
    seeds = {
        local_seed(seed, site=site, number=number)
        for seed in (0, 1)
        for site in ("a", "b")
        for number in (1, 11)
    }
    assert len(seeds) == 8
    assert local_seed(0, site="a", number=1) == local_seed(0, site="a", number=1)
