"""How much slower is a DP-SGD step on Opacus than the same step without privacy? Prints one ratio.

    python benchmarks/dp_step.py [--kind mlp|multitask|lstm|linear] [--batch 32] [--steps 100]

Both run a kind's default network over 128 static inputs (and 50 steps of series) on one thread over the same rows in
the same process, in alternating blocks, and the median of the blocks counts. The private step includes the Poisson
draw, clipping and keyed noise. A multitask network has three outcomes.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch

from fedhealth.models.networks import build_network
from fedhealth.models.series import CHANNELS
from fedhealth.privacy.noise import NoiseSource
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of
from fedhealth.training.plain import plain_steps
from fedhealth.training.plan import LocalPlan
from fedhealth.training.private import private_steps

BLOCKS = 7
ROWS = 2048


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", default="mlp", choices=["linear", "mlp", "multitask", "lstm"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {"plain": [], "private": []}
    step = Step(arguments.kind, batch=arguments.batch, steps=arguments.steps)
    for block in range(BLOCKS + 1):
        for name, run in (("plain", step.plain), ("private", step.private)):
            start = time.perf_counter()
            run()
            if block:  # the first block warms up
                seconds[name].append((time.perf_counter() - start) / arguments.steps)
    plain, private = (statistics.median(seconds[name]) * 1e3 for name in ("plain", "private"))
    line = {
        "claim": "opacus_step_over_plain_step",
        "kind": arguments.kind,
        "ratio": round(private / plain, 2),
        "private_ms": round(private, 3),
        "plain_ms": round(plain, 3),
        "batch": arguments.batch,
    }
    print(json.dumps(line))


class Step:
    """So many steps of a kind's network over one set of rows, with and without privacy."""

    def __init__(self, kind: str, *, batch: int, steps: int) -> None:
        generator = np.random.default_rng(0)
        outcomes = {"death": {"kind": "death", "within": "stay"}}
        if kind == "multitask":
            outcomes |= {"icu": {"kind": "icu_transfer"}, "los": {"kind": "length_of_stay"}}
        document = {"schema_version": 1, "name": "bench", "outcomes": outcomes, "model": {"kind": kind}}
        prediction = {"at": "admission", "plus_h": 24}
        self.study = Study.model_validate_json(json.dumps({**document, "prediction": prediction}))
        self.targets, self.batch, self.steps = targets_of(self.study), batch, steps
        static = generator.normal(size=(ROWS, 128)).astype(np.float32)
        series = generator.random(size=(ROWS, 50, CHANNELS), dtype=np.float32)
        self.inputs = (static, series) if kind == "lstm" else (static,)
        self.labels = (generator.random((ROWS, len(self.targets))) < 0.2).astype(np.float32)

    def network(self) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """A new one in training, with its optimiser."""
        network = build_network(self.study, inputs=128).train()
        return network, torch.optim.SGD(network.parameters(), lr=0.01)

    def plain(self) -> None:
        """Steps without privacy."""
        network, optimizer = self.network()
        plain_steps(
            network,
            self.inputs,
            self.labels,
            self.targets,
            steps=self.steps,
            batch_size=self.batch,
            optimizer=optimizer,
            seed=0,
        )

    def private(self) -> None:
        """Steps of DP-SGD."""
        network, optimizer = self.network()
        plan = LocalPlan(
            sampling_probability=self.batch / ROWS,
            steps=self.steps,
            noise_multiplier=1.0,
            expected_batch_size=self.batch,
        )
        private_steps(
            network,
            self.inputs,
            self.labels,
            self.targets,
            np.arange(ROWS),
            plan=plan,
            optimizer=optimizer,
            l2_clip_norm=1.0,
            source=NoiseSource(bytes(32)),
        )


if __name__ == "__main__":
    main()
