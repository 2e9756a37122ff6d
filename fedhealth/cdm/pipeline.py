"""FHIR R4 in, OMOP CDM 5.4 out, with an exact account of every line."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fedhealth.cdm.accounting import Accounting
from fedhealth.cdm.crew import Crew, Part, local_crew
from fedhealth.cdm.events import scanned_blocks
from fedhealth.cdm.finish import finish
from fedhealth.cdm.gather import gather
from fedhealth.cdm.output import replacing
from fedhealth.cdm.validating import remember_verdicts, validation_tasks
from fedhealth.cdm.workspace import close_blocks, saved, step, write_plan
from fedhealth.config import FhirValidation, Profile
from fedhealth.errors import ConfigError, DataError
from fedhealth.fhir.resources import UNKNOWN

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class _Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def harmonize(
    fhir_dir: Path,
    cdm_dir: Path,
    *,
    site: str,
    site_map: Path | None = None,
    site_secret: bytes,
    validate: FhirValidation = "sample",
    verdicts: Path | None = None,
    profile: Profile | None = None,
    progress: Progress | None = None,
    workers: int = 1,
    crew: Crew | None = None,
) -> Accounting:
    """Turn a folder of FHIR R4 NDJSON and bundles into an OMOP CDM 5.4 folder of Parquet files.

    Guarantees: per resource type, read = loaded + excluded + quarantined, counted independently and checked;
    the CDM holds keyed ids and no names, contacts, identifiers or text; the same input, map and secret give the
    same Parquet bytes in whatever order the input comes; ``cdm_dir`` is complete or as it was before.

    Args:
      fhir_dir: folder of ``*.ndjson``, ``*.ndjson.gz`` and ``*.json`` files, subfolders included.
      cdm_dir: where the CDM goes; replaced as a whole if it is one already.
      site: the site's name, for the account.
      site_map: folder of FHIR ConceptMaps and ``site.yaml``.
      site_secret: 32 bytes that never leave the site; they key all ids.
      validate: which resources are checked against the R4B models: all, about 200 per type, or none.
      verdicts: a private folder beside the CDM where verdicts of ``all`` are remembered by digest, so that
        the next run validates only what changed.
      profile: how the CDM is de-identified; what ``site.yaml`` says if it is not given.
      progress: called with a stage (read, validate, map), how many of its parts are done, and of how many.
      workers: processes that share the parts, and threads of what is done once.
      crew: who does the parts instead.

    Returns:
      The account, also in ``accounting.json``.

    Raises:
      ConfigError: a folder or the site map is wrong.
      DataError: no FHIR file, a file that cannot be read to its end, nothing that could be loaded, or a defect of
        ours (code accounting).

    Source: HL7 FHIR-to-OMOP implementation guide; OMOP CDM 5.4.
    """
    fhir_dir, cdm_dir = Path(fhir_dir), Path(cdm_dir)
    _check_arguments(fhir_dir, cdm_dir, site_secret, validate)
    clock = _Clock()
    report = progress or (lambda stage, done, of: None)
    with replacing(cdm_dir) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        work = Path(scratch)
        plan = write_plan(
            work,
            fhir_dir,
            site=site,
            site_map=site_map,
            validate=validate,
            verdicts=verdicts,
            profile=profile,
        )
        hired = local_crew(min(workers, len(plan.parts)), site_secret=site_secret)
        with nullcontext(crew) if crew else hired as at_work:
            do = partial(_each, at_work, work, report)
            with clock.stage("read"):
                total = sum(do("read", range(len(plan.parts))))
                _require_fhir(work, total)
            with clock.stage("validate"):
                sum(do("validate", validation_tasks(work)))
            with clock.stage("check"):
                gather(work, site_secret=site_secret)
            with clock.stage("map"):
                sum(do("map", scanned_blocks(work)))
        close_blocks()
        with clock.stage("write"):
            account = finish(work, folder, total=total, site_secret=site_secret, threads=workers)
        _refuse_empty(account)
        if verdicts is not None:
            remember_verdicts(work, verdicts)
        account = account.model_copy(update={"seconds": clock.seconds})
        (folder / "accounting.json").write_text(account.to_json())
    return account


def _each(crew: Crew, work: Path, report: Progress, stage: str, parts: Sequence[Part]) -> Iterator[int]:
    """The results of a stage's parts, in their order."""
    if not parts:
        return
    report(stage, 0, len(parts))
    for done, result in enumerate(crew(stage, work, parts), 1):
        report(stage, done, len(parts))
        yield result


def _require_fhir(work: Path, total: int) -> None:
    """Refuse a folder without one resource of an R4 type: an empty CDM would hide a wrong folder."""
    found = None
    if total:
        tally = saved(work, "scan", "tally")
        with step(work, time_zone="UTC") as database:
            found = database.execute(
                f"SELECT 1 FROM {tally} WHERE what = 'read' AND name NOT IN (?, 'Bundle') LIMIT 1", [UNKNOWN]
            ).fetchone()
    if found is None:
        raise DataError(
            f"none of the {total} lines and entries is a FHIR R4 resource (code no_fhir)",
            "give the folder of the FHIR export, as NDJSON or bundles",
        )


def _refuse_empty(account: Accounting) -> None:
    """A CDM of nothing is no CDM: say why instead, by reason codes alone."""
    counts = account.resources.values()
    if any(count.loaded for count in counts):
        return
    reasons = sorted({reason for count in counts for reason in (*count.excluded, *count.quarantined)})
    raise DataError(
        f"nothing of the FHIR data could be loaded (reasons: {', '.join(reasons)})",
        "export it again as FHIR R4"
        if "fhir_version" in reasons
        else "look the reasons up in docs/reference/harmonisation.md",
    )


def _check_arguments(fhir_dir: Path, cdm_dir: Path, site_secret: bytes, validate: str) -> None:
    if fhir_dir.resolve().is_relative_to(cdm_dir.resolve()) or cdm_dir.resolve().is_relative_to(
        fhir_dir.resolve()
    ):
        raise ConfigError(
            "the CDM folder and the FHIR folder lie in each other", "name a separate CDM folder"
        )
    if len(site_secret) != 32:
        raise ConfigError("the site secret has not 32 bytes", "use the secret in the site's key folder")
    if validate not in ("all", "sample", "off"):
        raise ConfigError("validate is none of all, sample, off", "use --validate sample")
