import json
import logging

from fedhealth.embedded.pool import SiteConfig
from fedhealth.embedded.site_process import SiteProcess, _answer
from fedhealth.errors import DataError


def test_a_file_that_cannot_be_read_is_named_in_the_sites_log_alone(tmp_path, caplog):
    fhir = tmp_path / "fhir"
    fhir.mkdir()
    (fhir / "Doe-Jane.ndjson.gz").write_bytes(b"no gzip")
    site = SiteProcess(SiteConfig(name="house", folder=tmp_path / "house", exchange="none"))
    result = site.harmonise(str(fhir), None, "off")
    assert result["state"] == "failed"
    assert "file 1 of 1 cannot be read" in result["problem"]
    assert "Doe" not in json.dumps(result)
    assert "Doe-Jane.ndjson.gz" in caplog.text


def test_an_error_leaves_its_notes_in_the_sites_log(caplog):
    def fail():
        error = DataError("file 1 of 2 cannot be read", "look for it")
        error.add_note("the file: Doe-Jane.ndjson")
        raise error

    with caplog.at_level(logging.ERROR):
        state, error = _answer({"read": fail}, "read", ())
    assert (state, str(error)) == ("error", "file 1 of 2 cannot be read. Fix: look for it")
    assert not hasattr(error, "__notes__")
    assert "Doe-Jane.ndjson" in caplog.text
