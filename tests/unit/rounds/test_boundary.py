import pickle

import pytest

from fedhealth.errors import DataError
from fedhealth.rounds.boundary import at_the_boundary


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDHEALTH_SITE_DIR", str(tmp_path))
    return tmp_path / "site.log"


@at_the_boundary
def read_files(name):
    error = DataError("file 1 of 2 cannot be read", "look for it")
    error.add_note(f"the file: {name}")
    raise error


@pytest.mark.parametrize("name", ["Doe-Jane.ndjson", "M\udcfcller.ndjson"])
def test_the_name_of_a_file_stays_in_the_sites_log(log, name):
    with pytest.raises(DataError, match="file 1 of 2 cannot be read") as caught:
        read_files(name)
    outward = caught.value
    assert not hasattr(outward, "__notes__")
    assert outward.__context__ is None
    assert name.encode("utf-8", "backslashreplace") in log.read_bytes()
    assert b"ndjson" not in pickle.dumps(outward)


def test_an_unexpected_error_says_nothing_of_itself(log):
    @at_the_boundary
    def divide(patient):
        raise ZeroDivisionError(patient)

    with pytest.raises(DataError, match=r"^divide failed at this site") as caught:
        divide("Jane Doe")
    assert caught.value.__context__ is None
    assert "Jane Doe" in log.read_text()
