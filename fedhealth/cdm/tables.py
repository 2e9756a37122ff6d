"""The OMOP CDM 5.4 tables that we fill: names, columns in OMOP's order, DuckDB types, required columns.

Source: OMOP CDM 5.4 (https://ohdsi.github.io/CommonDataModel/cdm54.html); a subset of its tables and columns.
"""

from dataclasses import dataclass
from typing import Literal

Type = Literal["BIGINT", "INTEGER", "DOUBLE", "VARCHAR", "DATE", "TIMESTAMP", "BOOLEAN"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its DuckDB type, and whether OMOP requires a value in every row."""

    name: str
    type: Type
    required: bool


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its name, its columns in order, and its primary key (None for death and cdm_source)."""

    name: str
    columns: tuple[Column, ...]
    key: str | None

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the columns that hold a value in every row."""
        return tuple(column.name for column in self.columns if column.required)


def _type_of(name: str) -> Type:
    if name.endswith("_concept_id") or name in ("year_of_birth", "month_of_birth", "day_of_birth"):
        return "INTEGER"
    if name.endswith("_id"):
        return "BIGINT"
    if name.endswith("datetime"):
        return "TIMESTAMP"
    if name.endswith("_date"):
        return "DATE"
    if name in ("value_as_number", "range_low", "range_high", "quantity"):
        return "DOUBLE"
    return "BOOLEAN" if name.startswith("is_") else "VARCHAR"


def _table(name: str, columns: str, *, key: bool = True) -> Table:
    """A table from its column names; ``*`` marks a required one. The first column is the key."""
    words = columns.split()
    parsed = tuple(Column(w.rstrip("*"), _type_of(w.rstrip("*")), w.endswith("*")) for w in words)
    return Table(name, parsed, parsed[0].name if key else None)


_ALL = (
    _table(
        "person",
        "person_id* gender_concept_id* year_of_birth* month_of_birth day_of_birth birth_datetime race_concept_id* "
        "ethnicity_concept_id* care_site_id gender_source_value race_source_value ethnicity_source_value",
    ),
    _table(
        "observation_period",
        "observation_period_id* person_id* observation_period_start_date* observation_period_end_date* "
        "period_type_concept_id*",
    ),
    _table(
        "visit_occurrence",
        "visit_occurrence_id* person_id* visit_concept_id* visit_start_date* visit_start_datetime visit_end_date* "
        "visit_end_datetime visit_type_concept_id* care_site_id visit_source_value admitted_from_concept_id "
        "admitted_from_source_value discharged_to_concept_id discharged_to_source_value "
        "preceding_visit_occurrence_id",
    ),
    _table(
        "visit_detail",
        "visit_detail_id* person_id* visit_detail_concept_id* visit_detail_start_date* visit_detail_start_datetime "
        "visit_detail_end_date* visit_detail_end_datetime visit_detail_type_concept_id* care_site_id "
        "visit_occurrence_id*",
    ),
    _table(
        "condition_occurrence",
        "condition_occurrence_id* person_id* condition_concept_id* condition_start_date* condition_start_datetime "
        "condition_end_date condition_type_concept_id* condition_status_concept_id condition_source_value "
        "condition_source_concept_id visit_occurrence_id",
    ),
    _table(
        "measurement",
        "measurement_id* person_id* measurement_concept_id* measurement_date* measurement_datetime "
        "measurement_type_concept_id* operator_concept_id value_as_number value_as_concept_id unit_concept_id "
        "range_low range_high visit_occurrence_id visit_detail_id measurement_source_value unit_source_value "
        "value_source_value",
    ),
    _table(
        "drug_exposure",
        "drug_exposure_id* person_id* drug_concept_id* drug_exposure_start_date* drug_exposure_start_datetime "
        "drug_exposure_end_date* drug_exposure_end_datetime drug_type_concept_id* quantity route_concept_id "
        "visit_occurrence_id drug_source_value route_source_value dose_unit_source_value",
    ),
    _table(
        "procedure_occurrence",
        "procedure_occurrence_id* person_id* procedure_concept_id* procedure_date* procedure_datetime "
        "procedure_type_concept_id* visit_occurrence_id procedure_source_value",
    ),
    _table(
        "observation",
        "observation_id* person_id* observation_concept_id* observation_date* observation_datetime "
        "observation_type_concept_id* value_as_number value_as_string value_as_concept_id visit_occurrence_id "
        "observation_source_value",
    ),
    _table(
        "death", "person_id* death_date* death_datetime death_type_concept_id* cause_concept_id", key=False
    ),
    _table("care_site", "care_site_id* care_site_name place_of_service_concept_id"),
    _table(
        "cdm_source",
        "cdm_source_name* cdm_source_abbreviation* cdm_holder* source_release_date* cdm_release_date* cdm_version "
        "cdm_version_concept_id* vocabulary_version*",
        key=False,
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _ALL}
"""The tables of the CDM by name, each one Parquet file ``<cdm_dir>/<name>.parquet``."""

VISIT_EXTRA = _table("visit_extra", "visit_occurrence_id* is_emergency* is_planned*")
"""Beside the CDM: how a visit was admitted, which OMOP has no column for."""

PRIVATE_TABLES: dict[str, tuple[tuple[str, Type], ...]] = {
    "id_map": (("omop_table", "VARCHAR"), ("omop_id", "BIGINT"), ("fhir_reference", "VARCHAR")),
    "quarantine": (
        ("resource_type", "VARCHAR"),
        ("file", "VARCHAR"),
        ("line", "BIGINT"),
        ("reason_code", "VARCHAR"),
        ("json_path", "VARCHAR"),
        ("source_digest", "VARCHAR"),
        ("fhir_id", "VARCHAR"),
    ),
    "findings": (
        ("resource_type", "VARCHAR"),
        ("file", "VARCHAR"),
        ("line", "BIGINT"),
        ("reason_code", "VARCHAR"),
        ("json_path", "VARCHAR"),
        ("fhir_id", "VARCHAR"),
    ),
    "unmapped": (
        ("system", "VARCHAR"),
        ("code", "VARCHAR"),
        ("display", "VARCHAR"),
        ("unit", "VARCHAR"),
        ("n", "BIGINT"),
    ),
}
"""Outside the CDM, in ``<cdm_dir>/private/``: what traces a row to its source. It never leaves the site."""
