"""Known answers: a change of any byte of the protocol is a change of its version, and is seen here."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "vectors"
KNOWN = json.loads((FOLDER / "secagg.json").read_text())


@pytest.fixture(scope="module")
def computed():
    spec = spec_from_file_location("regenerate_secagg", FOLDER / "regenerate_secagg.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.vectors()


@pytest.mark.parametrize("part", sorted(KNOWN))
def test_the_known_answer_is_computed_again(computed, part):
    assert json.loads(json.dumps(computed[part])) == KNOWN[part]


def test_the_known_sum_is_the_sum_of_the_known_vectors():
    assert np.array(list(KNOWN["vectors"].values())).sum(axis=0).tolist() == KNOWN["sum"]
