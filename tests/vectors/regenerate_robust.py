"""Write robust.json: what byzfl 0.0.11 says of some matrices. Needs byzfl, which no test does.

byzfl wants torchvision, which none of these rules uses, so it is no dependency: unpack its wheel without its own.

    python -m pip download byzfl==0.0.11 --no-deps --dest DIR
    python -m zipfile -e DIR/byzfl-0.0.11-py3-none-any.whl DIR
    python tests/vectors/regenerate_robust.py DIR

Of the geometric median byzfl takes a number of smoothed steps: enough of them that it stands still.
"""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

PATH = Path(__file__).with_name("robust.json")
SHAPES = ((5, 3, 1), (7, 40, 2), (15, 12, 3))
"""Rows, columns, attackers."""


def matrix(rows, columns, attackers):
    """Honest rows around a common one; the first ``attackers`` are far away. Rounded, so that JSON holds all of it."""
    generator = np.random.default_rng([rows, columns, attackers])
    values = generator.normal(size=columns) + 0.5 * generator.normal(size=(rows, columns))
    values[:attackers] *= -10.0
    return values.round(6)


def rules(folder):
    """byzfl's module of rules, without importing the rest of the package."""
    package = ModuleType("byzfl")
    package.__path__ = [str(Path(folder) / "byzfl")]
    sys.modules["byzfl"] = package
    return importlib.import_module("byzfl.aggregators.aggregators")


def answers(byzfl, values, attackers):
    """Every rule's answer for one matrix."""
    made = {
        "median": byzfl.Median(),
        "trimmed_mean": byzfl.TrMean(attackers),
        "krum": byzfl.Krum(attackers),
        "multi_krum": byzfl.MultiKrum(attackers),
        "geometric_median": byzfl.GeometricMedian(nu=1e-12, T=2000),
        "centred_clipping": byzfl.CenteredClipping(L=5, tau=2.0),
    }
    return {name: rule(values).tolist() for name, rule in made.items()}


if __name__ == "__main__":
    oracle = rules(sys.argv[1])
    cases = []
    for shape in SHAPES:
        values = matrix(*shape)
        cases.append(
            {"attackers": shape[2], "updates": values.tolist(), "answers": answers(oracle, values, shape[2])}
        )
    PATH.write_text(json.dumps({"byzfl": "0.0.11", "cases": cases}) + "\n")
