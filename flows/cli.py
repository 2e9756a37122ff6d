"""The ``fedhealth`` command: thin; every command imports what it needs when it runs."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedhealth.config import FhirValidation, Profile
from fedhealth.errors import ConfigError, FedHealthError, PolicyError
from flows.pki_cli import pki_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hospitals train one model together; no patient record leaves a hospital.",
)
study_app = typer.Typer(no_args_is_help=True, help="Run a study.")
audit_app = typer.Typer(no_args_is_help=True, help="Prove what happened.")
export_app = typer.Typer(no_args_is_help=True, help="Hand a CDM on, inside the hospital.")
app.add_typer(study_app, name="study")
app.add_typer(export_app, name="export")
app.add_typer(audit_app, name="audit")
app.add_typer(pki_app, name="pki")


def _checked_json(path: Path | None) -> Path | None:
    """Refuse a place that cannot be written to before the work, not after it."""
    if path is not None and (not path.absolute().parent.is_dir() or path.is_dir()):
        raise ConfigError(f"--json {path} cannot be written", "name a file in a folder that exists")
    return path


def _checked_digest(digest: str | None) -> str | None:
    """A digest that is cut short would match nothing."""
    if digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        raise ConfigError("--roster is no digest", "give all 64 hexadecimal digits of it, in small letters")
    return digest


JsonFile = Annotated[
    Path | None,
    typer.Option("--json", help="Write the result for machines to this file.", callback=_checked_json),
]
Validate = Annotated[FhirValidation, typer.Option(help="How much fhir.resources checks: all, sample or off.")]
_state = {"debug": False}


@app.callback()
def _options(debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False) -> None:
    _state["debug"] = debug


@app.command()
def demo(
    hospitals: Annotated[int, typer.Option(min=1)] = 15,
    patients: Annotated[int, typer.Option(min=1, help="Mean number of patients of a hospital.")] = 400,
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    workdir: Path = Path("demo"),
    seed: int = 0,
) -> None:
    """A synthetic consortium as FHIR, through everything, to a table, report.html and registered models."""
    from flows.embedded_run import run_demo

    console = Console()
    report = run_demo(
        hospitals=hospitals, patients=patients, rounds=rounds, workdir=workdir, seed=seed, console=console
    )
    console.print(report, soft_wrap=True)  # commands can be copied whole


@app.command()
def synth(
    hospitals: Annotated[int, typer.Option(min=1)] = 15,
    patients: Annotated[int, typer.Option(min=1)] = 400,
    out: Path = typer.Option(..., help="Where DIR/<site>/fhir/*.ndjson and DIR/consortium.yaml are written."),
    seed: int = 0,
    fault: Annotated[list[str] | None, typer.Option(help="Plant a fault: hospital-04=units_lost.")] = None,
) -> None:
    """Write a consortium of synthetic hospitals as FHIR R4, each in its own dialect."""
    from fedhealth.synthetic import write_consortium
    from flows.progress import steps

    console = Console(stderr=True)
    with steps(console, "synthesise", hospitals) as advance:
        write_consortium(
            out,
            hospitals=hospitals,
            patients=patients,
            seed=seed,
            faults=dict(each.partition("=")[::2] for each in fault or []),
            progress=advance,
        )
    command = f"fedhealth study run STUDY.yaml --consortium {quote(str(out / 'consortium.yaml'))}"
    Console().print(f"{hospitals} hospitals in {out}; next: {command}", soft_wrap=True, markup=False)


@export_app.command("meds")
def export_meds(
    cdm: Path = typer.Option(..., help="Folder that harmonize wrote."),
    out: Path = typer.Option(..., help="Folder to write: data/*.parquet and metadata/."),
    json_file: JsonFile = None,
) -> None:
    """Write a CDM as a MEDS dataset: every event of every patient, so it stays inside the hospital."""
    from fedhealth.cdm.meds import export_meds as export

    counts = export(cdm, out)
    _write_json(json_file, counts.to_json())
    table = Table("from", "events", title=f"{counts.subjects} subjects in {counts.shards} shards")
    for origin, n in counts.events.items():
        table.add_row(origin, str(n))
    Console().print(table)


@app.command()
def harmonize(
    fhir: Path | None = typer.Option(
        None, help="Folder of FHIR R4 files: .ndjson, .ndjson.gz, .json bundles."
    ),
    omop: str | None = typer.Option(
        None, help="Instead of --fhir: folder of OMOP Parquet or CSV, or postgresql://host/db?schema=cdm."
    ),
    cdm: Path = typer.Option(..., help="Folder to write: OMOP 5.4 Parquet and accounting.json."),
    site_map: Path | None = typer.Option(None, help="Folder with ConceptMap JSON and site.yaml."),
    site: str = "site",
    validate: Validate = "sample",
    profile: Profile | None = typer.Option(None, help="How dates are de-identified; else as site.yaml says."),
    workers: int = typer.Option(1, min=1, help="Processes that share the work."),
    json_file: JsonFile = None,
) -> None:
    """Convert a hospital's FHIR R4 (or its own OMOP) to OMOP 5.4: read = loaded + excluded + quarantined."""
    from fedhealth.cdm import harmonize as convert
    from fedhealth.cdm.omop import import_omop
    from fedhealth.cdm.record import read_record
    from fedhealth.fhir.files import find_files
    from fedhealth.identity import SiteSecrets
    from fedhealth.validation.losses import find_losses
    from flows.progress import spinner, stages

    if (fhir is None) == (omop is None):
        raise ConfigError("harmonize needs exactly one of --fhir and --omop", "name the source")
    if fhir is not None:
        find_files(fhir)
    keys = cdm.parent / f".{cdm.name}.keys"
    secret = SiteSecrets.load_or_create(keys).site_secret
    if fhir is not None:
        with stages(Console(stderr=True)) as show:
            accounting = convert(
                fhir,
                cdm,
                site=site,
                site_map=site_map,
                site_secret=secret,
                validate=validate,
                verdicts=keys,
                profile=profile,
                workers=workers,
                progress=show,
            )
    else:
        with spinner(Console(stderr=True), "import"):
            accounting = import_omop(
                str(omop),
                cdm,
                site=site,
                site_map=site_map,
                site_secret=secret,
                profile=profile,
                threads=workers,
            )
    _write_json(json_file, accounting.to_json())
    table = Table(
        "resource", "read", "loaded", "excluded", "quarantined", title="Accounting (stays at the site)"
    )
    for name, counts in accounting.resources.items():
        table.add_row(
            name,
            str(counts.read),
            str(counts.loaded),
            _reasons(counts.excluded),
            _reasons(counts.quarantined),
        )
    Console().print(table)
    for warning in read_record(cdm).warnings:
        Console().print(f"warning: {warning}", markup=False)
    if losses := find_losses(accounting):
        named = ", ".join(loss.code for loss in losses)
        Console().print(
            f"more was lost than a few rows: {named}. Fix: see what accounting.json and private/quarantine.parquet say of them",
            markup=False,
            soft_wrap=True,
        )


