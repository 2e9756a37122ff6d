"""Models that grow by sums: what a site's rows are to them, and a whole training over rows on one machine."""

from collections.abc import Iterator, Sequence

import numpy as np

from fedhealth.features.rows import Rows
from fedhealth.models.preprocess import expand_levels, static_inputs
from fedhealth.models.statistics import Statistics
from fedhealth.models.stepwise import STEPWISE, TrainingRows
from fedhealth.models.weights import Weights
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study


def growth_rows(rows: Rows, statistics: Statistics, study: Study) -> TrainingRows:
    """The rows of a training fold as the study's kind of model reads them.

    Args:
      rows: the training fold only.
      statistics: what the site scales by.
      study: gives the kind of model; it has one target.
    """
    make = expand_levels if STEPWISE[study.model.kind].INPUTS == "raw" else static_inputs
    return TrainingRows(make(rows.inputs(), statistics, study), rows.labels[:, 0], rows.person)


def grow(sites: Sequence[TrainingRows], statistics: Statistics, study: Study) -> Iterator[Weights]:
    """The model after every round that these sites grow together, as the rounds of a run would.

    Raises:
      PolicyError: too few people, or too few events, for the kind of model.
    """
    model, columns = STEPWISE[study.model.kind], feature_columns(study, statistics.vocabulary)
    weights = model.initial_model(study, columns)
    for number in range(1, study.training.rounds + 1):
        opened: list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = []
        for _ in range(model.steps_of(study)):
            parts = [model.encode_step(weights, opened, rows, columns=columns, study=study) for rows in sites]
            opened.append(np.sum(parts, axis=0, dtype=np.int64))
        weights = model.next_model(weights, opened, columns=columns, study=study, number=number)
        yield weights
