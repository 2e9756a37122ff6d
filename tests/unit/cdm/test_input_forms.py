"""The same resources give the same CDM in whatever form they come; a damaged file leaves nothing half-written."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulator.hospital import (
    SECRET,
    bundle,
    encounter,
    key,
    lines,
    observation,
    patient,
    small_hospital,
    write_files,
)

from fedhealth.cdm import harmonize
from fedhealth.errors import ConfigError, DataError

GOOD = lines(small_hospital())
FEDHEALTH = Path(sys.executable).parent / "fedhealth"


def shuffled(seed):
    resources = small_hospital()
    return [resources[i] for i in np.random.default_rng(seed).permutation(len(resources))]


def by_type():
    files = {}
    for resource in small_hospital():
        files.setdefault(f"deep/{resource['resourceType']}.ndjson", []).append(resource)
    return {name: lines(resources) for name, resources in files.items()}


FORMS = {
    "bundle": {"a.json": bundle(small_hospital())},
    "pretty bundle": {"a.json": json.dumps(json.loads(bundle(small_hospital())), indent=2).encode()},
    "one bundle a resource": {f"{n}.json": bundle([r]) for n, r in enumerate(small_hospital())},
    "bundles as lines": {"a.ndjson": bundle(small_hospital()[:5]) + b"\n" + bundle(small_hospital()[5:])},
    "bundle in a bundle": {"a.json": bundle([json.loads(bundle(small_hospital()))])},
    "one file a resource": {f"{n}.json": json.dumps(r).encode() for n, r in enumerate(small_hospital())},
    "lines named .json": {"a.json": GOOD},
    "lines named .jsonl": {"a.jsonl": GOOD},
    "gzip": {"a.ndjson.gz": gzip.compress(GOOD)},
    "two gzip members": {"a.ndjson.gz": gzip.compress(GOOD[:1000]) + gzip.compress(GOOD[1000:])},
    "gzip bundle": {"a.json.gz": gzip.compress(bundle(small_hospital()))},
    "byte order mark": {"a.ndjson": b"\xef\xbb\xbf" + GOOD},
    "carriage returns": {"a.ndjson": GOOD.replace(b"\n", b"\r\n")},
    "blank lines": {"a.ndjson": b"\n  \n" + GOOD.replace(b"\n", b"\n\n \t\n")},
    "no last newline": {"a.ndjson": GOOD.rstrip(b"\n")},
    "spaces in the JSON": {"a.ndjson": GOOD.replace(b'{"resourceType": ', b'  { "resourceType" : ')},
    "shuffled": {"a.ndjson": lines(shuffled(1))},
    "shuffled again": {"a.ndjson": lines(shuffled(2))},
    "one file a type": by_type(),
    "beside other files": {"a.ndjson": GOOD, "README.txt": b"not FHIR", ".hidden.ndjson": b"not FHIR"},
}


@pytest.fixture(scope="module")
def plain(load):
    return load(small_hospital())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_resources_gives_the_same_tables(load, plain, form):
    loaded = load(files=FORMS[form])
    assert loaded.digests() == plain.digests()
    bundles = loaded.account.resources.get("Bundle")
    assert bundles is None or bundles.excluded == {"container": bundles.read}
    left = {kind: count for kind, count in loaded.account.resources.items() if kind != "Bundle"}
    assert left == plain.account.resources


@pytest.mark.parametrize(
    "broken",
    [
        '{"resourceType":"Observation","id":"x"',
        '{"resourceType":"Patient","id":"x"}}',
        '{"resourceType":"Bundle",',
    ],
)
def test_what_only_begins_like_a_resource_is_quarantined_and_all_else_is_loaded(load, plain, broken):
    compact = "\n".join(json.dumps(resource, separators=(",", ":")) for resource in small_hospital())
    for text in (f"{broken}\n{compact}", f"{compact}\n{broken}"):
        loaded = load(files={"a.ndjson": text.encode()})
        assert loaded.digests() == plain.digests()
        assert loaded.account.resources["unknown"].quarantined == {"not_json": 1}
        assert loaded.account.resources["Observation"] == plain.account.resources["Observation"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"subject": {"reference": "Patient/ada"}}, {"subject": {"reference": "Patient/bo"}}),
        ({"encounter": {"reference": "Encounter/stay"}}, {"encounter": {"reference": "Encounter/none"}}),
        ({"valueQuantity": {"value": 5, "unit": "mg/dL"}}, {"valueQuantity": {"value": 5, "unit": "mmol/L"}}),
    ],
)
def test_versions_that_say_the_same_of_their_age_are_told_apart_by_what_they_say(load, one, other):
    around = [patient("ada"), patient("bo"), encounter("stay")]
    versions = [observation("sugar", "2345-7", 100, "mg/dL", **fields) for fields in (one, other)]
    loads = [
        load(files={"a.ndjson": lines([*around, first]), "b.ndjson": lines([second])})
        for first, second in (versions, reversed(versions))
    ]
    assert loads[0].digests() == loads[1].digests()
    assert loads[0].account.resources["Observation"].excluded == {"duplicate": 1}
    assert loads[0].rows("measurement") == load([*around, *versions]).rows("measurement")


def test_many_rows_in_another_order_and_with_more_threads_give_the_same_tables(load):
    people = [patient(f"p{n}", birthDate=f"{1930 + n % 80}-01-01") for n in range(3000)]
    assert load(people).digests() == load(people[::-1], workers=4).digests()


def test_what_crosses_the_edge_of_a_block_is_read_whole(load, plain, monkeypatch):
    monkeypatch.setattr("fedhealth.fhir.files.BLOCK_BYTES", 7)
    assert load(files={"a.ndjson": GOOD}).digests() == plain.digests()


DAMAGED = {
    "cut off": gzip.compress(GOOD)[:-30],
    "empty": b"",
    "not gzip": GOOD,
    "rubbish after it": gzip.compress(GOOD) + b"rubbish",
    "a flipped bit": gzip.compress(GOOD)[:-8] + b"\0" * 8,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_gzip_file_is_refused_and_named_in_a_note_and_leaves_nothing(tmp_path, damage):
    source = write_files(
        tmp_path / "fhir", {"c.ndjson": GOOD, "b.ndjson.gz": DAMAGED[damage], "a.json": GOOD}
    )
    with pytest.raises(DataError, match=r"^file 2 of 3 cannot be read to its end .*gzip -t") as caught:
        harmonize(source, tmp_path / "cdm", site="house", site_secret=SECRET, validate="off")
    assert caught.value.__notes__ == [f"the file: '{source / 'b.ndjson.gz'}'"]
    assert [path.name for path in tmp_path.iterdir()] == ["fhir"]


@pytest.mark.parametrize("place", [b"b\xff.ndjson", b"b\xff/a.ndjson"])
def test_a_file_whose_name_is_not_utf8_is_refused_and_named_in_a_note(tmp_path, place):
    source = write_files(tmp_path / "fhir", {"a.ndjson": GOOD, "c.ndjson": GOOD})
    path = Path(os.fsdecode(os.fsencode(source) + b"/" + place))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(GOOD)
    with pytest.raises(DataError, match=r"^the name of file 2 of 3 is not UTF-8 .*rename it") as caught:
        harmonize(source, tmp_path / "cdm", site="house", site_secret=SECRET, validate="off")
    assert caught.value.__notes__ == [f"the file: {str(path)!r}"]
    assert [path.name for path in tmp_path.iterdir()] == ["fhir"]


def test_a_failed_reload_keeps_the_cdm_that_was_there(load, tmp_path):
    loaded = load(small_hospital())
    before = loaded.digests()
    source = write_files(tmp_path, {"a.ndjson.gz": DAMAGED["cut off"]})
    with pytest.raises(DataError):
        harmonize(source, loaded.folder, site="house", site_secret=SECRET, validate="off")
    assert loaded.digests() == before
    assert sorted(path.name for path in loaded.folder.parent.iterdir()) == ["cdm", "fhir"]


def test_a_reload_replaces_the_whole_cdm(load, tmp_path):
    loaded = load(small_hospital())
    source = write_files(tmp_path, {"a.ndjson": lines([patient("cy")])})
    harmonize(source, loaded.folder, site="house", site_secret=SECRET, validate="off")
    assert len(loaded.rows("person")) == 1
    assert loaded.rows("measurement") == []


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"notes.txt": b"x"}, "holds no FHIR file"),
        ({"a.ndjson": b""}, "none of the 0 lines"),
        ({"a.ndjson": b"\n\n"}, "none of the 0 lines"),
        (
            {"package.json": b'{"name":"x"}', "b.ndjson": b"what\n"},
            "none of the 2 lines and entries is a FHIR R4",
        ),
        ({"a.json": bundle([])}, "none of the 1 lines"),
    ],
)
def test_a_folder_without_fhir_is_refused_and_leaves_nothing(tmp_path, files, problem):
    source = write_files(tmp_path / "fhir", files)
    with pytest.raises(DataError, match=problem):
        harmonize(source, tmp_path / "cdm", site="house", site_secret=SECRET)
    assert [path.name for path in tmp_path.iterdir()] == ["fhir"]


def test_an_empty_folder_is_a_data_error_and_a_missing_one_a_config_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no FHIR file"):
        harmonize(tmp_path / "empty", tmp_path / "cdm", site="house", site_secret=SECRET)
    with pytest.raises(ConfigError, match="does not exist"):
        harmonize(tmp_path / "missing", tmp_path / "cdm", site="house", site_secret=SECRET)


def test_a_folder_with_other_things_is_not_written_to(tmp_path):
    source = write_files(tmp_path / "fhir", {"a.ndjson": GOOD})
    target = write_files(tmp_path / "photos", {"cat.jpg": b"meow"})
    with pytest.raises(ConfigError, match="holds something else"):
        harmonize(source, target, site="house", site_secret=SECRET)
    assert (target / "cat.jpg").read_bytes() == b"meow"


@pytest.mark.parametrize(("fhir", "cdm"), [("a", "a/cdm"), ("a/fhir", "a"), ("a", "a")])
def test_a_cdm_folder_inside_the_fhir_folder_or_around_it_is_refused(tmp_path, fhir, cdm):
    write_files(tmp_path / fhir, {"x.ndjson": GOOD})
    with pytest.raises(ConfigError, match="lie in each other"):
        harmonize(tmp_path / fhir, tmp_path / cdm, site="house", site_secret=SECRET)


def test_the_command_says_in_one_line_which_file_is_damaged_and_exits_with_2(tmp_path):
    write_files(tmp_path / "fhir", {"b.ndjson.gz": DAMAGED["cut off"]})
    done = subprocess.run(
        [FEDHEALTH, "harmonize", "--fhir", "fhir", "--cdm", "cdm"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2, done.stderr
    assert said[-1].startswith("fedhealth: file 1 of 1 cannot be read to its end")
    assert "b.ndjson.gz" in said[-1]
    assert "Fix: " in said[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cdm").exists()


def deletion(target, **fields):
    entry = {"request": {"method": "DELETE", "url": target}} | fields
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}).encode()


@pytest.mark.parametrize(
    ("stamp", "updated", "is_deleted"),
    [
        (None, None, True),
        (None, "2024-01-02T00:00:00Z", True),
        ("2024-01-01T00:00:00Z", None, True),
        ("2024-01-02T00:00:00Z", "2024-01-01T00:00:00Z", True),
        ("2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", False),
    ],
)
def test_a_deletion_in_another_file_removes_what_is_not_known_to_be_later(load, stamp, updated, is_deleted):
    ada = patient("ada", **({"meta": {"lastUpdated": updated}} if updated else {}))
    gone = deletion("Patient/ada", **({"response": {"lastModified": stamp}} if stamp else {}))
    loaded = load(files={"a.json": gone, "b.ndjson": lines([ada, patient("bo")])})
    expected = {"excluded:deleted": 1} if is_deleted else {}
    assert loaded.reasons("Patient") == expected
    assert len(loaded.column("person", "person_id")) == 2 - len(expected)


def test_many_parts_give_the_same_tables_as_one(load, monkeypatch):
    whole = load(small_hospital())
    monkeypatch.setattr("fedhealth.fhir.files.PART_BYTES", 700)
    assert load(small_hospital()).digests() == whole.digests()
    assert load(small_hospital(), workers=2).digests() == whole.digests()


def test_deliveries_side_by_side_are_followed_and_a_reload_changes_nothing(load):
    first = [
        patient("ada", gender="male", meta={"lastUpdated": "2021-06-01T00:00:00Z"}),
        encounter("stay"),
        observation("pulse", "8867-4", 80, "/min", meta={"lastUpdated": "2021-06-01T00:00:00Z"}),
        observation("sugar", "2345-7", 100, "mg/dL", meta={"lastUpdated": "2021-06-01T00:00:00Z"}),
    ]
    second = {
        "resourceType": "Bundle",
        "type": "transaction",
        "timestamp": "2021-07-01T00:00:00Z",
        "entry": [
            {"resource": patient("ada", meta={"lastUpdated": "2021-07-01T00:00:00Z"})},
            {
                "resource": observation(
                    "pulse", "8867-4", 81, "/min", meta={"lastUpdated": "2021-07-01T00:00:00Z"}
                )
            },
            {
                "resource": observation(
                    "new", "8867-4", 82, "/min", meta={"lastUpdated": "2021-07-01T00:00:00Z"}
                )
            },
            {"request": {"method": "DELETE", "url": "Observation/sugar"}},
        ],
    }
    files = {"2021-06/all.ndjson": lines(first)}
    before = load(files=files)
    files["2021-07/changes.json"] = json.dumps(second).encode()
    after, again = load(files=files), load(files=dict(reversed(files.items())))
    kept = after.rows("measurement", "measurement_id", "value_as_number")
    assert sorted(kept) == sorted([(key("Observation/pulse"), 81.0), (key("Observation/new"), 82.0)])
    assert after.column("person", "gender_concept_id") == [8532]
    assert after.column("person", "person_id") == before.column("person", "person_id")
    assert after.reasons("Observation") == {"excluded:deleted": 1, "excluded:duplicate": 1}
    assert again.digests() == after.digests()


def test_a_quarantined_line_is_told_with_the_folder_of_its_file(load):
    files = {
        f"2021-{month}/a.ndjson": GOOD + lines([patient(f"p{month}", birthDate="in spring")])
        for month in ("06", "07")
    }
    loaded = load(files=files)
    assert {file for (file,) in loaded.rows("private/quarantine", "file")} == {
        "2021-06/a.ndjson",
        "2021-07/a.ndjson",
    }
