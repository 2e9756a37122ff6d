"""What robust aggregation keeps of a model when sites send wrong updates. One line of JSON, and the same as a table.

    python benchmarks/robustness.py [--hospitals 15] [--patients 400] [--rounds 6] [--attackers 3] [--seed 1] [--workdir DIR]
                                    [--defence NAME ...]

The rows are those of synthetic hospitals (`fedhealth synth`), harmonised from FHIR in fifteen dialects; the study is
kidney injury (`infra/studies/aki.yaml`) without differential privacy, with a network of 64 and 32 units. Training,
fixed-point encoding, masks, shares, sketches, rules and server step are the library's own, in one process: no
signatures, no exchange.

The first sites of the list attack from the first round on. Each attack is run with the weighted mean, with `plausibility` and
with `groups` under masks, and with two rules in the clear. Groups are of three sites or more and bear as many attackers as
so few of them can, 2 of 15. `without` is the run of the others alone, and what a defence is compared with. Scored on the test
rows of the honest sites: mean AUROC of the models of the last three rounds, as one round's wavers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulator.attacks import ON_UPDATES, wrong_units
from simulator.sums import make_plan, make_sites

from fedhealth.aggregation.optimizers import first_state, server_step
from fedhealth.aggregation.plausibility import implausible
from fedhealth.aggregation.statistics import encode_statistics
from fedhealth.aggregation.update import DELTA_CLIP
from fedhealth.evaluation import decode_evaluation, encode_evaluation
from fedhealth.features import build_rows
from fedhealth.features.rows import Rows, load_rows, save_rows
from fedhealth.models.networks import initial_weights
from fedhealth.models.preprocess import site_statistics
from fedhealth.models.scoring import predict
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights, flatten, unflatten
from fedhealth.privacy.buckets import bucket
from fedhealth.privacy.noise import NoiseSource
from fedhealth.rounds.aggregate import statistics_of
from fedhealth.rounds.groups import groups_of, round_result
from fedhealth.rounds.layout import RoundShape, columns_of, decode_sum, encode_weighted, sum_layout
from fedhealth.rounds.objects import purposes_of
from fedhealth.rounds.plain import PlainUpdates
from fedhealth.rounds.site_data import SiteFolder
from fedhealth.rounds.site_load import harmonise_site
from fedhealth.secagg.coordinator import CoordinatorSum
from fedhealth.secagg.sketch import check_sketches, directions_for, project, sketch_seed
from fedhealth.study.columns import numeric_columns
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of
from fedhealth.training.local import train_local
from fedhealth.training.plan import local_seed, plan_local

ROOT = Path(__file__).resolve().parent.parent
TRAINING = {
    "weighting": "examples",
    "local": {"epochs": 3},
    "batch_size": 32,
    "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1.0e-3},
}
NETWORK = {"kind": "mlp", "hidden": [64, 32], "dropout": [0.3, 0.2]}
DEFENCES = ("mean", "plausibility", "groups", "median", "multi_krum")
WRONG_UNITS, RIGHT_MOMENTS = "wrong units", "wrong units after round 0"
SCORED = 3
SITE_SECRET = bytes(32)

Hospitals = Mapping[str, Rows]
Attack = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Hospitals that train together; ``liars`` send what ``attack`` makes of the honest updates instead of their own.

    ``counted`` are the rows of which round 0 takes the moments, where they are others.
    """

    study: Study
    hospitals: Hospitals
    rounds: int
    seed: int
    liars: tuple[str, ...] = ()
    attack: Attack | None = None
    counted: Hospitals | None = None

    @property
    def honest(self) -> tuple[str, ...]:
        return tuple(site for site in self.hospitals if site not in self.liars)


