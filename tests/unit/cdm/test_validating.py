"""Whole resources are validated once: verdicts are remembered by digest, and nothing else is."""

import json
from hashlib import sha256

import pyarrow.parquet as pq
import pytest
from simulator.hospital import SECRET, encounter, lines, observation, patient, small_hospital, write_files

from fedhealth.cdm import harmonize

REFUSED = encounter("bad", length="four days")
NOTED = patient("odd", contact=[{"gender": "male"}])
RESOURCES = [*small_hospital(), REFUSED, NOTED]


class Site:
    """A hospital that is harmonised again and again beside the same store."""

    def __init__(self, folder):
        self.folder, self.store, self.validated = folder, folder / "keys", 0

    def load(self, resources=RESOURCES, *, validate="all", workers=1):
        write_files(self.folder / "fhir", {"all.ndjson": lines(resources)})
        self.validated = 0
        account = harmonize(
            self.folder / "fhir",
            self.folder / "cdm",
            site="house",
            site_secret=SECRET,
            validate=validate,
            verdicts=self.store,
            progress=self._follow,
            workers=workers,
        )
        return account.model_copy(update={"seconds": {}})

    def bytes(self):
        paths = sorted((self.folder / "cdm").rglob("*.parquet"))
        return {path.name: path.read_bytes() for path in paths}

    def remembered(self):
        (path,) = self.store.glob("verdicts-*.parquet")
        assert path.stat().st_mode & 0o777 == 0o600
        return pq.read_table(path).to_pylist()

    def _follow(self, stage, done, of):
        self.validated = max(self.validated, of) if stage == "validate" else self.validated


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def test_the_second_run_validates_nothing_and_gives_the_same_bytes(site):
    first = site.load()
    written = site.bytes()
    assert site.validated == 1
    assert first.resources["Encounter"].quarantined == {"r4b_invalid": 1}
    assert [(each.reason, each.path, each.n) for each in first.findings] == [
        ("empty_contact", "Patient.contact", 1)
    ]
    assert site.load() == first
    assert site.validated == 0
    assert site.bytes() == written


def test_what_changed_is_validated_and_what_is_gone_is_forgotten(site):
    site.load()
    assert len(site.remembered()) == len(RESOURCES)
    changed = [*small_hospital()[1:], observation("new", "8867-4", 60, "/min")]
    site.load(changed)
    assert site.validated == 1
    assert {row["digest"] for row in site.remembered()} == {
        sha256(lines([resource])).hexdigest() for resource in changed
    }


def test_the_store_has_digests_reasons_and_paths_and_no_value(site):
    site.load()
    rows = site.remembered()
    assert {(row["kind"], row["reason"], row["path"]) for row in rows} == {
        (None, None, None),
        ("quarantined", "r4b_invalid", "Encounter.length"),
        ("noted", "empty_contact", "Patient.contact"),
    }
    assert set(rows[0]) == {"digest", "kind", "reason", "path"}


def test_verdicts_are_the_same_in_other_processes(site, monkeypatch):
    first, written = site.load(), site.bytes()
    (path,) = site.store.glob("verdicts-*.parquet")
    path.unlink()
    monkeypatch.setattr("fedhealth.fhir.files.PART_BYTES", 1000)
    account = site.load(workers=2)
    assert site.validated > 2
    assert account == first
    assert site.bytes() == written


def test_a_sample_remembers_nothing(site):
    account = site.load(validate="sample")
    assert account.resources["Encounter"].quarantined == {"r4b_invalid": 1}
    assert not site.store.exists()


def test_nothing_is_validated_whole_when_that_is_off(site):
    account = site.load(validate="off")
    assert account.findings == []
    assert "r4b_invalid" not in account.resources["Encounter"].quarantined
    assert site.validated == 0


def test_the_path_of_what_the_models_refuse_is_in_the_quarantine(site):
    site.load()
    rows = pq.read_table(site.folder / "cdm" / "private" / "quarantine.parquet").to_pylist()
    assert [(row["line"], row["reason_code"], row["json_path"]) for row in rows] == [
        (RESOURCES.index(REFUSED) + 1, "r4b_invalid", "Encounter.length")
    ]
    assert json.dumps(rows).count("four days") == 0
