"""Reports with made-up figures, for tests of how they are shown."""

from fedhealth.reporting import StudyReport
from fedhealth.reporting.report import (
    ComparisonRow,
    Log,
    Privacy,
    RegisteredModel,
    RoundFigures,
    SiteState,
)


def row(model, value=0.71, *, outcome="readmission", is_reference=True):
    low, high = (None, None) if value is None else (value - 0.03, value + 0.03)
    return ComparisonRow(
        outcome=outcome,
        model=model,
        metric="auroc",
        value=value,
        low=low,
        high=high,
        is_reference=is_reference,
    )


def study_report(**changes):
    content = {
        "study": "readmission-30d",
        "title": "Back within <30> days & counted",
        "outcome": "readmission",
        "study_digest": "ab" * 32,
        "run": "readmission-30d-20260102-030405-006",
        "sites": (
            SiteState(name="hospital-01", state="trained", reason=None),
            SiteState(name="hospital-02", state="trained", reason=None),
            SiteState(name="hospital-03", state="abstained", reason="validation/person/cdmDatatype"),
        ),
        "rounds": 2,
        "rounds_figures": (
            RoundFigures(round=1, auroc=None, sites=2, seconds=1.0),
            RoundFigures(round=2, auroc=0.61, sites=2, seconds=1.5),
            RoundFigures(round=3, auroc=0.66, sites=2, seconds=0.5),
        ),
        "comparison": (
            row("local_mean", 0.55),
            row("centralised", 0.68),
            row("federated_dp", 0.66, is_reference=False),
        ),
        "metrics": {"auroc": 0.66, "brier": None},
        "privacy": Privacy(
            unit="patient",
            mode="local",
            epsilon=7.99,
            delta=1e-5,
            per_site={"hospital-01": 7.99, "hospital-02": 7.9},
            not_covered=("moments & histograms", "evaluation counts"),
        ),
        "upload_bytes_per_site_round": 354_000,
        "seconds": {"harmonise": 12.0, "rounds readmission-30d": 30.0},
        "model": RegisteredModel(name="readmission-30d", version="1", uri="models:/readmission-30d/1"),
        "log": Log(size=29, root="cd" * 32, verified=True),
        "attrition": {
            "hospital-01": ({"step": "inpatient stays", "patients": 80}, {"step": "adults", "patients": None})
        },
        "missing_features": ("mean_bp_last",),
        "notes": ("embedded run",),
    }
    return StudyReport(**content | changes)
