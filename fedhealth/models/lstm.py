"""A long short-term memory layer whose gradient per row is exact and cheap under Opacus.

Opacus takes a row's gradient from what goes into a linear layer and what comes back out of it. In a loop over
time the layer would be called once a step, and a whole gradient per row and step be written out: four times
slower. Here the states are found first, without gradients; then one linear layer sees all steps at once, each
input beside the state before it; and `_ThroughTime` gives that layer the gradient through time by hand. What
comes back out of it is therefore the true gradient of every gate at every step, and ghost clipping works.

The memory cell (Gers et al. 2000), for the gates' order in the rows of ``gates.weight``:

    i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of gates([x_t, h_(t-1)])
    c_t = f * c_(t-1) + i * g          h_t = o * tanh(c_t)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class LstmLayer(nn.Module):
    """(rows, steps, inputs) -> (rows, steps, units). A row's states are a function of that row alone."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.inputs, self.units = inputs, units
        self.gates = nn.Linear(inputs + units, 4 * units)

    def forward(self, values: Tensor, active: Tensor) -> Tensor:
        """The states of every step.

        Args:
          values: (rows, steps, inputs).
          active: (rows, steps, 1), 0 for the steps before a row begins and 1 from there on: before it, the
            state is zero and nothing is learnt.
        """
        gates = self.gates(torch.cat((values, self._states_before(values, active)), dim=2)) * active
        to_state = self.gates.weight.detach()[:, self.inputs :]
        states: Tensor = _ThroughTime.apply(gates, to_state)  # type: ignore[no-untyped-call]
        return states

    @torch.no_grad()
    def _states_before(self, values: Tensor, active: Tensor) -> Tensor:
        """h_0 .. h_(T-1), as numbers."""
        from_input, from_state = self.gates.weight[:, : self.inputs], self.gates.weight[:, self.inputs :]
        given = linear(values, from_input, self.gates.bias)
        turned = from_state.T.contiguous()
        cell = state = values.new_zeros(len(values), self.units)
        before = []
        for step in range(values.shape[1]):
            before.append(state)
            gates = torch.addmm(given[:, step], state, turned) * active[:, step]
            admit, keep, new, show = gates.chunk(4, dim=1)
            cell = keep.sigmoid() * cell + admit.sigmoid() * new.tanh()
            state = show.sigmoid() * cell.tanh()
        return torch.stack(before, dim=1)


class _ThroughTime(torch.autograd.Function):
    """States from gates, and the gradient of the gates through time.

    The gates, (rows, steps, 4 * units), already hold what each earlier state gives; the gradient takes that
    into account by ``to_state``, (4 * units, units), the weights from a state to the gates of the next step.
    A step whose gates are zero leaves a state that is zero at zero.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, to_state: Tensor) -> Tensor:
        i, f, g, o = gates.chunk(4, dim=2)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        admitted, cell = i * g, torch.zeros_like(g[:, 0])
        cells, cells_before = torch.empty_like(g), torch.empty_like(g)
        for step in range(gates.shape[1]):
            cells_before[:, step] = cell
            cell = torch.addcmul(admitted[:, step], f[:, step], cell)
            cells[:, step] = cell
        shown = cells.tanh()
        per_cell = torch.cat((g * i * (1 - i), cells_before * f * (1 - f), i * (1 - g * g)), dim=2)
        ctx.save_for_backward(per_cell, shown * o * (1 - o), o * (1 - shown * shown), f, to_state)
        return o * shown

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        per_cell, per_state, cell_per_state, f, to_state = ctx.saved_tensors
        (of_states,) = gradients
        of_gates = torch.empty((*f.shape[:2], 4 * f.shape[2]), dtype=f.dtype)
        state = cell = torch.zeros_like(f[:, 0])  # what later steps send back to this one
        for step in reversed(range(f.shape[1])):
            state = state + of_states[:, step]
            cell = torch.addcmul(cell, state, cell_per_state[:, step])
            of_gates[:, step] = torch.cat(
                (cell.repeat(1, 3) * per_cell[:, step], state * per_state[:, step]), dim=1
            )
            state = of_gates[:, step] @ to_state
            cell = cell * f[:, step]
        return of_gates, None
