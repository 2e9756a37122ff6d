"""Public FHIR through harmonisation: nothing is lost, and every time and number is what Python reads itself."""

import gzip
import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from simulator.hospital import SECRET, Loaded

from fedhealth.cdm import harmonize
from fedhealth.cdm.meds import export_meds
from fedhealth.fhir.resources import LOADED
from fedhealth.vocabulary.maps import shipped_codes

DATA = Path(os.environ.get("FEDHEALTH_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SYNTHEA, HL7 = DATA / "synthea-r4-ndjson", DATA / "fhir-test-cases"
MEASURED = shipped_codes("measurement")


def need(folder):
    missing = not folder.is_dir()
    return pytest.mark.skipif(missing, reason=f"the public data is not at {folder}; set FEDHEALTH_DATA")


def resources(kind):
    with gzip.open(SYNTHEA / f"{kind}.ndjson.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


@pytest.fixture(scope="module")
def synthea(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthea") / "cdm"
    return Loaded(folder, harmonize(SYNTHEA, folder, site="synthea", site_secret=SECRET))


def references(loaded, table, identity, *columns):
    """The rows of a table by the reference of their resource."""
    by_id = {row: reference for _, row, reference in loaded.rows("private/id_map")}
    return {by_id[first]: rest for first, *rest in loaded.rows(table, identity, *columns)}


@need(SYNTHEA)
def test_every_line_of_every_file_is_read_and_accounted_for(synthea):
    lines = {}
    for path in SYNTHEA.glob("*.ndjson.gz"):
        with gzip.open(path) as stream:
            lines[path.name.removesuffix(".ndjson.gz")] = sum(1 for line in stream if line.strip())
    account = synthea.account.resources
    assert {kind: count.read for kind, count in account.items()} == lines
    for kind, count in account.items():
        assert count.read == count.loaded + sum(count.excluded.values()) + sum(count.quarantined.values())
        expected = {} if kind in LOADED else {"excluded:type_not_loaded": lines[kind]}
        assert synthea.reasons(kind) == expected, kind


@need(SYNTHEA)
def test_every_loaded_resource_has_a_row_of_its_own(synthea):
    traced = Counter(
        reference.split("#")[0].split("/")[0]
        for reference in {
            reference.split("#")[0] for reference in synthea.column("private/id_map", "fhir_reference")
        }
    )
    assert traced == {kind: n.loaded for kind, n in synthea.account.resources.items() if n.loaded}
    for table in ("person", "visit_occurrence", "measurement", "drug_exposure"):
        key = "person_id" if table == "person" else f"{table}_id"
        ids = synthea.column(table, key)
        assert len(ids) == len(set(ids)), table


TIMED = {
    "Condition": ("condition_occurrence", "condition_start_datetime", lambda r: r["onsetDateTime"]),
    "Procedure": ("procedure_occurrence", "procedure_datetime", lambda r: r["performedPeriod"]["start"]),
    "MedicationRequest": ("drug_exposure", "drug_exposure_start_datetime", lambda r: r["authoredOn"]),
    "Encounter": ("visit_occurrence", "visit_start_datetime", lambda r: r["period"]["start"]),
}


@need(SYNTHEA)
@pytest.mark.parametrize("kind", TIMED)
def test_every_time_is_the_instant_that_python_reads(synthea, kind):
    table, column, text = TIMED[kind]
    expected = {
        f"{kind}/{each['id']}": [datetime.fromisoformat(text(each)).astimezone(UTC).replace(tzinfo=None)]
        for each in resources(kind)
    }
    assert references(synthea, table, f"{table}_id", column) == expected


@need(SYNTHEA)
def test_every_mapped_number_with_its_own_unit_is_kept_as_it_is(synthea):
    kept = references(synthea, "measurement", "measurement_id", "measurement_concept_id", "value_as_number")
    checked = 0
    for each in resources("Observation"):
        coding, quantity = each["code"]["coding"][0], each.get("valueQuantity", {})
        concept = MEASURED.get((coding["system"], coding["code"]))
        if concept is not None and quantity.get("unit"):
            assert kept[f"Observation/{each['id']}"] == [concept, pytest.approx(quantity["value"])]
            checked += 1
    assert checked > 10_000


@need(SYNTHEA)
def test_the_meds_export_has_an_event_for_every_row(synthea, tmp_path):
    counts = export_meds(synthea.folder, tmp_path / "meds").events
    tables = synthea.account.tables
    for table in (
        "condition_occurrence",
        "drug_exposure",
        "procedure_occurrence",
        "measurement",
        "observation",
    ):
        assert counts.get(table, 0) == tables[table], table
    for table in ("visit_occurrence", "visit_detail"):
        assert counts.get(table, 0) == counts.get(f"{table}_end", 0) == tables[table], table
    assert counts["person"] == tables["person"]
    assert counts.get("death", 0) == tables["death"]
    written = pq.read_table(tmp_path / "meds" / "data")
    assert written.num_rows == sum(counts.values()) > 10_000


@need(HL7)
def test_edge_cases_and_broken_resources_never_stop_the_run(tmp_path):
    account = harmonize(HL7, tmp_path / "cdm", site="hl7", site_secret=SECRET, validate="all").resources
    assert sum(count.read for count in account.values()) >= len(list(HL7.rglob("*.json")))
    for kind, count in account.items():
        assert count.read == count.loaded + sum(count.excluded.values()) + sum(count.quarantined.values()), (
            kind
        )
    assert account["unknown"].quarantined["not_json"] > 0
    assert account["Patient"].quarantined["r4b_invalid"] > 0
    assert account["Observation"].loaded > 0
