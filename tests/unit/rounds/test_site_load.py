import pytest

from fedhealth.rounds.site_data import SiteDataState, SiteFolder, data_state, record_state
from fedhealth.rounds.site_load import link_cdm


@pytest.fixture
def folder(tmp_path):
    """A site that has passed its gate over an older CDM and keeps rows of it."""
    folder = SiteFolder(tmp_path / "site")
    (folder.path / "rows").mkdir(parents=True)
    (folder.path / "rows" / "study.safetensors").write_bytes(b"rows")
    record_state(folder, SiteDataState(passed=True, reason=None))
    return folder


def omop(tmp_path, name):
    path = tmp_path / name
    path.mkdir()
    (path / "person.parquet").write_text(name)
    return path


@pytest.mark.parametrize("before", ["nothing", "harmonised", "linked", "the same"])
def test_another_omop_folder_replaces_what_was_there_and_what_was_derived(folder, tmp_path, before):
    older, newer = omop(tmp_path, "older"), omop(tmp_path, "newer")
    if before == "harmonised":
        older.rename(folder.cdm)
    elif before != "nothing":
        folder.cdm.symlink_to(newer if before == "the same" else older)
    link_cdm(folder, newer)
    assert (folder.cdm / "person.parquet").read_text() == "newer"
    assert list((folder.path / "rows").iterdir()) == []
    assert not data_state(folder).passed
    assert before == "harmonised" or (older / "person.parquet").exists()


def test_a_sites_own_cdm_given_as_its_omop_folder_stays(folder, tmp_path):
    omop(tmp_path, "own").rename(folder.cdm)
    link_cdm(folder, folder.cdm)
    assert (folder.cdm / "person.parquet").read_text() == "own"
