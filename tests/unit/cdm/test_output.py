"""A folder that is written all at once: what a killed run left is removed, what a living one needs is not."""

import os
import signal
import subprocess
import sys

import pytest

from fedhealth.cdm.output import replacing, replacing_any
from fedhealth.errors import ConfigError

KILLED = """
import os, signal, sys
from pathlib import Path
from fedhealth.cdm.output import replacing
with replacing(Path(sys.argv[1])) as fresh:
    (fresh.parent / "work" / "scan").mkdir(parents=True)
    (fresh.parent / "work" / "scan" / "samples.parquet").write_text("a whole patient")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def killed(tmp_path):
    """The folder beside which a run was killed, and what it left there."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "cdm")], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "work" / "scan" / "samples.parquet").exists()
    return tmp_path / "cdm", left


def test_the_next_run_into_the_same_folder_removes_what_a_killed_one_left(killed):
    cdm, left = killed
    with replacing(cdm) as fresh:
        assert not left.exists()
        (fresh / "accounting.json").write_text("{}")
    assert names(cdm.parent) == ["cdm"]


def test_a_run_that_fails_removes_it_too(killed):
    cdm, _ = killed
    with pytest.raises(ZeroDivisionError), replacing(cdm):
        raise ZeroDivisionError
    assert names(cdm.parent) == []


def test_a_run_into_another_folder_leaves_it(killed):
    cdm, left = killed
    for other in ("cd", "cdm.x", "other"):
        with replacing(cdm.parent / other):
            assert left.exists()


def test_a_living_run_keeps_its_working_folder(tmp_path):
    with replacing(tmp_path / "cdm") as first:
        (first / "accounting.json").write_text("1")
        with pytest.raises(ZeroDivisionError), replacing(tmp_path / "cdm"):
            raise ZeroDivisionError
        assert (first / "accounting.json").read_text() == "1"
    assert (tmp_path / "cdm" / "accounting.json").read_text() == "1"
    assert names(tmp_path) == ["cdm"]


def test_a_hidden_folder_of_somebody_else_is_not_touched(tmp_path):
    (tmp_path / ".cdm.notmine_").mkdir()
    with replacing(tmp_path / "cdm"):
        pass
    assert names(tmp_path) == [".cdm.notmine_", "cdm"]


def test_what_a_run_killed_between_the_renames_put_aside_is_put_back(killed):
    cdm, left = killed
    os.mkdir(left / "old")
    (left / "old" / "mark").write_text("the last good one")
    with pytest.raises(ConfigError), replacing_any(cdm, own=("other",)):
        pass
    assert (cdm / "mark").read_text() == "the last good one"
    assert names(cdm.parent) == ["cdm"]


def test_where_there_are_no_locks_a_folder_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr("fcntl.flock", refuse)
    with replacing(tmp_path / "cdm") as fresh:
        (fresh / "accounting.json").write_text("{}")
    assert names(tmp_path) == ["cdm"]
