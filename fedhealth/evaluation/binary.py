"""A yes or no as the other kinds of target are judged: `fedhealth.evaluation.scores` under the common names."""

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation.cells import Counts, Figures, Table
from fedhealth.evaluation.scores import (
    counted_scores,
    encode_marked,
    pooled_metrics,
    pooled_tables,
    scores_length,
)
from fedhealth.evaluation.scores import sides as sides
from fedhealth.study.targets import Target

HEADLINE = "auroc"
BY_GROUP = ("auroc", "low", "high", "auroc_resolution", "calibration_in_the_large", "n", "n_positive")
BINS = (512, 128)


def length(target: Target, *, bins: int) -> int:
    """Length of the vector that `encode` gives."""
    return scores_length(bins=bins)


def encode(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    once: NDArray[np.bool_],
    *,
    target: Target,
    bins: int,
) -> Counts:
    """Encode (rows, 1) probabilities with one row of every person on every side marked."""
    return encode_marked(scores[:, 0], labels, once, bins=bins)


def metrics(vector: Counts, *, target: Target, bins: int, min_cell: int) -> Figures:
    """`pooled_metrics` by name."""
    return pooled_metrics(vector, bins=bins, min_cell=min_cell).figures()


def tables(vector: Counts, *, target: Target, bins: int, min_cell: int) -> dict[str, Table]:
    """`pooled_tables`."""
    return pooled_tables(vector, bins=bins, min_cell=min_cell)


def counted(vector: Counts, *, target: Target, bins: int) -> tuple[Counts, Counts]:
    """Rows, and people, without and with the outcome."""
    return counted_scores(vector, bins=bins)
