"""Cohort, outcome and features: from a site's OMOP Parquet to the rows that its model is trained on."""

from fedhealth.features.attrition import Attrition
from fedhealth.features.build import build_rows
from fedhealth.features.rows import Rows, load_rows, save_rows

__all__ = ["Attrition", "Rows", "build_rows", "load_rows", "save_rows"]
