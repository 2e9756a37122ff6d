"""The heart study as a user runs it, and what its registered model gets right on the rows of its sites."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from heart.plain import Accuracy
from heart.protocol import HOSPITALS
from numpy.typing import NDArray

from fedhealth.aggregation.optimizers import first_state, server_step
from fedhealth.aggregation.update import site_weight, weighted_mean_plain
from fedhealth.features.rows import Rows, load_rows
from fedhealth.models import weights as weights_format
from fedhealth.models.networks import initial_weights
from fedhealth.models.preprocess import site_statistics
from fedhealth.models.scoring import predict
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights, flatten
from fedhealth.registry.connection import connect, store_uri
from fedhealth.registry.models import local_copy
from fedhealth.rounds.layout import quantisation_step
from fedhealth.rounds.site_data import SiteFolder
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study, load_study
from fedhealth.training.local import train_local
from fedhealth.training.plan import local_seed, plan_local

FEDHEALTH = Path(sys.executable).parent / "fedhealth"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a study.

    Attributes:
      secure: of the registered model.
      plain: of the model that the same rounds give without the exchange.
      apart: the largest difference between a weight of the two.
      limit: what it may be: in every round one quantisation step of the mean update, and the rounding of a float32.
    """

    secure: Accuracy
    plain: Accuracy
    apart: float
    limit: float


def run_study(study: Path, hospitals: Path, workdir: Path, *, seed: int) -> None:
    """`fedhealth study run` over the folders that `write_hospitals` wrote; ends this process if it fails."""
    options = [f"--seed={seed}", f"--workdir={workdir}"]
    for folder in sorted(hospitals.iterdir()):
        options += [
            f"--site={folder.name}={folder / 'fhir'}",
            f"--site-map={folder.name}={folder / 'site-map'}",
        ]
    dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    command = [str(FEDHEALTH), "study", "run", str(study), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the study failed with exit code {done.returncode}: {done.stderr.strip()}")


def measure(study_file: Path, workdir: Path, *, seed: int) -> Measured:
    """Score a finished run's model and its plain double on the test rows of every site."""
    study = load_study(study_file)
    rows = {name: load_rows(SiteFolder(workdir / "sites" / name).rows(study)) for name in HOSPITALS.values()}
    secure, statistics = _registered(workdir)
    plain = _replay(rows, statistics, study, seed=seed)
    counted = [site_weight(study, examples=len(each.training())) for each in rows.values()]
    step = quantisation_step(study, sites=len(rows), total_weight=sum(counted))
    return Measured(
        secure=_accuracy(secure, statistics, study, rows),
        plain=_accuracy(plain, statistics, study, rows),
        apart=float(np.abs(flatten(secure) - flatten(plain)).max()),
        limit=study.training.rounds * (step + float(np.spacing(np.abs(flatten(secure)).max()))),
    )


def _registered(workdir: Path) -> tuple[Weights, Statistics]:
    """Weights and statistics of the model that the run's report names."""
    model = json.loads((workdir / "report.json").read_text(encoding="utf-8"))["model"]
    with local_copy(connect(store_uri(workdir)), model["name"], int(model["version"])) as folder:
        (weights,) = folder.rglob("weights.safetensors")
        (statistics,) = folder.rglob("statistics.safetensors")
        return weights_format.from_bytes(weights.read_bytes()), Statistics.from_bytes(statistics.read_bytes())


def _replay(rows: Mapping[str, Rows], statistics: Statistics, study: Study, *, seed: int) -> Weights:
    """The run's rounds with the same local steps; the mean of the updates in float64, and nothing rounded to integers."""
    inputs = len(feature_columns(study, statistics.vocabulary))
    state = first_state(initial_weights(study, inputs=inputs, seed=seed), study)
    training = {site: each.training() for site, each in rows.items()}
    for number in range(1, study.training.rounds + 1):
        updates = [
            train_local(
                state.weights,
                site_statistics(each.inputs(), statistics, study),
                each,
                study,
                plan=plan_local(study, declared_patients=len(np.unique(each.person))),
                noise_key=None,
                seed=local_seed(seed, site=site, number=number),
            )
            for site, each in training.items()
        ]
        counted = [site_weight(study, examples=each.n_examples) for each in updates]
        state = server_step(state, weighted_mean_plain([each.delta for each in updates], counted), study)
    return state.weights


def _accuracy(weights: Weights, statistics: Statistics, study: Study, rows: Mapping[str, Rows]) -> Accuracy:
    """On every site as it scales its rows, and pooled as FLamby does: scaled by the consortium's moments."""
    sites, pooled = [], []
    for each in rows.values():
        own = site_statistics(each.training().inputs(), statistics, study)
        sites.append(float(_right(weights, own, study, each.test()).mean()))
        pooled.append(_right(weights, statistics, study, each.test()))
    return Accuracy(tuple(sites), float(np.concatenate(pooled).mean()))


def _right(weights: Weights, statistics: Statistics, study: Study, test: Rows) -> NDArray[np.bool_]:
    scores = predict(weights, statistics, study, test.inputs())[:, 0]
    return np.asarray((scores > 0.5) == (test.labels[:, 0] == 1))
