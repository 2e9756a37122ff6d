"""Federated evaluation: counts that can be summed securely, and the metrics and tables of the sum."""

from fedhealth.evaluation.cells import Figures, Table
from fedhealth.evaluation.scores import Metrics, encode_scores, pooled_metrics, scores_length
from fedhealth.evaluation.vector import (
    HEADLINES,
    Evaluation,
    decode_evaluation,
    encode_evaluation,
    evaluation_length,
    headline_metric,
    prefix_of,
)

__all__ = [
    "HEADLINES",
    "Evaluation",
    "Figures",
    "Metrics",
    "Table",
    "decode_evaluation",
    "encode_evaluation",
    "encode_scores",
    "evaluation_length",
    "headline_metric",
    "pooled_metrics",
    "prefix_of",
    "scores_length",
]
