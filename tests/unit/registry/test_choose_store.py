import pytest

from fedhealth.errors import ConfigError
from fedhealth.registry import choose_store, store_uri

SERVER = "http://mlflow.example:5000"


def test_without_a_wish_a_working_directory_has_a_store_of_its_own(tmp_path):
    assert choose_store(tmp_path, None) == store_uri(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_first_choice_stays_for_later_commands(tmp_path):
    assert choose_store(tmp_path, SERVER) == SERVER
    assert choose_store(tmp_path, None) == choose_store(tmp_path, SERVER) == SERVER
    assert (tmp_path / "mlflow" / "tracking-uri").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("first", ["own", SERVER])
def test_another_store_than_that_of_earlier_runs_is_refused(tmp_path, first):
    if first == "own":
        (tmp_path / "mlflow").mkdir()
        (tmp_path / "mlflow" / "mlflow.db").touch()
    else:
        choose_store(tmp_path, first)
    with pytest.raises(ConfigError, match="another MLflow store") as caught:
        choose_store(tmp_path, "http://elsewhere:1")
    assert "new --workdir" in caught.value.fix
