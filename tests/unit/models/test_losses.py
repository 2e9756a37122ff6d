"""Losses against scikit-learn and by hand; a label that is not known neither costs nor pulls."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from fedhealth.models.losses import row_losses
from fedhealth.study.targets import Target

DEATH = Target("death", "binary")
WHERE = Target("where", "classes", outputs=3, classes=("home", "facility", "died"))
STAY = Target("los", "number", low=0.0, high=30.0, center=5.0, spread=5.0)
SURVIVAL = Target("survival", "hazard", outputs=4)


def test_yes_or_no_and_classes_cost_the_cross_entropy():
    outputs = torch.tensor([[0.3, 1.0, -1.0, 0.2], [-2.0, 0.0, 0.5, 0.1]])
    labels = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    losses = row_losses(outputs, labels, (DEATH, WHERE))
    classes = torch.softmax(outputs[:, 1:], dim=1).numpy()
    for row, (death, where) in enumerate(((1, 2), (0, 0))):
        expected = log_loss([death], [torch.sigmoid(outputs[row, 0]).item()], labels=[0, 1])
        assert losses[row].item() == pytest.approx(expected - np.log(classes[row, where]), rel=1e-5)


def test_a_number_is_clipped_to_its_bounds_and_costs_huber():
    losses = row_losses(torch.tensor([[0.0], [0.0]]), torch.tensor([[6.0], [400.0]]), (STAY,))
    assert losses.tolist() == pytest.approx([0.5 * 0.2**2, 5.0 - 0.5])


def test_survival_counts_every_interval_lived_through():
    logits = torch.tensor([[0.1, -0.4, 0.7, 2.0]])
    hazards = torch.sigmoid(logits)[0]
    event = row_losses(logits, torch.tensor([[2 * 2 + 1.0]]), (SURVIVAL,))
    assert event.item() == pytest.approx(-torch.log((1 - hazards[0]) * (1 - hazards[1]) * hazards[2]).item())
    censored = row_losses(logits, torch.tensor([[2 * 2 + 0.0]]), (SURVIVAL,))
    assert censored.item() == pytest.approx(-torch.log((1 - hazards[0]) * (1 - hazards[1])).item())


def test_an_unknown_label_neither_costs_nor_pulls():
    targets = (DEATH, WHERE, STAY, SURVIVAL)
    outputs = torch.randn(3, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([[float("nan")] * 4, [1.0, float("nan"), 3.0, float("nan")], [0.0, 1.0, 2.0, 5.0]])
    losses = row_losses(outputs, labels, targets)
    losses.sum().backward()
    assert losses[0].item() == 0.0
    assert torch.isfinite(losses).all()
    assert not outputs.grad[0].any()
    assert not outputs.grad[1, 1:4].any()
    assert outputs.grad[1, 0] != 0
