"""A consortium of synthetic hospitals on disk, and the generator's own upper bound."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fedhealth.errors import ConfigError
from fedhealth.synthetic.dialect import dialect_of, write_site_map
from fedhealth.synthetic.fhir import (
    FIRST_DAY,
    Ndjson,
    encounter_id,
    local_lab_codes,
    patient_resource,
    stay_resources,
    visit_resource,
)
from fedhealth.synthetic.model import (
    FOLLOW_UP_DAYS,
    SPAN_DAYS,
    Hospital,
    Stay,
    make_hospital,
    make_patient,
    stays_of,
)

PROCESSES = 2


@dataclass(frozen=True, slots=True)
class SyntheticConsortium:
    """What was written: the folder, and by hospital the numbers of patients and inpatient stays."""

    path: Path
    patients: dict[str, int]
    stays: dict[str, int]


def write_consortium(
    out_dir: Path,
    *,
    hospitals: int = 15,
    patients: int = 400,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> SyntheticConsortium:
    """Write ``OUT/<site>/fhir/*.ndjson``, site maps, ``truth.parquet`` and ``consortium.yaml``.

    Guarantees: the same seed gives the same bytes; a hospital does not depend on how many others there are.

    Args:
      out_dir: where to write; a consortium that stands there is replaced.
      hospitals: how many.
      patients: mean size of a hospital; sizes are log-normal.
      seed: of everything.
      progress: called with the name of each finished hospital.

    Raises:
      ConfigError: fewer than one hospital or patient, or ``out_dir`` holds something else.
    """
    if hospitals < 1 or patients < 1:
        raise ConfigError("a consortium needs at least one hospital and one patient", "raise the number")
    foreign = out_dir.is_dir() and any(out_dir.iterdir()) and not (out_dir / "consortium.yaml").exists()
    if foreign or (out_dir.exists() and not out_dir.is_dir()):
        raise ConfigError(f"{out_dir} holds something else", "name a new folder or one that synth wrote")
    out_dir.mkdir(parents=True, exist_ok=True)
    written: dict[str, tuple[int, int]] = {}
    work = partial(write_hospital, out_dir, patients=patients, seed=seed)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("forkserver")) as executor:
        for name, size, stays in executor.map(work, range(hospitals)):
            written[name] = (size, stays)
            if progress is not None:
                progress(name)
    sites = [{"name": name, "fhir": f"{name}/fhir", "site_map": f"{name}/site-map"} for name in written]
    text = yaml.safe_dump({"schema_version": 1, "sites": sites}, sort_keys=False)
    (out_dir / "consortium.yaml").write_text(text, encoding="utf-8")
    return SyntheticConsortium(
        path=out_dir,
        patients={name: size for name, (size, _) in written.items()},
        stays={name: stays for name, (_, stays) in written.items()},
    )


def write_hospital(out_dir: Path, index: int, *, patients: int, seed: int) -> tuple[str, int, int]:
    """Write one hospital; returns its name, patients and inpatient stays."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, index]))
    hospital = make_hospital(index, patients, generator)
    dialect = dialect_of(index, hospital.name)
    ndjson, stays = Ndjson(), list[Stay]()
    ndjson.add({"resourceType": "Organization", "id": hospital.name, "name": f"Synthetic {hospital.name}"})
    for number in range(hospital.patients):
        patient = make_patient(number, hospital, generator)
        own = stays_of(patient, hospital, generator)
        deaths = [stay.end_day for stay in own if stay.died]
        ndjson.add(patient_resource(patient, hospital, deaths[0] if deaths else None))
        for stay in own:
            for resource in stay_resources(stay, hospital, dialect, generator):
                ndjson.add(resource)
        first = own[0].start_day if own else SPAN_DAYS
        for visit, draw in enumerate(
            generator.uniform(0, 1, int(generator.poisson(1.0 + 0.4 * max(patient.frailty, 0))))
        ):
            day = max(first - 1 - float(draw) * 200, 0.0)
            emergency = bool(generator.random() < 0.4)
            ndjson.add(visit_resource(hospital, dialect, patient, number=visit, day=day, emergency=emergency))
        stays += own
    folder = out_dir / hospital.name
    _write_fhir(folder / "fhir", ndjson)
    _write_truth(folder / "truth.parquet", stays, hospital)
    extract = (FIRST_DAY + timedelta(days=SPAN_DAYS + FOLLOW_UP_DAYS)).date().isoformat()
    write_site_map(
        folder / "site-map", hospital.name, dialect, lab_codes=local_lab_codes(), extract_date=extract
    )
    return hospital.name, hospital.patients, len(stays)


def oracle_auc(out_dir: Path) -> dict[str, float | None]:
    """AUROC of the generator's own probabilities over all hospitals: what no model can be expected to beat.

    Readmission over stays that ended alive, death over all stays; None where one class is missing.
    """
    from sklearn.metrics import roc_auc_score

    tables = [pq.read_table(path) for path in sorted(out_dir.glob("*/truth.parquet"))]
    truth = pa.concat_tables(tables).to_pandas()
    alive, long = truth[~truth["died"]], truth[truth["hours"] >= 30]
    pairs = {
        "readmission": (alive["readmitted"].to_numpy(), alive["p_readmission"].to_numpy()),
        "death": (long["died"].to_numpy(), long["p_death"].to_numpy()),
    }
    return {
        name: float(roc_auc_score(labels, scores)) if len(set(labels.tolist())) == 2 else None
        for name, (labels, scores) in pairs.items()
    }


def _write_fhir(folder: Path, ndjson: Ndjson) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in sorted(ndjson.lines.items()):
        (folder / f"{name}.ndjson").write_bytes(b"\n".join(lines) + b"\n")


def _write_truth(path: Path, stays: list[Stay], hospital: Hospital) -> None:
    table = pa.table(
        {
            "encounter_id": [encounter_id(stay, hospital) for stay in stays],
            "hours": [stay.hours for stay in stays],
            "p_readmission": [stay.p_readmission for stay in stays],
            "p_death": [stay.p_death for stay in stays],
            "readmitted": [stay.readmitted for stay in stays],
            "died": [stay.died for stay in stays],
        }
    )
    pq.write_table(table, path)
