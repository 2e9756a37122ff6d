"""Models that grow by secure sums of integers instead of updates of weights: boosted trees and Cox regression.

A round is `steps_of` sums, one after the other. Every site encodes its rows, given the round's model and the sums that
the round has opened so far; after the last one everybody computes the next model from the opened sums. All of it is
pure, and the next model is computed with the same bytes on every processor.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.stepwise import boosting, cox
from fedhealth.models.stepwise.rows import MAX_ROWS, MAX_SITES, TrainingRows
from fedhealth.models.weights import Weights
from fedhealth.study.columns import FeatureColumn
from fedhealth.study.spec import Study

__all__ = ["MAX_ROWS", "MAX_SITES", "STEPWISE", "Stepwise", "TrainingRows"]


class Stepwise(Protocol):
    """The functions of one kind of model; `boosting` says what each guarantees."""

    INPUTS: Literal["raw", "prepared"]
    """What ``inputs`` are: features in raw units with NaN where missing, or what `prepare` makes of them."""

    def steps_of(self, study: Study) -> int:
        """Sums per round."""

    def step_length(self, study: Study, columns: Sequence[FeatureColumn], *, step: int) -> int:
        """Length of the vector of a step, from 0. Its ring has 64 bits."""

    def initial_model(self, study: Study, columns: Sequence[FeatureColumn]) -> Weights:
        """The model before the first round: named arrays of shapes that no round changes."""

    def encode_step(
        self,
        model: Weights,
        opened: Sequence[NDArray[np.int64]],
        rows: TrainingRows,
        *,
        columns: Sequence[FeatureColumn],
        study: Study,
    ) -> NDArray[np.int64]:
        """One site's part of step ``len(opened)`` of the round."""

    def next_model(
        self,
        model: Weights,
        opened: Sequence[NDArray[np.int64]],
        *,
        columns: Sequence[FeatureColumn],
        study: Study,
        number: int,
    ) -> Weights:
        """The model after round ``number``, from 1, given all its opened sums."""

    def score(
        self,
        model: Weights,
        inputs: NDArray[np.float32],
        *,
        columns: Sequence[FeatureColumn],
        study: Study,
    ) -> NDArray[np.float32]:
        """(rows, outputs) in the form of the target's kind, as `fedhealth.models.networks.predict` gives them."""


STEPWISE: dict[str, Stepwise] = {"gbm": boosting, "cox": cox}
"""By ``model.kind``."""