def main() -> None:
    """Measure, print one line of JSON and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hospitals", type=int, default=15)
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--attackers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of hospitals, first model and training")
    parser.add_argument("--workdir", type=Path, default=None, help="kept, and gone on with, if given")
    parser.add_argument("--defence", nargs="+", choices=DEFENCES, default=DEFENCES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.workdir or Path(scratch)
        hospitals = _hospitals(place, arguments.hospitals, arguments.patients, arguments.seed)
    found = _measure(hospitals, arguments)
    print(json.dumps({"claim": "robustness", **vars(arguments), "workdir": None, "auroc": found}))
    print(_table(found, arguments.defence))


def _measure(hospitals: Hospitals, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    attackers, rounds, seed = arguments.attackers, arguments.rounds, arguments.seed
    study, liars = _study("none", attackers, len(hospitals)), tuple(hospitals)[:attackers]
    others = {site: rows for site, rows in hospitals.items() if site not in liars}
    without = _auroc(Federation(study=study, hospitals=others, rounds=rounds, seed=seed), "mean")
    found: dict[str, dict[str, float]] = {}
    for name in (*ON_UPDATES, WRONG_UNITS, RIGHT_MOMENTS):
        is_careless = name in (WRONG_UNITS, RIGHT_MOMENTS)
        shown = _in_wrong_units(hospitals, liars, study) if is_careless else hospitals
        found[name] = {"without": without}
        for defence in arguments.defence:
            federation = Federation(
                study=_study(defence, attackers, len(hospitals)),
                hospitals=shown,
                rounds=rounds,
                seed=seed,
                liars=liars,
                attack=ON_UPDATES.get(name),
                counted=hospitals if name == RIGHT_MOMENTS else None,
            )
            found[name][defence] = _auroc(federation, defence)
    return found


def _study(defence: str, attackers: int, sites: int) -> Study:
    """The shipped study with the benchmark's training and one way to aggregate."""
    document = yaml.safe_load((ROOT / "infra" / "studies" / "aki.yaml").read_text(encoding="utf-8"))
    aggregation: dict[str, object] = {"min_sites": 2 * attackers + 3}
    if defence == "plausibility":
        aggregation |= {"robust": defence}
    elif defence == "groups":
        aggregation |= {"robust": defence, "attackers": min(attackers, (sites // 3 - 1) // 2)}
    elif defence not in ("none", "mean"):
        aggregation |= {"mode": "plain", "robust": defence}
        aggregation |= {"attackers": attackers} if defence == "multi_krum" else {}
    document |= {
        "model": NETWORK,
        "training": document["training"] | TRAINING,
        "privacy": {"mode": "none", "legal_basis": "synthetic data"},
        "aggregation": aggregation,
    }
    return Study.model_validate_json(json.dumps(document))


def _auroc(federation: Federation, defence: str) -> float:
    """Mean AUROC of the models of the last rounds, on the test rows of the honest sites."""
    study, statistics = federation.study, _statistics(federation)
    columns = columns_of(RoundShape(study=study, purposes=("update",), model={}, statistics=statistics))
    state, scores = first_state(initial_weights(study, inputs=len(columns), seed=federation.seed), study), []
    for number in range(1, federation.rounds + 1):
        shape = RoundShape(
            study=study,
            purposes=purposes_of(study, number, is_final=False, sites=len(federation.hospitals)),
            model=state.weights,
            statistics=statistics,
        )
        vectors = _vectors(federation, shape, number)
        delta = _combined(federation, shape, vectors, number, defence)
        state = server_step(state, delta, study)
        if number > federation.rounds - SCORED:
            scores.append(_score(federation, state.weights, statistics))
    return round(float(np.mean(scores)), 4)


def _statistics(federation: Federation) -> Statistics:
    """Round 0: the consortium's moments from the sum of the sites' vectors."""
    study = federation.study
    columns, targets = numeric_columns(study), targets_of(study)
    folds = [rows.training() for rows in (federation.counted or federation.hospitals).values()]
    vectors = [encode_statistics(r.features, r.labels, r.person, columns, targets) for r in folds]
    shape = RoundShape(study=study, purposes=("moments",), model={}, statistics=None)
    total = np.sum(vectors, axis=0)
    return statistics_of(
        decode_sum(shape, "moments", total, cohort=tuple(federation.hospitals), declared=None)
    )


def _vectors(federation: Federation, shape: RoundShape, number: int) -> dict[str, np.ndarray]:
    """Every site's integers of a round: the honest ones' own, and the liars' of what they say."""
    trained = {site: _delta(federation, shape, site, number) for site in federation.hospitals}
    if federation.attack is not None:
        honest = np.stack([flatten(trained[site]).astype(np.float64) for site in federation.honest])
        said = federation.attack(honest, len(federation.liars)).clip(-DELTA_CLIP, DELTA_CLIP)
        trained |= dict.fromkeys(federation.liars, unflatten(said, shape.model))
    sites = {site: len(members) for members in _sums(federation).values() for site in members}
    return {
        site: encode_weighted(
            delta,
            shape,
            examples=int(federation.hospitals[site].is_training.sum()),
            declared=None,
            sites=sites[site],
            rounding=NoiseSource(bytes(32)),  # of exact updates nothing is drawn
        )
        for site, delta in trained.items()
    }


def _sums(federation: Federation) -> dict[str, tuple[str, ...]]:
    """By name of a sum of updates, the sites in it."""
    sites = tuple(federation.hospitals)
    if federation.study.aggregation.robust != "groups":
        return {"update": sites}
    return {f"update/{number}": group for number, group in enumerate(groups_of(federation.study, sites))}


def _delta(federation: Federation, shape: RoundShape, site: str, number: int) -> Weights:
    if federation.attack is not None and site in federation.liars:
        return shape.model  # an attacker has no need to train
    rows, study = federation.hospitals[site].training(), shape.study
    return train_local(
        shape.model,
        site_statistics(rows.inputs(), shape.statistics, study),
        rows,
        study,
        plan=plan_local(study, declared_patients=bucket(len(np.unique(rows.person)))),
        noise_key=None,
        seed=local_seed(federation.seed, site=site, number=number),
    ).delta


def _combined(
    federation: Federation, shape: RoundShape, vectors: dict[str, np.ndarray], number: int, defence: str
) -> Weights:
    """The round's mean update, under the defence."""
    if defence == "groups":
        return _by_groups(federation, shape, vectors)
    layout = sum_layout(shape, "update")
    names = tuple(sorted(vectors))
    plan = make_plan(len(names), length=layout.length, ring_bits=layout.ring_bits, round=number)
    by_name = {name: vectors[site] for name, site in zip(plan.cohort, names, strict=True)}
    if defence in ("mean", "median", "multi_krum"):
        return PlainUpdates(shape=shape, plan=plan, declared=None).result(by_name).tensors
    sizes = {
        name: float(bucket(len(np.unique(federation.hospitals[site].person))))
        for name, site in zip(plan.cohort, names, strict=True)
    }
    return decode_sum(
        shape, "update", _plausible_sum(plan, by_name, sizes), cohort=plan.cohort, declared=None
    ).tensors


def _by_groups(federation: Federation, shape: RoundShape, vectors: dict[str, np.ndarray]) -> Weights:
    """The trimmed mean of the groups' means, each decoded from its sum."""
    parts = {}
    for name, members in _sums(federation).items():
        total = sum(vectors[site] for site in members)
        decoded = decode_sum(shape, name, total, cohort=members, declared=None)
        parts[name] = decoded.with_survivors(name, members)
    return round_result(shape, parts).tensors


def _plausible_sum(plan, vectors, sizes) -> np.ndarray:
    """The secure sum with real masks and shares, of the sites whose sketches are plausible."""
    sites, machine = make_sites(plan), CoordinatorSum(plan)
    shares = {name: site.share() for name, site in sites.items()}
    shown = {name: shares[name] for name in machine.receive_shares(shares)}
    uploads = {name: sites[name].mask(shown, vectors[name], np.zeros(0, dtype=np.int64)) for name in shown}
    for name, upload in uploads.items():
        machine.receive_masked(name, upload)
    seed = sketch_seed(plan, nonce=bytes(32), uploads=dict.fromkeys(uploads, "00" * 32))
    directions = directions_for(plan.length)
    sketches = {name: project(vectors[name], seed=seed, directions=directions) for name in uploads}
    for name in implausible(sketches, weights=sizes):
        machine.leave_out(name, uploads[name])
        del sketches[name]
    survivors = machine.propose()
    agreements = {name: sites[name].agree(survivors) for name in survivors}
    opened = machine.unmask({name: sites[name].open(agreements) for name in survivors})
    check_sketches(opened.vector, sketches, seed=seed)
    return opened.vector


def _score(federation: Federation, weights: Weights, statistics: Statistics) -> float:
    study, targets = federation.study, targets_of(federation.study)
    total = 0
    for site in federation.honest:
        rows = federation.hospitals[site].test()
        scores = predict(weights, site_statistics(rows.inputs(), statistics, study), study, rows.inputs())
        total = total + encode_evaluation(scores, rows.labels, rows.person, rows.groups, targets, ())
    auroc = decode_evaluation(total, targets, (), min_cell=study.evaluation.min_cell).metrics["auroc"]
    return float("nan") if auroc is None else auroc


def _in_wrong_units(hospitals: Hospitals, liars: tuple[str, ...], study: Study) -> dict[str, Rows]:
    """The liars are honest and careless: their creatinine is in umol/L."""
    names = [column.name for column in numeric_columns(study)]
    columns = [place for place, name in enumerate(names) if "creatinine" in name and "missing" not in name]
    return {site: wrong_units(rows, columns) if site in liars else rows for site, rows in hospitals.items()}


def _hospitals(place: Path, count: int, patients: int, seed: int) -> dict[str, Rows]:
    """The rows of every synthetic hospital, from FHIR; kept in ``place`` for the next time."""
    consortium = place / "consortium"
    if not (consortium / "consortium.yaml").exists():
        fedhealth = str(Path(sys.executable).parent / "fedhealth")
        amount = ["--hospitals", str(count), "--patients", str(patients), "--seed", str(seed)]
        subprocess.run(
            [fedhealth, "synth", *amount, "--out", str(consortium)], check=True, capture_output=True
        )
    listed = yaml.safe_load((consortium / "consortium.yaml").read_text(encoding="utf-8"))["sites"]
    return {site["name"]: _rows(place, consortium, site) for site in listed}


def _rows(place: Path, consortium: Path, site: dict[str, str]) -> Rows:
    path = place / "rows" / f"{site['name']}.safetensors"
    if not path.exists():
        folder = SiteFolder(place / "sites" / site["name"])
        fhir, site_map = consortium / site["fhir"], consortium / site["site_map"]
        harmonise_site(folder, fhir, site=site["name"], site_map=site_map, site_secret=SITE_SECRET)
        rows, _ = build_rows(folder.cdm, _study("none", 1, 3), site_secret=SITE_SECRET)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_rows(path, rows)
    return load_rows(path)


def _table(found: dict[str, dict[str, float]], defences: Sequence[str]) -> str:
    columns = ("without", *defences)
    lines = [f"| attack | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(f'{row[column]:.3f}' for column in columns)} |"
        for name, row in found.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
