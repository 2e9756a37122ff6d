import pytest

from fedhealth.config import Timeouts
from fedhealth.errors import ConfigError
from fedhealth.exchange.store import check_key
from fedhealth.rounds.environment import timeouts_from
from fedhealth.rounds.objects import check_run_id, round_key


@pytest.mark.parametrize("run", ["r", "run-1", "demo-30d-20260102-030405-006", "a.b_c", "7", "a.", "-a"])
def test_a_valid_run_id_makes_a_key(run):
    check_run_id(run)
    check_key(round_key(run, 0, "manifest"))


@pytest.mark.parametrize("run", ["", "Run-1", "a..b", "../up", "a/b", ".a", "a b", "a\n", "a" * 129])
def test_a_run_id_that_no_key_can_hold_is_refused(run):
    with pytest.raises(ConfigError, match="the run id is not valid"):
        check_run_id(run)


def test_timeouts_are_changed_by_name():
    assert timeouts_from({}) == Timeouts()
    changed = timeouts_from({"FEDHEALTH_TIMEOUTS": '{"phase_timeout_s": 5}'})
    assert changed == Timeouts(phase_timeout_s=5.0)


@pytest.mark.parametrize(
    "seconds",
    ['"soon"', '"5"', "null", "true", "-1", "NaN", "Infinity", "1e999", "1" + "0" * 400, "[" * 9999],
)
def test_a_timeout_that_is_no_number_of_seconds_is_a_clear_error(seconds):
    with pytest.raises(ConfigError, match="FEDHEALTH_TIMEOUTS cannot be read"):
        timeouts_from({"FEDHEALTH_TIMEOUTS": f'{{"poll_s": {seconds}}}'})


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"patience": 3}'])
def test_timeouts_that_cannot_be_read_are_a_clear_error(text):
    with pytest.raises(ConfigError, match="FEDHEALTH_TIMEOUTS cannot be read") as caught:
        timeouts_from({"FEDHEALTH_TIMEOUTS": text})
    assert "phase_timeout_s" in caught.value.fix
