"""Pooled metrics from securely summed score counts."""

from fedhealth.evaluation.scores import Metrics, encode_scores, pooled_metrics, scores_length

__all__ = ["Metrics", "encode_scores", "pooled_metrics", "scores_length"]
