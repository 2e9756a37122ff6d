"""The transparency log, and the proof that nothing in a model's history was changed."""

from fedhealth.audit.bundle import BundleResult, export_bundle, verify_bundle
from fedhealth.audit.checkpoints import Checkpoint
from fedhealth.audit.log import Entry, TransparencyLog
from fedhealth.audit.statements import DIGEST_TAG, INDEX_TAG, MODEL_PREFIX, ROSTER_SUBJECT, StatementKind
from fedhealth.audit.verify import AuditResult, Finding, verify_exchange
from fedhealth.audit.witness import Witness

__all__ = [
    "DIGEST_TAG",
    "INDEX_TAG",
    "MODEL_PREFIX",
    "ROSTER_SUBJECT",
    "AuditResult",
    "BundleResult",
    "Checkpoint",
    "Entry",
    "Finding",
    "StatementKind",
    "TransparencyLog",
    "Witness",
    "export_bundle",
    "verify_bundle",
    "verify_exchange",
]
