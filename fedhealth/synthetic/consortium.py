"""A consortium of synthetic hospitals on disk, and the generator's own upper bound."""

import shutil
from collections.abc import Callable, Mapping, Sequence
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
from fedhealth.synthetic.dialect import Dialect, dialect_of
from fedhealth.synthetic.faults import FAULTS, plant
from fedhealth.synthetic.fhir import (
    FIRST_DAY,
    Ndjson,
    encounter_id,
    patient_resource,
    stay_resources,
    visit_resource,
)
from fedhealth.synthetic.model import (
    FOLLOW_UP_DAYS,
    SPAN_DAYS,
    Hospital,
    Stay,
    hospital_name,
    make_hospital,
    make_patient,
    stays_of,
)
from fedhealth.synthetic.packing import Lines, write_lines
from fedhealth.synthetic.site_map import write_site_map

PROCESSES = 2
UNFINISHED = ".unfinished"


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
    faults: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> SyntheticConsortium:
    """Write ``OUT/<site>/fhir/*.ndjson``, site maps, ``truth.parquet`` and ``consortium.yaml``.

    Guarantees: the same seed gives the same bytes; a hospital does not depend on how many others there are; of
    an earlier consortium nothing stays but what others put there; ``consortium.yaml`` stands only beside a whole one.

    Args:
      out_dir: where to write; a consortium that stands there is replaced.
      hospitals: how many.
      patients: mean size of a hospital; sizes are log-normal.
      seed: of everything.
      faults: by hospital, the name of the fault to plant into its export (`fedhealth.synthetic.faults`).
      progress: called with the name of each finished hospital.

    Raises:
      ConfigError: fewer than one hospital or patient, a fault or its hospital is not known, or ``out_dir`` holds
        something else.
    """
    if hospitals < 1 or patients < 1:
        raise ConfigError("a consortium needs at least one hospital and one patient", "raise the number")
    planted = _planted(faults or {}, hospitals)
    _make_room(out_dir)
    written: dict[str, tuple[int, int]] = {}
    work = partial(_write_planted, out_dir, planted, patients=patients, seed=seed)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("forkserver")) as executor:
        for name, size, stays in executor.map(work, range(hospitals)):
            written[name] = (size, stays)
            if progress is not None:
                progress(name)
    sites = [{"name": name, "fhir": f"{name}/fhir", "site_map": f"{name}/site-map"} for name in written]
    text = yaml.safe_dump({"schema_version": 1, "sites": sites}, sort_keys=False)
    (out_dir / "consortium.yaml").write_text(text, encoding="utf-8")
    (out_dir / UNFINISHED).unlink()
    return SyntheticConsortium(
        path=out_dir,
        patients={name: size for name, (size, _) in written.items()},
        stays={name: stays for name, (_, stays) in written.items()},
    )


def _planted(faults: Mapping[str, str], hospitals: int) -> dict[int, str]:
    """The names of the faults by the number of the hospital."""
    numbers = {hospital_name(index): index for index in range(hospitals)}
    for name, fault in faults.items():
        if name not in numbers:
            raise ConfigError(f"there is no hospital {name}", f"name one of hospital-01 to {[*numbers][-1]}")
        if fault not in FAULTS:
            raise ConfigError(f"there is no fault {fault}", f"use one of {', '.join(FAULTS)}")
    return {numbers[name]: fault for name, fault in faults.items()}


def _write_planted(
    out_dir: Path, planted: Mapping[int, str], index: int, *, patients: int, seed: int
) -> tuple[str, int, int]:
    corrupt = partial(plant, planted[index]) if index in planted else None
    return write_hospital(out_dir, index, patients=patients, seed=seed, corrupt=corrupt)


def _make_room(out_dir: Path) -> None:
    """Take away an earlier consortium, whole or unfinished, and mark the folder as one that is being written."""
    is_ours = any((out_dir / name).exists() for name in ("consortium.yaml", UNFINISHED))
    if out_dir.exists() and not (is_ours or (out_dir.is_dir() and not any(out_dir.iterdir()))):
        raise ConfigError(f"{out_dir} holds something else", "name a new folder or one that synth wrote")
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / UNFINISHED).touch()
    (out_dir / "consortium.yaml").unlink(missing_ok=True)
    for hospital in out_dir.glob("hospital-[0-9][0-9]*"):
        (hospital / "truth.parquet").unlink(missing_ok=True)
        for part in ("fhir", "site-map"):
            shutil.rmtree(hospital / part, ignore_errors=True)
        if not any(hospital.iterdir()):
            hospital.rmdir()


def write_hospital(
    out_dir: Path,
    index: int,
    *,
    patients: int,
    seed: int,
    clean: bool = False,
    corrupt: Callable[[Lines], Lines] | None = None,
) -> tuple[str, int, int]:
    """Write one hospital; returns its name, patients and inpatient stays.

    Args:
      out_dir: where the hospital's folder goes.
      index: its number, from 0.
      patients: mean size of a hospital.
      seed: of everything.
      clean: the same patients and facts in the canonical dialect, with its own (nearly empty) site map.
      corrupt: a fault of the export, applied to the resources before they are packed; the truth stays.
    """
    hospital, dialect, lines, stays = generate_hospital(index, patients=patients, seed=seed, clean=clean)
    folder = out_dir / hospital.name
    packed = lines if corrupt is None else corrupt(lines)
    write_lines(folder / "fhir", packed, packing=dialect.packing, name=hospital.name)
    _write_truth(folder / "truth.parquet", stays, hospital)
    extract = (FIRST_DAY + timedelta(days=SPAN_DAYS + FOLLOW_UP_DAYS)).date().isoformat()
    write_site_map(folder / "site-map", hospital.name, dialect, extract_date=extract)
    return hospital.name, hospital.patients, len(stays)


def generate_hospital(
    index: int, *, patients: int, seed: int, clean: bool = False
) -> tuple[Hospital, Dialect, dict[str, list[bytes]], list[Stay]]:
    """Draw one hospital: itself, its dialect, its resources as NDJSON lines by type (unpacked), its stays.

    Guarantees: the patients, stays and measurements are the same with and without ``clean``.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, index]))
    hospital = make_hospital(index, patients, generator)
    dialect = Dialect() if clean else dialect_of(index, hospital.name)
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
    return hospital, dialect, ndjson.lines, stays


def oracle_auc(hospitals: Sequence[Path]) -> dict[str, float | None]:
    """AUROC of the generator's own probabilities over these hospitals: what no model can be expected to beat.

    Readmission over stays that ended alive, death over stays of 30 hours or more; None where one class is missing.

    Args:
      hospitals: their folders, each with the ``truth.parquet`` that `write_consortium` wrote.
    """
    from sklearn.metrics import roc_auc_score

    tables = [pq.read_table(hospital / "truth.parquet") for hospital in hospitals]
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
