"""What do fewer bits of an update cost? Prints a table: bytes of an update per site and round, and the change of the AUC.

    python benchmarks/compression.py [--hospitals 15] [--patients 400] [--seeds 1 2 3 4] [--rounds 15] [--workdir DIR]

Every seed is another consortium of synthetic hospitals, from FHIR through harmonisation to rows; one study (30-day
readmission) without differential privacy is trained on it once for each way of sending updates. The rounds are the
library's own (`Progress`, `SiteRound`, `SiteSum`, `CoordinatorSum`: codecs, masks, shares and all) in one process; exchange
and signatures are left out, and so are the scores of the rounds before the last. `change` is the absolute difference of the
final model's pooled test AUC to that of exact updates on the same rows, and the line "32, other seed" says how much of that
is luck: the same exact run with another seed of initial weights and shuffling. Some two minutes a seed, half of them for the
hospitals, whose rows are kept in the workdir.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulator.sums import key_of, make_plan, make_sites, names, run_sum

from fedhealth.features import build_rows
from fedhealth.features.rows import Rows, load_rows, save_rows
from fedhealth.privacy.noise import derive_key
from fedhealth.rounds.aggregate import Aggregate, merge
from fedhealth.rounds.layout import decode_sum, sum_layout
from fedhealth.rounds.objects import last_round
from fedhealth.rounds.progress import Progress
from fedhealth.rounds.site_data import SiteFolder
from fedhealth.rounds.site_load import harmonise_site
from fedhealth.rounds.site_memory import SiteMemory
from fedhealth.rounds.site_vector import SiteRound
from fedhealth.secagg.plan import SumPlan
from fedhealth.study.spec import Study, load_study
from fedhealth.synthetic import write_consortium
from fedhealth.training.plan import local_seed, plan_local

STUDY = Path(__file__).parents[1] / "infra" / "studies" / "readmission.yaml"
EXACT = "32"
VARIANTS: dict[str, dict[str, float]] = {
    EXACT: {},
    "32, other seed": {},
    "8": {"ring_bits": 8},
    "6": {"ring_bits": 6},
    "4": {"ring_bits": 4},
    "6, random half": {"ring_bits": 6, "sent_share": 0.5},
}


def main() -> None:
    """Measure every variant on every seed and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hospitals", type=int, default=15)
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workdir", type=Path, default=None, help="kept, and gone on with, if given")
    arguments = parser.parse_args()
    found: dict[str, list[Measured]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in arguments.seeds:
            place = (arguments.workdir or Path(scratch)) / f"seed-{seed}"
            rows = _rows(place, arguments.hospitals, arguments.patients, seed)
            for variant, aggregation in VARIANTS.items():
                study = _study(arguments.rounds, **aggregation)
                drawn = seed + 1000 if variant == "32, other seed" else seed
                with tempfile.TemporaryDirectory() as memory:
                    found[variant].append(_InMemory(rows, study, drawn, Path(memory)).run())
                print(f"seed {seed}, {variant}: AUC {found[variant][-1].auc:.4f}", file=sys.stderr)
    print("| bits | bytes of an update | less | bytes over all rounds, less | AUC | mean change | largest |")
    print("|---|---|---|---|---|---|---|")
    for variant, measured in found.items():
        print(_line(variant, measured, found[EXACT]))


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: the final model's pooled test AUC, and by round the bytes that each site sent of its update."""

    auc: float
    bytes_by_round: tuple[int, ...]


def _line(variant: str, measured: list[Measured], exact: list[Measured]) -> str:
    changes = [abs(one.auc - other.auc) for one, other in zip(measured, exact, strict=True)]
    last, full = measured[0].bytes_by_round[-1], exact[0].bytes_by_round[-1]
    total = sum(measured[0].bytes_by_round) / sum(exact[0].bytes_by_round)
    auc = statistics.fmean(one.auc for one in measured)
    return (
        f"| {variant} | {last} | {1 - last / full:.1%} | {1 - total:.1%} | {auc:.4f}"
        f" | {statistics.fmean(changes):.4f} | {max(changes):.4f} |"
    )


def _study(rounds: int, **aggregation: float) -> Study:
    """The shipped study without differential privacy."""
    study = load_study(STUDY).model_dump(mode="json")
    training = {"rounds": rounds, "local": {"epochs": 1}, "batch_size": 32, "optimizer": {"lr": 0.1}}
    study["training"] |= training
    study["aggregation"] |= aggregation
    study["privacy"] = {"mode": "none", "legal_basis": "synthetic data"}
    study["evaluation"] |= {"compare_sites": False}
    return Study.model_validate_json(json.dumps(study))


def _rows(place: Path, hospitals: int, patients: int, seed: int) -> dict[str, Rows]:
    """The rows of every hospital, made from its FHIR once."""
    kept = {name: place / f"{name}.safetensors" for name in names(hospitals)}
    if not all(path.exists() for path in kept.values()):
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            fhir = Path(scratch) / "fhir"
            write_consortium(fhir, hospitals=hospitals, patients=patients, seed=seed)
            for name, hospital in zip(kept, sorted(fhir.glob("*/fhir")), strict=True):
                save_rows(kept[name], _rows_of(hospital.parent, SiteFolder(Path(scratch) / name)))
    return {name: load_rows(path) for name, path in kept.items()}


def _rows_of(hospital: Path, folder: SiteFolder) -> Rows:
    secret = key_of("site secret", hospital.name)
    harmonise_site(
        folder,
        hospital / "fhir",
        site=hospital.name,
        site_map=hospital / "site-map",
        site_secret=secret,
        validate="off",
    )
    return build_rows(folder.cdm, _study(1), site_secret=secret)[0]


@dataclass(slots=True)
class _InMemory:
    """A run without an exchange."""

    rows: dict[str, Rows]
    study: Study
    seed: int
    folder: Path
    aggregates: dict[int, Aggregate] = field(default_factory=dict)
    uploads: dict[int, int] = field(default_factory=dict)

    def run(self) -> Measured:
        progress = Progress(
            study=self.study,
            seed=self.seed,
            sites=len(self.rows),
            aggregate_of=self.aggregates.__getitem__,
            transferred=dict,
        )
        for number in range(last_round(self.study) + 1):
            purposes = progress.purposes(number)
            wanted = [name for name in purposes if name != "evaluation" or "update" not in purposes]
            self.aggregates[number] = merge([self._sum(progress, number, name) for name in wanted])
        auc = self.aggregates[last_round(self.study)].metrics["auroc"]
        if auc is None:
            raise SystemExit("too few people to tell an AUC: give more --patients")
        return Measured(auc, tuple(self.uploads[n] for n in sorted(self.uploads)))

    def _sum(self, progress: Progress, number: int, name: str) -> Aggregate:
        shape = progress.shape(number)
        layout = sum_layout(shape, name)
        changes = {"ring_bits": layout.ring_bits, "length": layout.length, "lanes": layout.lanes}
        plan = make_plan(len(self.rows), round=number, purpose=name, **changes)
        vectors = {site: self._site(progress, number, site).vector(plan) for site in self.rows}
        opened = run_sum(
            plan,
            make_sites(plan),
            {site: vector[: plan.length] for site, vector in vectors.items()},
            lanes={site: vector[plan.length :] for site, vector in vectors.items()},
            forge=self._counting(plan),
        )
        total = np.concatenate([opened.vector, opened.lanes])
        aggregate = decode_sum(shape, name, total, cohort=plan.cohort, declared=None)
        return aggregate.with_survivors(name, opened.survivors)

    def _site(self, progress: Progress, number: int, site: str) -> SiteRound:
        rows = self.rows[site]
        return SiteRound(
            number=number,
            shape=progress.shape(number),
            rows=rows,
            plan=plan_local(self.study, declared_patients=len(np.unique(rows.training().person))),
            declared=None,
            seed=local_seed(self.seed, site=site, number=number),
            noise_key_of=lambda plan: derive_key(key_of(site), progress.public_seed(number).hex(), 0),
            memory=SiteMemory(self.folder / site, site, progress),
            profile=lambda: None,
            opened=lambda step: np.zeros(0, dtype=np.int64),
        )

    def _counting(self, plan: SumPlan):
        """Lets everything through and notes how large the updates are."""

        def through(phase: str, site: str, payload: bytes) -> bytes:
            if phase == "masked" and plan.purpose == "update":
                self.uploads[plan.round] = len(payload)
            return payload

        return through


if __name__ == "__main__":
    main()
