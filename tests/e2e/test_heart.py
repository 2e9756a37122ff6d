"""The heart study on the public data as a user runs it, by the benchmark's own means and under one seed."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FEDHEALTH_DATA", ROOT.parent / "shared" / "data")) / "uci-heart"
STUDY = ROOT / "infra" / "studies" / "heart.yaml"
sys.path.insert(0, str(ROOT / "benchmarks"))

from heart.fhir import write_hospitals  # noqa: E402
from heart.runs import measure, run_study  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the UCI heart data is not at {DATA}; set FEDHEALTH_DATA"),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heart")
    write_hospitals(DATA, folder / "hospitals", complete_only=True)
    run_study(STUDY, folder / "hospitals", folder / "work", seed=42)
    return measure(STUDY, folder / "work", seed=42)


def test_it_is_more_often_right_than_any_strategy_that_flamby_published(measured):
    assert measured.secure.mean_site >= 0.78
    assert measured.secure.pooled >= 0.79


def test_the_secure_sum_costs_no_more_than_rounding(measured):
    assert measured.secure == measured.plain
    assert 0.0 < measured.limit < 1e-5
    assert measured.apart <= measured.limit
