"""A hospital of two made-up people comes out of harmonisation row by row as it is written here."""

from datetime import date, datetime

import pyarrow.parquet as pq
import pytest
from simulator.hospital import (
    ACT,
    ADMIT,
    DISPOSITION,
    ICD10,
    LOINC,
    RXNORM,
    SNOMED,
    key,
    patient,
    small_hospital,
)

from fedhealth.cdm.tables import PRIVATE_TABLES, TABLES, VISIT_EXTRA

ADA, BO = key("Patient/ada"), key("Patient/bo")
STAY, UNIT, CLINIC = (key(f"Encounter/{name}") for name in ("stay", "unit", "clinic"))
MAY_1, MAY_2, JUNE_1 = date(2021, 5, 1), date(2021, 5, 2), date(2021, 6, 1)
NINE = datetime(2021, 5, 1, 9)
EHR = 32817

EXPECTED = {
    "person": [
        (ADA, 8532, 1950, 3, 4, datetime(1950, 3, 4), 0, 0, None, "female", None, None),
        (BO, 8507, 1990, 11, None, None, 0, 0, None, "male", None, None),
    ],
    # from the first event to the latest day of the extract; the death in July is after that
    "observation_period": [
        (ADA, ADA, date(2020, 1, 15), JUNE_1, EHR),
        (BO, BO, JUNE_1, JUNE_1, EHR),
    ],
    "visit_occurrence": [
        (STAY, ADA, 262, MAY_1, datetime(2021, 5, 1, 8), date(2021, 5, 4), datetime(2021, 5, 4, 16), EHR,
         key("Organization/house"), f"{ACT}|IMP", 8870, f"{ADMIT}|emd", 8536, f"{DISPOSITION}|home", None),
        (CLINIC, BO, 9202, JUNE_1, datetime(2021, 6, 1, 8), JUNE_1, datetime(2021, 6, 1, 9), EHR,
         None, f"{ACT}|AMB", None, None, None, None, None),
    ],
    "visit_detail": [
        (UNIT, ADA, 32037, MAY_2, datetime(2021, 5, 2), date(2021, 5, 3), datetime(2021, 5, 3), EHR,
         key("Organization/house"), STAY),
    ],
    "condition_occurrence": [
        (key("Condition/failure"), ADA, 316139, MAY_1, None, None, EHR, 32893, f"{ICD10}|I50.9", 0, STAY),
    ],
    "measurement": [
        (key("Observation/pulse"), ADA, 3027018, MAY_2, datetime(2021, 5, 2, 6), EHR, None, 88.0, None, 8541,
         None, None, STAY, UNIT, f"{LOINC}|8867-4", "/min", "88.0"),
        (key("Observation/sugar"), ADA, 3004501, MAY_1, NINE, EHR, None, pytest.approx(99.088), None, 8840,
         None, None, STAY, None, f"{LOINC}|2345-7", "mmol/L", "5.5"),
        (key("Observation/pressure#1"), ADA, 3004249, MAY_1, NINE, EHR, None, 120.0, None, 8876,
         None, None, STAY, None, f"{LOINC}|8480-6", "mm[Hg]", "120.0"),
        (key("Observation/pressure#2"), ADA, 3012888, MAY_1, NINE, EHR, None, 80.0, None, 8876,
         None, None, STAY, None, f"{LOINC}|8462-4", "mm[Hg]", "80.0"),
    ],
    "observation": [
        (key("Observation/smoking"), ADA, 0, date(2020, 1, 15), None, EHR, None, f"{SNOMED}|266919005", 0,
         None, f"{LOINC}|72166-2"),
    ],
    "drug_exposure": [
        (key("MedicationRequest/order"), ADA, 0, MAY_1, datetime(2021, 5, 1, 10), MAY_1,
         datetime(2021, 5, 1, 10), 32838, None, 0, STAY, f"{RXNORM}|other", f"{SNOMED}|26643006", None),
        (key("MedicationAdministration/dose"), ADA, 0, MAY_1, datetime(2021, 5, 1, 11), MAY_1,
         datetime(2021, 5, 1, 12), 32818, 40.0, None, STAY, f"{RXNORM}|other", None, "mg"),
    ],
    "procedure_occurrence": [
        (key("Procedure/echo"), ADA, 0, MAY_2, datetime(2021, 5, 2, 12), EHR, STAY, f"{SNOMED}|40701008"),
    ],
    "death": [(BO, date(2021, 7, 1), None, EHR, None)],
    "care_site": [(key("Organization/house"), None, 0)],
    "visit_extra": [(STAY, True, False), (CLINIC, False, False)],
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(load):
    return load(small_hospital(), site="house")


@pytest.mark.parametrize("table", EXPECTED)
def test_a_small_hospital_becomes_the_rows_written_here(loaded, table):
    assert loaded.rows(table) == sorted(EXPECTED[table], key=lambda row: row[0])


def test_the_source_row_names_the_site_the_extract_date_and_the_version(loaded):
    name, *_, released, _, version, concept, vocabulary = loaded.one("cdm_source")
    assert (name, released, version, concept) == ("house", JUNE_1, "v5.4", 756265)
    assert vocabulary.startswith("fedhealth ")


def test_every_table_has_the_columns_of_the_specification_in_order(load):
    loaded = load([patient("ada")])
    for table in (*TABLES.values(), VISIT_EXTRA):
        described = loaded.describe(table.name)
        assert described == [(column.name, column.type) for column in table.columns], table.name
    for name, columns in PRIVATE_TABLES.items():
        assert loaded.describe(f"private/{name}") == list(columns), name


def test_every_row_can_be_traced_to_its_resource(loaded):
    traced = {(table, row) for table, row, _ in loaded.rows("private/id_map")}
    for table, columns in TABLES.items():
        if columns.key is not None and table != "observation_period":
            assert {(table, row) for row in loaded.column(table, columns.key)} <= traced, table
    assert {key(reference) for *_, reference in loaded.rows("private/id_map")} == {row for _, row in traced}


def test_the_strict_models_accept_the_hospital_and_change_nothing(load, loaded):
    assert load(small_hospital(), validate="all").digests() == loaded.digests()


def test_an_id_map_is_written_in_slices_of_any_size(load, monkeypatch):
    whole = pq.read_table(load(small_hospital()).folder / "private" / "id_map.parquet")
    monkeypatch.setattr("fedhealth.cdm.output.SLICE", 2)
    sliced = pq.read_table(load(small_hospital()).folder / "private" / "id_map.parquet")
    assert sliced.equals(whole)
    assert whole.to_pylist() == sorted(whole.to_pylist(), key=lambda row: (row["omop_table"], row["omop_id"]))
