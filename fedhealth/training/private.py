"""DP-SGD on Opacus, with every random draw from the site's keyed cryptographic stream."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModuleFastGradientClipping, register_grad_sampler
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn

from fedhealth.models.layers import InputNorm
from fedhealth.models.losses import row_losses
from fedhealth.privacy.noise import NoiseSource
from fedhealth.study.targets import Target
from fedhealth.training.plan import LocalPlan
from fedhealth.training.sampling import PatientSampler


@register_grad_sampler(InputNorm)  # type: ignore[untyped-decorator]  # Opacus has no types
def _input_norm_gradients(
    layer: InputNorm, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Each row's own gradient of scale and shift, (rows, inputs); of a series, summed over its steps."""
    each = {layer.scale: activations[0] * backprops, layer.shift: backprops}
    return {of: (value.sum(dim=1) if value.ndim == 3 else value) for of, value in each.items()}


class KeyedDPOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]  # Opacus has no types
    """Opacus' optimiser with its noise from a `NoiseSource` instead of torch's generator.

    Guarantees: the sum of clipped gradients gets N(0, (noise_multiplier * max_grad_norm)^2) per coordinate,
    also when the batch is empty; it is divided by ``expected_batch_size``. Noise is added in double
    precision, then rounded to float32.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, source: NoiseSource, **settings: Any) -> None:
        super().__init__(optimizer, **settings)
        self.source = source

    def add_noise(self) -> None:
        """Write clipped sum + noise into ``p.grad`` of every parameter."""
        std = self.noise_multiplier * self.max_grad_norm
        noise = torch.from_numpy(self.source.normals(sum(p.numel() for p in self.params)) * std)
        start = 0
        for parameter in self.params:
            end = start + parameter.numel()
            noisy = parameter.summed_grad.double() + noise[start:end].view_as(parameter)
            parameter.grad = noisy.to(parameter.dtype)
            start = end


def private_steps(
    network: nn.Module,
    inputs: tuple[NDArray[np.float32], ...],
    labels: NDArray[np.float32],
    targets: tuple[Target, ...],
    person: NDArray[np.int64],
    *,
    plan: LocalPlan,
    optimizer: torch.optim.Optimizer,
    l2_clip_norm: float,
    source: NoiseSource,
) -> float:
    """Run ``plan.steps`` steps of DP-SGD in place.

    Guarantees: each step is the Gaussian mechanism with ``plan.noise_multiplier`` on a Poisson sample of
    patients with ``plan.sampling_probability``, one row each, whose gradients are clipped over all
    parameters together, by norms that need no per-sample gradient ("ghost clipping"); the result is a
    function of the data and the source's key, so a restart gives the same bytes.

    Args:
      network: trained in place, where its parameters require a gradient; of linear layers and `InputNorm`.
      inputs: what the network takes, each (rows, ...).
      labels: (rows, targets), NaN where not known.
      targets: of the study.
      person: (rows,), the patient of each row.
      plan: with a noise multiplier.
      optimizer: torch's, over the network's parameters that require a gradient.
      l2_clip_norm: bound C on one patient's gradient.
      source: of this round alone.

    Returns:
      The mean loss over the drawn rows of at least one known label. It comes from patients and is not noised: it
      stays at the site.

    Source: Abadi et al. 2016, Algorithm 1; the norms: Goodfellow 2015, Li et al. 2022.
    """
    module = GradSampleModuleFastGradientClipping(
        network, loss_reduction="sum", max_grad_norm=l2_clip_norm, use_ghost_clipping=True
    )
    private = KeyedDPOptimizer(
        optimizer,
        source=source.fork("gaussian"),
        noise_multiplier=plan.noise_multiplier,
        max_grad_norm=l2_clip_norm,
        expected_batch_size=plan.expected_batch_size,
    )
    sampler, draws = PatientSampler.of(person), source.fork("poisson")
    arrays, known = [torch.from_numpy(each) for each in inputs], torch.from_numpy(labels)
    is_known, total, rows = ~known.isnan().all(dim=1), 0.0, 0
    for _ in range(plan.steps):
        drawn = torch.from_numpy(sampler.draw(draws, sampling_probability=plan.sampling_probability))
        private.zero_grad(set_to_none=True)
        # inputs that require a gradient: else torch warns that a hook sees none
        outputs = module(*(each[drawn].requires_grad_() for each in arrays))
        losses = row_losses(outputs, known[drawn], targets)
        DPTensorFastGradientClipping(module, private, losses, loss_reduction="sum").backward()
        private.step()
        total, rows = total + float(losses.detach().sum()), rows + int(is_known[drawn].sum())
    module.remove_hooks()
    return total / max(rows, 1)
