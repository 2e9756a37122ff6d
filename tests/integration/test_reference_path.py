"""DuckDB path = plain Python path (tests/reference), row for row and column for column."""

import gzip
import json
import math
import os
from collections import Counter
from datetime import date
from itertools import chain, product
from pathlib import Path

import pytest
import yaml
from reference.hospital import harmonise
from simulator.hospital import (
    SECRET,
    SNOMED,
    Loaded,
    small_hospital,
    write_files,
)
from simulator.hospital import lines as ndjson
from simulator.spite import SPITE, UNIT_2, spiteful

from fedhealth.cdm import harmonize
from fedhealth.cdm.tables import TABLES, VISIT_EXTRA
from fedhealth.synthetic.consortium import generate_hospital
from fedhealth.synthetic.site_map import write_site_map

DATA = Path(os.environ.get("FEDHEALTH_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SYNTHEA = DATA / "synthea-r4-ndjson"
RELATIVE = 1e-6
"""Of converted numbers, as the two paths have constants of their own, one of them rounded to seven digits."""


def both(folder, files, site_map=None):
    """Harmonise files of NDJSON by name in both ways, and hold everything equal."""
    write_files(folder / "fhir", files)
    account = harmonize(
        folder / "fhir",
        folder / "cdm",
        site="house",
        site_secret=SECRET,
        site_map=site_map,
        validate="off",
        workers=1,
    )
    unpacked = (gzip.decompress(data) if name.endswith(".gz") else data for name, data in files.items())
    lines = list(chain.from_iterable(data.decode().splitlines() for data in unpacked))
    settings, maps = read_folder(site_map)
    expected = harmonise(lines, secret=SECRET, settings=settings, concept_maps=maps)
    loaded = Loaded(folder / "cdm", account)
    same_tables(loaded, expected)
    same_account(account, expected)
    return loaded


def read_folder(site_map):
    """The settings and the ConceptMaps of a site map."""
    if site_map is None:
        return {}, []
    maps = [json.loads(path.read_text()) for path in sorted(site_map.glob("*.json"))]
    path = site_map / "site.yaml"
    settings = yaml.safe_load(path.read_text()) or {} if path.exists() else {}
    if "extract_date" in settings:
        settings["extract_date"] = date.fromisoformat(str(settings["extract_date"]))
    return settings, maps


def same_tables(loaded, expected):
    for table in (*TABLES.values(), VISIT_EXTRA):
        if table.name == "cdm_source":
            continue
        columns = table.column_names
        theirs = [tuple(row[column] for column in columns) for row in expected.tables[table.name]]
        ours = loaded.rows(table.name, *columns)
        assert len(ours) == len(theirs), table.name
        for left, right in zip(sorted(ours, key=first), sorted(theirs, key=first), strict=True):
            different = [
                column
                for column, a, b in zip(columns, left, right, strict=True)
                if not (
                    a == b
                    or (isinstance(a, float) and b is not None and math.isclose(a, b, rel_tol=RELATIVE))
                )
            ]
            assert not different, (table.name, different, left, right)
    assert set(loaded.rows("private/id_map")) == expected.id_map


def first(row):
    return row[0]


def same_account(account, expected):
    left = Counter()
    for name, count in account.resources.items():
        for kind in ("excluded", "quarantined"):
            left.update({(name, kind, reason): n for reason, n in getattr(count, kind).items()})
    assert left == expected.left
    assert {(u.system, u.code, u.unit): u.n for u in account.unmapped} == expected.unmapped
    for table, count in account.links.items():
        for link in ("reference", "time", "none"):
            assert getattr(count, link) == expected.links[table, link], (table, link)
    values = expected.values
    assert account.values.read == sum(values.values())
    assert account.values.converted == values["converted"]
    assert account.values.inferred == values["inferred"]
    lost = {state: values[state] for state in ("unit", "unit_missing") if values[state]}
    assert account.values.quarantined == lost


def test_the_two_paths_agree_on_the_small_hospital(tmp_path):
    loaded = both(tmp_path, {"all.ndjson": ndjson(small_hospital())})
    assert len(loaded.rows("measurement")) == 4


@pytest.mark.parametrize("index", [0, 3, 7])
def test_the_two_paths_agree_on_a_synthetic_hospital_with_its_own_dialect(tmp_path, index):
    hospital, dialect, lines, _ = generate_hospital(index, patients=15, seed=11)
    (tmp_path / "map").mkdir()
    write_site_map(tmp_path / "map", hospital.name, dialect, extract_date="2026-01-31")
    files = {f"{kind}.ndjson": b"\n".join(found) + b"\n" for kind, found in lines.items()}
    loaded = both(tmp_path, files, site_map=tmp_path / "map")
    assert len(loaded.rows("measurement")) > 1000


@pytest.mark.skipif(not SYNTHEA.is_dir(), reason=f"the public data is not at {SYNTHEA}; set FEDHEALTH_DATA")
def test_the_two_paths_agree_on_the_synthea_sample(tmp_path):
    files = {path.name: path.read_bytes() for path in sorted(SYNTHEA.glob("*.ndjson.gz"))}
    loaded = both(tmp_path, files)
    assert len(loaded.rows("measurement")) > 10_000


SETTINGS = {
    "plain": {},
    "berlin": {
        "time_zone": "Europe/Berlin",
        "extract_date": date(2021, 5, 20),
        "unit_inference": True,
        "intensive_care_locations": ["icu", UNIT_2],
    },
}


OWN_CODES = {
    "resourceType": "ConceptMap",
    "group": [
        {
            "source": source,
            "target": "https://fhir-terminology.ohdsi.org",
            "element": [{"code": code, "target": [{"code": concept, "equivalence": "equivalent"}]}],
        }
        for source, code, concept in (
            ("urn:house", "po", "4132161"),
            (SNOMED, "3", "4146380"),
            (SNOMED, "266919005", "4144272"),
        )
    ],
}
"""Codes of a route and of values that a site takes to concepts itself."""


@pytest.mark.parametrize(("name", "site"), list(product(SPITE, SETTINGS)))
def test_the_two_paths_agree_on_spiteful_resources(tmp_path, name, site):
    folder = tmp_path / "map"
    folder.mkdir()
    (folder / "site.yaml").write_text(yaml.safe_dump(SETTINGS[site]))
    if site == "berlin":
        (folder / "codes.json").write_text(json.dumps(OWN_CODES))
    both(tmp_path, {"all.ndjson": spiteful(name)}, site_map=folder)
