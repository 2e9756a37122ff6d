"""Masks, keys, shares and noise come from cryptographic generators alone: lie 14 of docs/explanation/threat-model.md."""

import ast
from pathlib import Path

import pytest
from simulator.sums import make_plan

import fedhealth
from fedhealth.secagg.site import SiteSum, SumSecrets


def weak_generators(source):
    """Names of generators in a module that are not cryptographic."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.attr] if isinstance(node, ast.Attribute) else []
        found += [name for name in names if {"random", "default_rng", "RandomState"} & set(name.split("."))]
    return found


def test_nothing_near_keys_masks_and_noise_draws_from_a_generator_that_is_not_cryptographic():
    package = Path(fedhealth.__path__[0])
    paths = [package / "privacy" / "noise.py"]
    for folder in ("secagg", "compression", "identity", "audit", "exchange", "rounds", "aggregation"):
        paths += (package / folder).glob("*.py")
    assert len(paths) > 60
    assert {path.name: found for path in paths if (found := weak_generators(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import random",
        "from numpy.random import default_rng",
        "np.random.default_rng(1)",
        "torch.random.seed()",
    ],
)
def test_the_check_for_weak_generators_finds_one(source):
    assert weak_generators(source)


@pytest.mark.parametrize("short", ["pair key", "journaled secrets"])
def test_seeds_of_less_than_256_bits_are_refused(short):
    plan, site = make_plan(3), "site-01"
    pairs = {peer: bytes(16 if short == "pair key" else 32) for peer in plan.cohort if peer != site}
    secrets = SumSecrets.draw().to_bytes()[: 64 if short == "journaled secrets" else None]
    with pytest.raises(ValueError, match=r"256 bits|wrong length"):
        SiteSum(plan, site=site, pair_keys=pairs, tag_key=bytes(32), secrets=SumSecrets.from_bytes(secrets))
