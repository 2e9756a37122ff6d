"""Statements of HL7's FHIR-to-OMOP guide that hold for every table at once."""

import pytest
from simulator.hospital import VERIFICATION, coded, event, patient, small_hospital

from fedhealth.cdm.tables import TABLES
from fedhealth.vocabulary import concepts
from fedhealth.vocabulary.domains import package_concepts


@pytest.fixture(scope="module")
def loaded(load):
    return load(small_hospital())


def test_every_type_concept_is_a_type_and_the_most_general_unless_the_resource_says_more(loaded):
    found = {}
    for table in TABLES.values():
        for column in table.column_names:
            if column.endswith("_type_concept_id"):
                found[table.name] = set(loaded.column(table.name, column))
    expected = {table: {concepts.TYPE_EHR} for table in found}
    expected["drug_exposure"] = {concepts.TYPE_EHR_PRESCRIPTION, concepts.TYPE_EHR_ADMINISTRATION}
    assert found == expected
    kinds = package_concepts()
    assert {kinds[concept].domain for used in found.values() for concept in used} == {"Type Concept"}


def test_every_required_column_has_a_value_in_every_row(loaded):
    for table in TABLES.values():
        rows = loaded.rows(table.name, *table.required)
        assert rows, table.name
        assert all(value is not None for row in rows for value in row), table.name


def test_a_concept_of_our_own_is_above_two_thousand_million(load):
    refuted = event(
        "Condition", "c", recordedDate="2021-05-01", verificationStatus=coded(VERIFICATION, "refuted")
    )
    loaded = load([patient("ada"), refuted])
    assert loaded.column("condition_occurrence", "condition_status_concept_id") == [
        concepts.CONDITION_REFUTED
    ]
    own = {number for number in concepts.NAMES if "(local)" in concepts.NAMES[number]}
    assert own == {concepts.CONDITION_REFUTED}
    assert min(own) >= 2_000_000_000
