"""How much slower is a DP-SGD step on Opacus than the same step without privacy? Prints one ratio.

    python benchmarks/dp_step.py [--batch 32] [--steps 200]

Both run the study's default network (128-256-128-64-1) on one thread over the same rows in the same
process, in alternating blocks, and the median of the blocks counts. The private step includes the Poisson
draw, clipping and keyed noise.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch

from fedhealth.models.networks import Perceptron
from fedhealth.privacy.noise import NoiseSource
from fedhealth.training.plain import plain_steps
from fedhealth.training.plan import LocalPlan
from fedhealth.training.private import private_steps

BLOCKS = 7
ROWS = 2048


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(ROWS, 128)).astype(np.float32)
    labels = (generator.random(ROWS) < 0.2).astype(np.float32)
    seconds: dict[str, list[float]] = {"plain": [], "private": []}
    for block in range(BLOCKS + 1):
        for kind, run in (("plain", _plain), ("private", _private)):
            start = time.perf_counter()
            run(inputs, labels, batch=arguments.batch, steps=arguments.steps)
            if block:  # the first block warms up
                seconds[kind].append((time.perf_counter() - start) / arguments.steps)
    plain, private = (statistics.median(seconds[kind]) * 1e3 for kind in ("plain", "private"))
    line = {
        "claim": "opacus_step_over_plain_step",
        "ratio": round(private / plain, 2),
        "private_ms": round(private, 3),
        "plain_ms": round(plain, 3),
        "batch": arguments.batch,
    }
    print(json.dumps(line))


def _network() -> tuple[Perceptron, torch.optim.Optimizer]:
    network = Perceptron([128, 256, 128, 64, 1], (0.3, 0.2), torch.Generator().manual_seed(0))
    return network, torch.optim.SGD(network.parameters(), lr=0.01)


def _plain(inputs: np.ndarray, labels: np.ndarray, *, batch: int, steps: int) -> None:
    network, optimizer = _network()
    plain_steps(network, inputs, labels, steps=steps, batch_size=batch, optimizer=optimizer, seed=0)


def _private(inputs: np.ndarray, labels: np.ndarray, *, batch: int, steps: int) -> None:
    network, optimizer = _network()
    plan = LocalPlan(
        sampling_probability=batch / ROWS, steps=steps, noise_multiplier=1.0, expected_batch_size=batch
    )
    private_steps(
        network,
        inputs,
        labels,
        np.arange(ROWS),
        plan=plan,
        optimizer=optimizer,
        l2_clip_norm=1.0,
        source=NoiseSource(bytes(32)),
    )


if __name__ == "__main__":
    main()
