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


def test_the_known_sum_in_a_small_ring_is_that_of_the_known_vectors_modulo_the_ring():
    known = KNOWN["small_ring"]
    total = np.array(list(known["vectors"].values())).sum(axis=0)
    assert ((total + 32) % 64 - 32).tolist() == known["sum"]
    assert np.array(list(known["lanes"].values())).sum(axis=0).tolist() == known["lanes_sum"]
    assert {len(bytes.fromhex(upload)) for upload in known["uploads"].values()} == {7 + 2 * 8}
