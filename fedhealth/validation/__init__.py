"""The data quality gate in front of training: may this CDM be used?"""

from fedhealth.validation.gate import validate_cdm
from fedhealth.validation.report import Check, ValidationReport

__all__ = ["Check", "ValidationReport", "validate_cdm"]
