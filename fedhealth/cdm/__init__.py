"""FHIR R4 to OMOP CDM 5.4 as Parquet, at the site."""

from fedhealth.cdm.accounting import Accounting, read_accounting
from fedhealth.cdm.pipeline import Progress, harmonize

__all__ = ["Accounting", "Progress", "harmonize", "read_accounting"]
