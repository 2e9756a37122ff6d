"""What identifies a person stays out of the CDM, and the record says what was done."""

import json
import stat

import duckdb
import pytest
from simulator.hospital import SECRET, encounter, observation, patient, small_hospital

from fedhealth.cdm.keys import keyed_ids
from fedhealth.errors import ConfigError

PLANTED = (
    *("Quillfeather", "Zinnober", "Umbrashire", "555-0199", "MRN-77001", "House of Examples", "fasting"),
    *("as told by", "one for", "SECRETWORD"),
)


def everything(folder):
    """Every value of every Parquet file below a folder as text, and the bytes of the JSON files."""
    texts = [path.read_text() for path in folder.rglob("*.json")]
    with duckdb.connect(":memory:") as database:
        for path in folder.rglob("*.parquet"):
            rows = database.execute(f"SELECT t::VARCHAR FROM '{path}' t").fetchall()
            texts += [row[0] for row in rows]
    return texts


def test_names_addresses_and_free_text_are_nowhere_in_what_is_written(load):
    stays = observation(
        "told",
        "8867-4",
        valueString="SECRETWORD",
        effectiveDateTime="2021-05-01",
        performer=[{"display": "SECRETWORD"}],
        extension=[{"url": "urn:x", "valueString": "SECRETWORD"}],
        contained=[{"resourceType": "Practitioner", "id": "p", "name": [{"family": "SECRETWORD"}]}],
    )
    loaded = load([*small_hospital(), stays, patient("cy", gender="SECRETWORD")])
    assert loaded.account.resources["Observation"].loaded == 5
    texts = everything(loaded.folder)
    assert any("8867-4" in text for text in texts)  # the search finds what is there
    for word in PLANTED:
        assert not [text for text in texts if word.lower() in text.lower()], word


def test_an_unreadable_gender_is_unknown_and_not_copied(load):
    loaded = load([patient("a", gender="M"), patient("b", gender="other"), patient("c", gender="unknown")])
    assert set(loaded.rows("person", "gender_concept_id", "gender_source_value")) == {
        (0, None),
        (8521, "other"),
        (0, "unknown"),
    }


def test_source_ids_are_in_the_private_folder_only(load):
    loaded = load([patient("needle-1"), encounter("needle-2", of="needle-1")])
    public = [path for path in loaded.folder.iterdir() if path.suffix in (".parquet", ".json")]
    assert {path.name for path in loaded.folder.iterdir()} - {path.name for path in public} == {"private"}
    assert any("needle-1" in text for text in everything(loaded.folder / "private"))
    for path in public:
        with duckdb.connect(":memory:") as database:
            reader = "read_text" if path.suffix == ".json" else "read_parquet"
            rows = database.execute(f"SELECT t::VARCHAR FROM {reader}('{path}') t").fetchall()
        assert not [row for row in rows if "needle" in row[0].replace(str(path), "")], path.name


def test_the_folders_are_open_to_their_owner_alone(load):
    loaded = load([patient("ada")])
    for folder in (loaded.folder, loaded.folder / "private"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_record_of_deidentification_says_profile_keys_and_maps(load):
    loaded = load(small_hospital(), site="house")
    record = loaded.record()
    assert record.pop("software_version")
    assert len(record.pop("map_digest")) == 64
    assert record == {
        "schema_version": 1,
        "site": "house",
        "profile": "local-only",
        "keys": "BLAKE2b, 63 bits, per-site secret",
        "dates": "as they are",
        "births": "as they are",
        "rare_source_values": "other, if fewer than 11 patients carry what no map names",
        "not_loaded": [
            "names",
            "contacts",
            "addresses",
            "identifiers",
            "narrative",
            "notes",
            "free text",
        ],
        "dropped": [],
        "warnings": [],
        "recorded": "2021-06-01",
    }
    assert SECRET.hex() not in json.dumps(record)


def test_ids_are_63_bits_and_differ():
    ids = keyed_ids((f"Patient/{n}" for n in range(100_000)), site_secret=SECRET)
    assert len(set(ids.tolist())) == 100_000
    assert ids.min() >= 0
    assert ids.max() > 2**62


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_of_another_size_is_refused(load, size):
    with pytest.raises(ConfigError, match="has not 32 bytes"):
        load([patient("ada")], secret=bytes(size))