@app.command()
def validate(
    cdm: Path = typer.Option(..., help="Folder of OMOP Parquet, as `harmonize` writes it."),
    docs: Path | None = typer.Option(None, help="Folder for the Data Docs pages; they stay at the site."),
    json_file: JsonFile = None,
) -> None:
    """Run the Great Expectations gate; exit 1 when a blocking check fails."""
    from fedhealth.validation import validate_cdm
    from flows.progress import spinner

    with spinner(Console(stderr=True), "validate"):
        report = validate_cdm(cdm, docs=docs)
    _write_json(json_file, report.to_json())
    table = Table("check", "table", "severity", "result", "share failed", title="Checks that did not pass")
    for check in (*report.failures, *report.warnings):
        table.add_row(check.name, check.table, check.severity, "failed", str(check.share_failed))
    console = Console()
    if table.row_count:
        console.print(table)
    if not report.passed:
        raise PolicyError(
            f"the gate is closed: {report.reason}", "mend the source or the site map and load again"
        )
    console.print(f"{len(report.checks)} checks, none of the blocking ones failed")


@study_app.command("init")
def study_init(
    name: str = typer.Argument(help="Of the study: small letters, digits, hyphens."),
    out: Path | None = typer.Option(
        None, help="File to write; NAME.yaml by default. One that is there is kept."
    ),
) -> None:
    """Write a commented study to start from."""
    from fedhealth.study.template import study_template

    path, text = out or Path(f"{name}.yaml"), study_template(name)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} is there already", "name another file with --out") from None
    except OSError:
        raise ConfigError(f"{path} cannot be written", "name a file in a folder that exists") from None
    command = f"fedhealth study run {quote(str(path))} --site NAME=DIR ..."
    Console().print(f"{path} written; next: {command}", soft_wrap=True, markup=False)


@study_app.command("run")
def study_run(
    studies: list[Path] = typer.Argument(help="Study files, run one after the other over the same sites."),
    site: list[str] = typer.Option([], help="NAME=FHIR_OR_CDM_DIR, once per site."),
    site_map: list[str] = typer.Option([], help="NAME=DIR with ConceptMap JSON and site.yaml."),
    consortium: Path | None = typer.Option(None, help="A consortium.yaml instead of --site options."),
    references: Annotated[
        bool,
        typer.Option("--references", help="Also train local and centralised models: pools the data here."),
    ] = False,
    workdir: Path = Path("fedhealth-work"),
    seed: int = 0,
    validate: Validate = "sample",
    json_file: JsonFile = None,
) -> None:
    """Run whole studies in embedded mode over given folders."""
    from flows.embedded_run import run_studies

    if bool(site) == (consortium is not None):
        raise ConfigError(
            "name the sites either with --site or with --consortium",
            "give --site NAME=DIR three times or more",
        )
    console = Console()
    report = run_studies(
        studies,
        sites=site,
        site_maps=site_map,
        consortium=consortium,
        references=references,
        workdir=workdir,
        seed=seed,
        fhir_validation=validate,
        console=console,
    )
    _write_json(json_file, (workdir / "report.json").read_text(encoding="utf-8"))
    console.print(report, soft_wrap=True)  # commands can be copied whole


