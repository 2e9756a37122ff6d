"""What federation is worth: local, naive, weighted, personalised and centralised models, per outcome. One line of JSON.

    python benchmarks/utility.py [--hospitals 15] [--patients 1000] [--seeds 1 2 3 4 5] [--rounds 30] [--workdir DIR]

Every seed is another consortium of synthetic hospitals (`fedhealth synth`), and one `fedhealth study run --references` over
four studies of `infra/studies` without differential privacy: the federated model is the registered one, trained
under secure aggregation; the others are trained on the same rows on this machine. Passes and patience were chosen on
seed 0. All are scored on the test rows of all sites together, the personalised models each on its own site's.

Per outcome and model: mean and standard deviation over the seeds of AUROC, or R2 of the length of stay. `gain` is the
federated model's over the mean local-only one's, as a share of the latter; `gap` is centralised minus federated.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ("readmission", "mortality", "aki", "length-of-stay")
TRAINING = {
    "algorithm": "fedavg",
    "weighting": "examples",
    "local": {"epochs": 3},
    "batch_size": 32,
    "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1.0e-3},
    "early_stopping": {"patience": 5},
    "fine_tune": {"epochs": 1},
}
"""The references' own setting, so that models differ in who trains with whom alone; all keep their best pass."""

Figures = dict[tuple[str, str], float]


def main() -> None:
    """Measure and print one line of JSON, and the same as a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hospitals", type=int, default=15)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--workdir", type=Path, default=None, help="kept, and gone on with, if given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.workdir or Path(scratch)
        studies = _studies(place, arguments.rounds)
        found = [
            _run(place / f"seed-{seed}", studies, arguments.hospitals, arguments.patients, seed)
            for seed in arguments.seeds
        ]
    print(json.dumps(_summary(found) | {"hospitals": arguments.hospitals, "patients": arguments.patients}))


def _studies(place: Path, rounds: int) -> list[Path]:
    """The shipped studies without differential privacy, with the benchmark's training."""
    written = []
    for name in STUDIES:
        study = yaml.safe_load((ROOT / "infra" / "studies" / f"{name}.yaml").read_text(encoding="utf-8"))
        study |= {
            "training": TRAINING | {"rounds": rounds},
            "privacy": {"mode": "none", "legal_basis": "synthetic data"},
        }
        path = place / "studies" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
        written.append(path)
    return written


def _run(place: Path, studies: list[Path], hospitals: int, patients: int, seed: int) -> Figures:
    report = place / "work" / "report.json"
    if not report.exists():
        amount = ["--hospitals", str(hospitals), "--patients", str(patients)]
        consortium = place / "consortium"
        _fedhealth("synth", *amount, "--seed", str(seed), "--out", str(consortium))
        where = ["--consortium", str(consortium / "consortium.yaml"), "--workdir", str(place / "work")]
        _fedhealth("study", "run", *map(str, studies), *where, "--references", "--seed", str(seed))
    comparison = json.loads(report.read_text(encoding="utf-8"))["comparison"]
    return {
        (row["outcome"], row["model"]): row["value"]
        for row in comparison
        if row["metric"] in ("auroc", "r2") and row["value"] is not None
    }


def _fedhealth(*arguments: str) -> None:
    command = [str(Path(sys.executable).parent / "fedhealth"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"fedhealth {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}")


def _summary(found: list[Figures]) -> dict[str, object]:
    """By outcome and model mean and sd over the seeds; gain over local and gap to centralised, of the means."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for figures in found:
        for (outcome, model), value in figures.items():
            values[outcome][model].append(value)
    summary: dict[str, object] = {"claim": "utility", "seeds": len(found)}
    for outcome, models in values.items():
        mean = {model: statistics.fmean(each) for model, each in models.items()}
        spread = {model: statistics.stdev(each) if len(each) > 1 else 0.0 for model, each in models.items()}
        summary[outcome] = {model: [round(mean[model], 4), round(spread[model], 4)] for model in models} | {
            "gain": round(mean["federated"] / mean["local_mean"] - 1.0, 4),
            "gap": round(mean["centralised"] - mean["federated"], 4),
        }
    return summary


if __name__ == "__main__":
    main()
