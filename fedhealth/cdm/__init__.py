"""FHIR R4 to OMOP CDM 5.4 as Parquet, at the site."""

from fedhealth.cdm.accounting import Accounting, read_accounting
from fedhealth.cdm.crew import Crew, Part, run_part
from fedhealth.cdm.pipeline import Progress, harmonize

__all__ = ["Accounting", "Crew", "Part", "Progress", "harmonize", "read_accounting", "run_part"]
