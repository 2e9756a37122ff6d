"""FHIR R4 in, OMOP CDM 5.4 out, with an exact account of every line."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import duckdb

from fedhealth import __version__
from fedhealth.cdm.accounting import Accounting
from fedhealth.cdm.bookkeeping import account_run, describe_source, trace_rows
from fedhealth.cdm.coding import match_codings, match_references, match_units
from fedhealth.cdm.events import keep_events
from fedhealth.cdm.items import split_items, value_items
from fedhealth.cdm.output import replacing, write_private, write_record, write_tables
from fedhealth.cdm.rows import latest_day, write_events, write_periods
from fedhealth.cdm.staging import check_shapes, parse, stage
from fedhealth.cdm.visits import define_times, keep_encounters, keep_patients, outermost_stays, write_visits
from fedhealth.config import FhirValidation
from fedhealth.errors import ConfigError, DataError
from fedhealth.vocabulary.maps import shipped_digest
from fedhealth.vocabulary.site_map import SiteMap, read_site_map


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
    progress: Callable[[str], None] | None = None,
    threads: int = 1,
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
      progress: called with the name of each file before it is read.
      threads: DuckDB threads.

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
    mapped = read_site_map(Path(site_map) if site_map is not None else None)
    with replacing(cdm_dir) as folder:
        scratch = folder / "spill"
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "temp_directory": str(scratch),
            "preserve_insertion_order": False,
            "checkpoint_threshold": "1TB",  # a database in memory has nothing to make durable
        }
        try:
            with duckdb.connect(":memory:", config=config) as database:
                account = _run(database, fhir_dir, folder, site, mapped, site_secret, validate, progress)
        except duckdb.Error as error:
            raise DataError(
                f"the FHIR data cannot be harmonised (code {type(error).__name__})",
                "check free disk space and memory, then report this as a defect",
            ) from None
        _refuse_empty(account)
        if scratch.exists():
            scratch.rmdir()
        (folder / "accounting.json").write_text(account.to_json())
    return account


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


def _run(
    database: duckdb.DuckDBPyConnection,
    fhir_dir: Path,
    folder: Path,
    site: str,
    mapped: SiteMap,
    secret: bytes,
    validate: FhirValidation,
    progress: Callable[[str], None] | None,
) -> Accounting:
    clock = _Clock()
    define_times(database, mapped.settings.time_zone)
    with clock.stage("read"):
        total = stage(database, fhir_dir, progress=progress)
        parse(database, site_secret=secret)
    with clock.stage("check"):
        check_shapes(database, validate=validate)
    with clock.stage("map"):
        extract = _map(database, mapped, secret)
    with clock.stage("write"):
        digest = hashlib.sha256((shipped_digest() + mapped.digest).encode()).hexdigest()
        describe_source(database, site, extract, digest)
        tables = write_tables(database, folder)
        trace_rows(database)
        write_private(database, folder)
        write_record(folder, site=site, map_digest=digest, software_version=__version__, recorded=extract)
    return account_run(database, site, total=total, tables=tables, seconds=clock.seconds)


def _map(database: duckdb.DuckDBPyConnection, mapped: SiteMap, secret: bytes) -> date:
    """From checked resources to out tables; returns the extract date."""
    settings = mapped.settings
    match_references(database)
    _match_all_codings(database, mapped)
    keep_patients(database)
    keep_encounters(database, settings)
    outermost_stays(database)
    keep_events(database)
    extract = settings.extract_date or latest_day(database)
    write_visits(database, extract)
    split_items(database)
    match_units(database, site_map=mapped)
    value_items(database, infer=settings.unit_inference, site_secret=secret)
    write_events(database)
    write_periods(database, extract)
    return extract


def _match_all_codings(database: duckdb.DuckDBPyConnection, mapped: SiteMap) -> None:
    both = "MedicationRequest", "MedicationAdministration"
    drug = " UNION ALL ".join(
        f"SELECT medicationCodeableConcept.coding FROM p_{name} UNION ALL "
        f"SELECT c.code.coding FROM (SELECT unnest(contained) AS c FROM p_{name})"
        for name in both
    )
    numbers = "SELECT unnest(component) AS c FROM p_Observation"
    queries = {
        "admit_source": "SELECT hospitalization.admitSource.coding FROM p_Encounter",
        "disposition": "SELECT hospitalization.dischargeDisposition.coding FROM p_Encounter",
        "priority": "SELECT priority.coding FROM p_Encounter",
        "condition": "SELECT code.coding FROM p_Condition",
        "procedure": "SELECT code.coding FROM p_Procedure",
        "measurement": f"SELECT code.coding FROM p_Observation UNION ALL SELECT c.code.coding FROM ({numbers})",
        "value": "SELECT valueCodeableConcept.coding FROM p_Observation UNION ALL "
        f"SELECT c.valueCodeableConcept.coding FROM ({numbers})",
        "drug": f"{drug} UNION ALL SELECT code.coding FROM p_Medication",
        "route": "SELECT dosageInstruction[1].route.coding FROM p_MedicationRequest UNION ALL "
        "SELECT dosage.route.coding FROM p_MedicationAdministration",
    }
    for name, query in queries.items():
        match_codings(database, name, query, site_map=mapped)  # type: ignore[arg-type]
    match_codings(
        database,
        "class",
        "SELECT class FROM p_Encounter",
        site_map=mapped,
        default_system=mapped.settings.default_class_system,
    )
