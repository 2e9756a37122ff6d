"""The loss of a row: the sum over the targets whose label is known. A row of no known label costs nothing."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss

from fedhealth.study.targets import Target, output_slices


def row_losses(outputs: Tensor, labels: Tensor, targets: tuple[Target, ...]) -> Tensor:
    """The loss of every row.

    Guarantees: finite whatever labels are NaN; a row's loss depends on that row alone; no gradient flows from a
    label that is not known.

    Args:
      outputs: of the network, (rows, outputs), in the order of the targets.
      labels: (rows, targets), as `fedhealth.study.targets` writes them.
      targets: of the study.

    Returns:
      (rows,): cross-entropy for yes or no, for classes, and over the intervals survived (nats); for a number the
      Huber loss of (label - center) / spread.
    """
    total = torch.zeros(len(outputs), dtype=outputs.dtype)
    for column, (target, place) in enumerate(zip(targets, output_slices(targets), strict=True)):
        known = ~torch.isnan(labels[:, column])
        label = torch.where(known, labels[:, column], 0.0)
        total = total + torch.where(known, _LOSSES[target.kind](outputs[:, place], label, target), 0.0)
    return total


def _binary(outputs: Tensor, label: Tensor, target: Target) -> Tensor:
    return binary_cross_entropy_with_logits(outputs[:, 0], label, reduction="none")


def _classes(outputs: Tensor, label: Tensor, target: Target) -> Tensor:
    return cross_entropy(outputs, label.long(), reduction="none")


def _number(outputs: Tensor, label: Tensor, target: Target) -> Tensor:
    scaled = (label.clamp(target.low, target.high) - target.center) / target.spread
    return smooth_l1_loss(outputs[:, 0], scaled, reduction="none")


def _hazard(outputs: Tensor, label: Tensor, target: Target) -> Tensor:
    """Discrete-time survival: cross-entropy of each interval lived through, and of the last one.

    Somebody censored within an interval counts up to the one before it.

    Source: Gensheimer and Narasimhan 2019, equation 4.
    """
    interval = torch.div(label, 2, rounding_mode="floor").long()
    is_event = label - 2 * interval
    steps = torch.arange(target.outputs)
    is_last = steps == interval[:, None]
    counted = (steps < interval[:, None]) | (is_last & (is_event[:, None] > 0))
    each = binary_cross_entropy_with_logits(
        outputs, (is_last & (is_event[:, None] > 0)).to(outputs.dtype), reduction="none"
    )
    return (each * counted).sum(dim=1)


_LOSSES = {"binary": _binary, "classes": _classes, "number": _number, "hazard": _hazard}
