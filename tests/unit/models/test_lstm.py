"""The recurrent layer against torch's own, and by finite differences; padding is no time."""

import pytest
import torch
from torch import nn

from fedhealth.models.lstm import LstmLayer


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return LstmLayer(7, 5)


def torchs_own(layer):
    """torch.nn.LSTM with the layer's weights."""
    other = nn.LSTM(layer.inputs, layer.units, batch_first=True)
    from_input, from_state = layer.gates.weight.detach().split([layer.inputs, layer.units], dim=1)
    with torch.no_grad():
        other.weight_ih_l0.copy_(from_input)
        other.weight_hh_l0.copy_(from_state)
        other.bias_ih_l0.copy_(layer.gates.bias)
        other.bias_hh_l0.zero_()
    return other


def test_states_and_gradients_are_those_of_torchs_own(layer):
    values, pull = draw(4, 11, 7).requires_grad_(), draw(4, 11, 5, seed=1)
    other, active = torchs_own(layer), torch.ones(4, 11, 1)
    states, expected = layer(values, active), other(values)[0]
    torch.testing.assert_close(states, expected, atol=1e-6, rtol=0)
    inner, weight, bias = torch.autograd.grad(
        (states * pull).sum(), [values, layer.gates.weight, layer.gates.bias]
    )
    named = [values, other.weight_ih_l0, other.weight_hh_l0, other.bias_ih_l0]
    truth = torch.autograd.grad((expected * pull).sum(), named)
    torch.testing.assert_close(inner, truth[0], atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(weight, torch.cat(truth[1:3], dim=1), atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(bias, truth[3], atol=5e-6, rtol=1e-5)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    layer = LstmLayer(2, 2).double()
    active = torch.ones(2, 4, 1, dtype=torch.float64)
    active[1, :2] = 0
    values = draw(2, 4, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v, *_: layer(v, active), (values, layer.gates.weight, layer.gates.bias)
    )


def test_a_row_that_begins_late_is_the_row_without_what_was_before(layer):
    values, pull = draw(2, 9, 7), draw(2, 5, 5, seed=1)
    active = torch.ones(2, 9, 1)
    active[:, :4] = 0
    late, alone = layer(values, active), layer(values[:, 4:], torch.ones(2, 5, 1))
    assert not late[:, :4].any()
    torch.testing.assert_close(late[:, 4:], alone, atol=1e-6, rtol=0)
    gradients = [
        torch.autograd.grad((each * pull).sum(), list(layer.parameters())) for each in (late[:, 4:], alone)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_a_rows_states_are_its_own(layer):
    values, active = draw(6, 8, 7), torch.ones(6, 8, 1)
    together = layer(values, active)
    for row in range(6):
        torch.testing.assert_close(layer(values[[row]], active[[row]])[0], together[row], atol=1e-6, rtol=0)
