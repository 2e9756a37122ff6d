"""Reports with made-up figures, for tests of how they are shown."""

import numpy as np

from fedhealth.evaluation import decode_evaluation, encode_evaluation
from fedhealth.reporting import StudyReport, headlines, subgroup_rows
from fedhealth.reporting.report import (
    CombinedRound,
    Combining,
    ComparisonRow,
    Log,
    Privacy,
    RegisteredModel,
    RoundFigures,
    SiteState,
)
from fedhealth.study.targets import Target


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


def combined_round(number, **changes):
    content = {
        "round": number,
        "included": ("hospital-01", "hospital-02"),
        "left_out": {"hospital-03": "abstained: validation/person/cdmDatatype"},
        "agreed": 2,
        "contradicted": (),
        "cosigners": 2,
        "upload_bytes": {"hospital-01": 354_000, "hospital-02": 361_000, "hospital-03": 0},
    }
    return CombinedRound(**content | changes)


def combining(**changes):
    content = {
        "mode": "masks",
        "grows": False,
        "weighting": "examples",
        "robust": "none",
        "attackers": None,
        "group_size": None,
        "ring_bits": 32,
        "sent_share": 1.0,
        "colluders": 1,
        "reopened_by": 2,
        "rounds": (combined_round(1), combined_round(2)),
        "blamed": {},
    }
    return Combining(**content | changes)


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
        "rounds_planned": 2,
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
        "combining": combining(),
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


TARGETS = (
    Target("death", "binary"),
    Target("disposition", "classes", outputs=3, classes=("home", "facility", "died")),
    Target("stay", "number", low=0.0, high=30.0),
    Target("survival", "hazard", outputs=6),
)
SUBGROUPINGS = ("sex", "age_band")


def evaluation(targets=TARGETS, *, rows=4000, seed=0):
    """What is told of made-up scores of made-up people, by the code that tells of real ones."""
    generator = np.random.default_rng(seed)
    severity = generator.normal(0.0, 1.0, rows)
    near = severity[:, None] + generator.normal(0.0, 1.0, (rows, 3))
    death = (generator.random(rows) < 1 / (1 + np.exp(2.0 - severity))).astype(np.float32)
    disposition = np.clip(np.rint(near[:, 0] + 0.4), 0, 2)
    stay = np.exp(1.0 + 0.5 * near[:, 1])
    survival = np.clip(generator.integers(12, size=rows) - (near[:, 2] > 1) * 3, 0, 12)
    scores = {
        "death": 1 / (1 + np.exp(1.7 - 0.8 * severity - generator.normal(0, 0.7, rows)))[:, None],
        "disposition": _softmax(severity[:, None] * np.array([-1.0, 0.3, 0.8])),
        "stay": np.exp(1.1 + 0.3 * severity)[:, None],
        "survival": np.repeat(1 / (1 + np.exp(2.0 - severity))[:, None], 6, axis=1),
    }
    labels = {"death": death, "disposition": disposition, "stay": stay, "survival": survival}
    groups = np.column_stack(
        [generator.integers(2, size=rows), generator.choice(4, rows, p=[0.001, 0.3, 0.4, 0.299])]
    )
    vector = encode_evaluation(
        np.column_stack([scores[target.name] for target in targets]),
        np.column_stack([labels[target.name] for target in targets]),
        np.arange(rows),
        np.column_stack([groups, np.full(rows, -1)]).astype(np.int8),
        targets,
        SUBGROUPINGS,
    )
    return decode_evaluation(vector, targets, SUBGROUPINGS)


def evaluated_report(targets=TARGETS, *, rows=4000, **changes):
    """A study of several outcomes whose report has everything that an evaluation tells."""
    told = evaluation(targets, rows=rows)
    own = headlines(told, targets)
    content = {
        "study": "ward",
        "outcome": targets[0].name,
        "outcomes": tuple(target.name for target in targets),
        "comparison": tuple(
            ComparisonRow(**each._asdict(), model=model, is_reference=model != "federated_dp")
            for model in ("local_mean", "federated", "federated_dp")
            for each in own
        ),
        "rounds_figures": tuple(
            RoundFigures(
                round=number,
                auroc=None,
                sites=2,
                seconds=1.0,
                figures={each.outcome: each.value and each.value - 0.1 / number for each in own},
            )
            for number in (1, 2, 3)
        ),
        "metrics": dict(told.metrics),
        "tables": {name: tuple(map(dict, table)) for name, table in told.tables.items()},
        "subgroups": subgroup_rows(told, targets, SUBGROUPINGS),
    }
    return study_report(**content | changes)


def _softmax(logits):
    raised = np.exp(logits)
    return raised / raised.sum(axis=1, keepdims=True)
