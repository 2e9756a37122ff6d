"""Scores of raw rows, whatever the kind of model: at a site, in a reference, in the registered model."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.inputs import RawInputs
from fedhealth.models.networks import score_network
from fedhealth.models.preprocess import expand_levels, static_inputs
from fedhealth.models.statistics import Statistics
from fedhealth.models.stepwise import STEPWISE
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study


def predict(
    weights: Mapping[str, NDArray[np.float32]], statistics: Statistics, study: Study, rows: RawInputs
) -> NDArray[np.float32]:
    """Score raw rows: imputation, clipping and standardisation inside, dropout off.

    Args:
      weights: of the study's model.
      statistics: the consortium's.
      study: gives the kind of model, the columns, their public bounds, and the targets.
      rows: in raw units.

    Returns:
      float32 (rows, outputs): a probability for yes or no, one per class, the number in its unit, or per interval
      the probability that the event comes in it if not before.

    Raises:
      ValueError: shapes do not fit.
    """
    model = STEPWISE.get(study.model.kind)
    if model is None:
        return score_network(weights, statistics, study, rows)
    make = expand_levels if model.INPUTS == "raw" else static_inputs
    columns = feature_columns(study, statistics.vocabulary)
    return model.score(dict(weights), make(rows, statistics, study), columns=columns, study=study)
