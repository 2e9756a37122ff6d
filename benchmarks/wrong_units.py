"""What becomes of a model when hospitals send a laboratory value in a wrong unit, through the whole path? One line of JSON.

    python benchmarks/wrong_units.py [--hospitals 15] [--wrong 3] [--patients 250] [--rounds 6] [--seed 1] [--workdir DIR]

Two runs of `fedhealth study run` on kidney injury with `robust: plausibility`: in one the first hospitals export creatinine in
umol/L under the unit mg/dL, the other is of the remaining hospitals alone. Both are scored on the test rows of who takes part.
What keeps the wrong ones out, the quality gate or the comparison of sites, stands behind each.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from fedhealth.synthetic import write_consortium

ROOT = Path(__file__).resolve().parent.parent
FAULT = "creatinine_umol_as_mg"


def main() -> None:
    """Run both and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hospitals", type=int, default=15)
    parser.add_argument("--wrong", type=int, default=3)
    parser.add_argument("--patients", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workdir", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.workdir or Path(scratch)
        names = _consortium(place / "data", arguments)
        study = _study(place / "aki.yaml", arguments.rounds)
        without = _run(place, study, names[arguments.wrong :], "without", seed=arguments.seed)
        faulty = _run(place, study, names, "with", seed=arguments.seed)
    states = Counter(site["reason"] or site["state"] for site in faulty["sites"])
    told = {"without": _auroc(without), "with": _auroc(faulty), "states": dict(states)}
    print(json.dumps(told | {"gap": round(abs(told["with"] - told["without"]), 4)}))


def _consortium(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """All hospitals, the first of them with the fault; their names."""
    names = [f"hospital-{number:02d}" for number in range(1, arguments.hospitals + 1)]
    if not (folder / "consortium.yaml").exists():
        faults = dict.fromkeys(names[: arguments.wrong], FAULT)
        sizes = {"hospitals": arguments.hospitals, "patients": arguments.patients}
        write_consortium(folder, **sizes, seed=arguments.seed, faults=faults)
    return names


def _study(path: Path, rounds: int) -> Path:
    study = yaml.safe_load((ROOT / "infra" / "studies" / "aki.yaml").read_text(encoding="utf-8"))
    study["training"] |= {"rounds": rounds, "local": {"epochs": 3}, "batch_size": 32}
    study["training"]["optimizer"] = {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1.0e-3}
    study["model"] = {"kind": "mlp", "hidden": [64, 32], "dropout": [0.3, 0.2]}
    study["privacy"] = {"mode": "none", "legal_basis": "synthetic data"}
    study["aggregation"]["robust"] = "plausibility"
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


def _run(place: Path, study: Path, names: list[str], what: str, *, seed: int) -> dict[str, Any]:
    """The report of a run over these hospitals."""
    listed = yaml.safe_load((place / "data" / "consortium.yaml").read_text(encoding="utf-8"))
    listed["sites"] = [site for site in listed["sites"] if site["name"] in names]
    consortium = place / "data" / f"{what}.yaml"
    consortium.write_text(yaml.safe_dump(listed), encoding="utf-8")
    work = place / what
    command = [str(Path(sys.executable).with_name("fedhealth")), "study", "run", str(study)]
    command += ["--consortium", str(consortium), "--workdir", str(work), "--seed", str(seed)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads((work / "report.json").read_bytes())
    return report


def _auroc(report: dict[str, Any]) -> float:
    rows = [row["value"] for row in report["comparison"] if row["model"].startswith("federated")]
    return round(float(rows[0]), 4)


if __name__ == "__main__":
    main()
