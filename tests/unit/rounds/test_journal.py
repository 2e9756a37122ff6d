import pytest

from fedhealth.errors import ProtocolError
from fedhealth.rounds.journal import SiteJournal


@pytest.fixture
def journal(tmp_path):
    return SiteJournal(tmp_path)


def test_a_plan_opened_again_has_the_secrets_of_the_first_time(journal):
    drawn = journal.open_plan(run="r", counter=4, plan_digest="a", secrets=lambda: b"first")
    again = SiteJournal(journal.folder).open_plan(
        run="r", counter=4, plan_digest="a", secrets=lambda: b"second"
    )
    assert drawn == again == b"first"


def test_a_counter_is_answered_for_one_plan(journal):
    journal.open_plan(run="r", counter=4, plan_digest="a", secrets=lambda: b"s")
    with pytest.raises(ProtocolError, match="second sum under one counter"):
        journal.open_plan(run="r", counter=4, plan_digest="b", secrets=lambda: b"s")


def test_a_counter_never_goes_back(journal):
    journal.open_plan(run="r", counter=4, plan_digest="a", secrets=lambda: b"s")
    with pytest.raises(ProtocolError, match="rolled its counter back"):
        journal.open_plan(run="r", counter=3, plan_digest="b", secrets=lambda: b"s")
    journal.open_plan(run="another", counter=3, plan_digest="b", secrets=lambda: b"s")


@pytest.mark.parametrize("step", ["masked", "agree"])
def test_a_step_of_a_plan_is_said_once(journal, step):
    journal.say_once(run="r", plan_digest="a", step=step, statement=b"one")
    journal.say_once(run="r", plan_digest="a", step=step, statement=b"one")
    with pytest.raises(ProtocolError, match=f"{step} message changed"):
        SiteJournal(journal.folder).say_once(run="r", plan_digest="a", step=step, statement=b"two")
    journal.say_once(run="r", plan_digest="b", step=step, statement=b"two")