@audit_app.command("export")
def audit_export(
    workdir: Path,
    out: Path = typer.Option(..., help="The zip file to write."),
    model: str | None = typer.Option(None, help="NAME/VERSION; the last report's model if not given."),
) -> None:
    """Write a released model's whole history to one file that anybody can verify offline."""
    from fedhealth.embedded.history import export_model

    told = export_model(str(workdir), model, str(out))
    Console().print(
        f"{told['model']} of run {told['run']}: fedhealth audit verify {quote(str(out))}",
        soft_wrap=True,
        markup=False,
    )


@audit_app.command("verify")
def audit_verify(
    path: Annotated[Path, typer.Argument(help="A working directory, or a bundle of `audit export`.")],
    roster: Annotated[
        str | None,
        typer.Option(help="The roster's digest, as you know it from elsewhere.", callback=_checked_digest),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Open every sum anew too, and compute every model again.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Check every log entry, object and model of a working directory or a bundle; exit 1 on any edit."""
    from fedhealth.embedded.history import verify_file, verify_workdir

    is_bundle = path.is_file()
    if is_bundle:
        result = verify_file(str(path), roster_digest=roster, replay=replay)
    else:
        result = verify_workdir(str(path), roster_digest=roster, replay=replay)
    _write_json(json_file, json.dumps(result, indent=2))
    console = Console()
    for kind, key, problem in result["findings"]:
        console.print(f"{kind}: {key} {problem}", markup=False)
    if "roster" in (kind for kind, _, _ in result["findings"]):
        raise PolicyError(
            f"the history is of the roster {result['roster']}", "ask the coordinator which roster is in force"
        )
    if not result["ok"]:
        raise PolicyError(
            "the history is not proven", "take exchange, registry or bundle from a copy that verifies"
        )
    if is_bundle:
        console.print(f"{result['model']} of run {result['run']}", soft_wrap=True)
    if not result["released"]:
        console.print("nothing was released, so no model is proven; what is there checks out", soft_wrap=True)
    console.print(f"roster {result['roster']}", soft_wrap=True)
    console.print(
        f"verified: {result['size']} log entries, {result['objects']} objects, root {result['root']}",
        soft_wrap=True,
    )
    if replay:
        console.print("replayed: the published sums and models follow from what the sites sent")
    cosigners = ", ".join(result["cosigners"]) or "enough sites"
    console.print(f"{result['cosigned_size']} of them co-signed by {cosigners}", soft_wrap=True)


@app.command()
def doctor(workdir: Path = Path("."), json_file: JsonFile = None) -> None:
    """Say what is wrong with this installation, each with one fix; exit 1 when something is."""
    from fedhealth.doctor import run_checks

    results = run_checks(workdir=workdir)
    _write_json(
        json_file,
        json.dumps([{"name": r.name, "ok": r.ok, "detail": r.detail, "fix": r.fix} for r in results]),
    )
    table = Table("check", "", "detail", "fix")
    for result in results:
        table.add_row(
            result.name,
            "ok" if result.ok else "[red]no[/red]",
            result.detail,
            "" if result.ok else result.fix,
        )
    Console().print(table)
    if not all(result.ok for result in results):
        raise PolicyError("this installation is not healthy", "follow the fixes in the table")


def main() -> None:
    """Entry point: errors are one line with a fix; exit codes 0, 1 and 2. A SIGTERM ends what was started."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    code: Any = 0
    try:
        with _one_line_errors():
            app(standalone_mode=True)
    except SystemExit as leaving:
        code = leaving.code
    sys.stdout.flush()
    sys.stderr.flush()
    if "duckdb" in sys.modules:
        os._exit(code or 0)  # an ordinary exit lets DuckDB's binding complain on stderr about itself
    sys.exit(code)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except FedHealthError as error:
        if _state["debug"]:
            raise
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        print(f"fedhealth: {error.problem}{notes}. Fix: {error.fix}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(
            "fedhealth: interrupted. Fix: run the same command again; it starts anew with the same keys",
            file=sys.stderr,
        )
        sys.exit(130)
    except Exception as error:
        if _state["debug"]:
            raise
        print(
            f"fedhealth: {type(error).__name__}. Fix: run again with --debug and report it", file=sys.stderr
        )
        sys.exit(1)


def _write_json(path: Path | None, text: str) -> None:
    """Write a result, of which some hold a site's exact counts: for the owner alone."""
    if path is not None:
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


def _reasons(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "0"
