"""Do fifteen hospitals in fifteen dialects give the model that the same patients give in one? Prints one line of JSON.

    python benchmarks/dialects.py [--seeds 1 2 3] [--patients 200] [--rounds 10]

Each hospital is written twice, in its dialect with its site map and in the canonical dialect; both are harmonised and
trained on in the same way (local, federated, centralised references; one initial model, one order of rows). The
claim holds if the AUROC of the federated model differs by at most 0.01.
"""

import argparse
import json
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.statistics import decode_statistics, encode_statistics
from fedhealth.cdm import harmonize
from fedhealth.embedded.references import train_references
from fedhealth.features import build_rows
from fedhealth.features.rows import Rows
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study, load_study
from fedhealth.study.targets import targets_of
from fedhealth.synthetic.consortium import write_hospital

STUDY = Path(__file__).parents[1] / "infra" / "studies" / "demo-readmission.yaml"
HOSPITALS = 15
SECRET = bytes(32)
TOLERANCE = 0.01


def main() -> None:
    """Write, harmonise, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    study = load_study(STUDY)
    training = study.training.model_copy(update={"rounds": arguments.rounds})
    study = study.model_copy(update={"training": training})
    tables = {}
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as crew:
        for seed in arguments.seeds:
            load = partial(_rows, study, seed, arguments.patients)
            sides = {
                side: list(crew.map(partial(load, side), range(HOSPITALS))) for side in ("clean", "dialects")
            }
            tables[seed] = {side: _aucs(rows, study, seed) for side, rows in sides.items()}
    apart = [abs(each["clean"]["federated"] - each["dialects"]["federated"]) for each in tables.values()]
    line = {
        "claim": "dialects_auc",
        "federated_auc_apart": [round(each, 4) for each in apart],
        "holds": max(apart) <= TOLERANCE,
        "patients": arguments.patients,
        "auc": {seed: {side: _rounded(aucs) for side, aucs in each.items()} for seed, each in tables.items()},
    }
    print(json.dumps(line))


def _rows(study: Study, seed: int, patients: int, side: str, index: int) -> Rows:
    """One hospital's rows, from its dialect or from the canonical one."""
    with tempfile.TemporaryDirectory() as folder:
        is_clean = side == "clean"
        name, *_ = write_hospital(Path(folder), index, patients=patients, seed=seed, clean=is_clean)
        hospital = Path(folder) / name
        harmonize(
            hospital / "fhir",
            hospital / "cdm",
            site=name,
            site_map=hospital / "site-map",
            site_secret=SECRET,
            validate="off",
        )
        return build_rows(hospital / "cdm", study, site_secret=SECRET)[0]


def _aucs(sites: list[Rows], study: Study, seed: int) -> dict[str, float]:
    total = np.sum([_moments(rows, study) for rows in sites], axis=0)
    statistics, _ = decode_statistics(total, feature_columns(study), targets_of(study))
    named = {f"hospital-{index + 1:02d}": rows for index, rows in enumerate(sites)}
    found = train_references(named, study, statistics, seed=seed)
    return {row.model: row.value for row in found.rows if row.value is not None}


def _moments(rows: Rows, study: Study) -> NDArray[np.int64]:
    fold = rows.training()
    return encode_statistics(
        fold.features, fold.labels, fold.person, feature_columns(study), targets_of(study)
    )


def _rounded(aucs: dict[str, float]) -> dict[str, float]:
    return {model: round(value, 4) for model, value in aucs.items()}


if __name__ == "__main__":
    main()
