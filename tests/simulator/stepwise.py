"""A stepwise model trained over sites in memory: the secure sums are plain ones."""

import json

import numpy as np

from fedhealth.models.stepwise import STEPWISE, TrainingRows
from fedhealth.study.columns import FeatureColumn
from fedhealth.study.spec import Study

YES_OR_NO = {"kind": "death", "within": "stay"}
DAYS = {"kind": "length_of_stay"}
SURVIVAL = {"kind": "survival", "event": "death", "horizon_days": 365}


def study_of(kind, outcome, *, rounds, **model):
    return Study.model_validate_json(
        json.dumps(
            {
                "schema_version": 1,
                "name": "stepwise",
                "outcomes": {"outcome": outcome},
                "prediction": {"at": "admission", "plus_h": 24},
                "model": {"kind": kind, **model},
                "training": {"rounds": rounds},
                "privacy": {"mode": "none", "legal_basis": "public data"},
            }
        )
    )


def columns_of(count, *, low=-4.0, high=4.0):
    return tuple(FeatureColumn(f"x{index}", low, high, "number") for index in range(count))


def rows_of(inputs, labels, person=None):
    person = np.arange(len(labels)) if person is None else person
    return TrainingRows(
        np.asarray(inputs, dtype=np.float32), np.asarray(labels, dtype=np.float32), np.asarray(person)
    )


def part(rows, chosen):
    return TrainingRows(rows.inputs[chosen], rows.labels[chosen], rows.person[chosen])


def opened_round(model, sites, *, columns, study):
    """All opened sums of one round."""
    kind, opened = STEPWISE[study.model.kind], []
    for step in range(kind.steps_of(study)):
        vectors = [kind.encode_step(model, opened, rows, columns=columns, study=study) for rows in sites]
        assert all(vector.shape == (kind.step_length(study, columns, step=step),) for vector in vectors)
        opened.append(sum(vectors))
    return opened


def train(sites, *, columns, study):
    """The models of all rounds, the initial one first."""
    kind = STEPWISE[study.model.kind]
    models = [kind.initial_model(study, columns)]
    for number in range(1, study.training.rounds + 1):
        opened = opened_round(models[-1], sites, columns=columns, study=study)
        models.append(kind.next_model(models[-1], opened, columns=columns, study=study, number=number))
    return models
