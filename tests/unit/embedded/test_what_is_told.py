"""What an embedded run tells its user: whose fault an end was, and what stands behind the figures."""

from types import SimpleNamespace

import pytest
from simulator.network import make_study

from fedhealth.embedded.launch import Launch
from fedhealth.embedded.study_report import _notes
from fedhealth.errors import DivergedError, PolicyError

TRAINING = {"rounds": 6, "local": {"epochs": 1}}


def test_a_run_that_sites_ended_says_what_they_said():
    def failed(run):
        raise PolicyError("only 0 of 3 sites answered", "bring the missing sites back")

    told = DivergedError("training diverged at this site", "lower training.optimizer.lr")
    launch = SimpleNamespace(coordinator=SimpleNamespace(result=failed), failures={"hospital-02": told})
    with pytest.raises(DivergedError) as caught:
        Launch._result_of(launch, "run-1")
    assert caught.value.problem == (
        "hospital-02: training diverged at this site (only 0 of 3 sites answered)"
    )
    assert caught.value.fix == told.fix
    launch.failures.clear()
    with pytest.raises(PolicyError, match="only 0 of 3 sites"):
        Launch._result_of(launch, "run-1")


@pytest.mark.parametrize(
    "training",
    [TRAINING | {"early_stopping": {"patience": 2}}, TRAINING | {"search": {"lr": [0.1, 0.3]}}],
    ids=["early stopping", "search"],
)
def test_a_choice_by_the_test_rows_is_noted(training):
    by_test = make_study(training=training, split={"validation": 0.0})
    assert any("chosen by figures of the test rows" in note for note in _notes(by_test))
    assert any("scored on the validation fold" in note for note in _notes(make_study(training=training)))
    assert not any("chosen" in note for note in _notes(make_study(training=TRAINING)))


def test_scaling_by_the_site_is_noted():
    study = make_study(features={"preset": "default-128", "standardise": "site"})
    assert any("scales by its own moments" in note for note in _notes(study))
