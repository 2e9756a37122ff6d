import pytest

from fedhealth.errors import ProtocolError
from fedhealth.rounds.journal import SiteJournal, write_durably


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


def test_one_list_of_a_phase_is_gone_by(journal):
    journal.hear_once(run="r", plan_digest="a", phase="share", listed=b"one")
    SiteJournal(journal.folder).hear_once(run="r", plan_digest="a", phase="share", listed=b"one")
    with pytest.raises(ProtocolError, match="two lists of sites in phase share"):
        SiteJournal(journal.folder).hear_once(run="r", plan_digest="a", phase="share", listed=b"two")
    journal.hear_once(run="r", plan_digest="a", phase="masked", listed=b"two")
    journal.hear_once(run="r", plan_digest="b", phase="share", listed=b"two")


def test_two_processes_that_open_a_plan_at_a_time_get_the_same_secrets(journal):
    others = SiteJournal(journal.folder)

    def slower():
        others.open_plan(run="r", counter=4, plan_digest="a", secrets=lambda: b"first")
        return b"second"

    assert journal.open_plan(run="r", counter=4, plan_digest="a", secrets=slower) == b"first"


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def full(_):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_durably(tmp_path / "report.json", b"{}")
    assert list(tmp_path.iterdir()) == []
