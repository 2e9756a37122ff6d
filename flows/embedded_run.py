"""What `fedhealth demo` and `fedhealth study run` do around the embedded flow: server, progress, result."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from rich.console import Console, RenderableType

from fedhealth.config import FhirValidation, Workdir
from fedhealth.embedded.consortium import consortium_from_options, load_consortium
from fedhealth.embedded.pool import start_forkserver
from fedhealth.embedded.preflight import check_launch
from fedhealth.errors import ConfigError
from fedhealth.study import Study, load_study
from flows.prefect_server import PrefectServer, check_server, prefect_server
from flows.progress import stages

DEMO_STUDIES = ("demo-readmission", "demo-mortality")


def run_demo(
    *, hospitals: int, patients: int, rounds: int, workdir: Path, seed: int, console: Console
) -> RenderableType:
    """Synthesise a consortium and run both demo studies over it with all references.

    Raises:
      PolicyError: fewer than 3 hospitals, or a study that cannot go on.
    """
    from fedhealth.embedded.consortium import require_enough_sites

    require_enough_sites(hospitals)
    place = _new_place(workdir)
    started = time.monotonic()
    with prefect_server(place.prefect) as server, stages(console) as show:
        start_forkserver()
        show("synthesise", 0, hospitals)
        studies = tuple(str(_demo_study(name, rounds, place)) for name in DEMO_STUDIES)
        consortium = _synthesise(place, hospitals, patients, seed, show)
        seconds = {"synthesise": time.monotonic() - started}
        _run_flow(
            server, place, studies, consortium, references=True, seed=seed, notify=show, seconds=seconds
        )
    return _shown(place)


def run_studies(
    studies: Sequence[Path],
    *,
    sites: Sequence[str],
    site_maps: Sequence[str],
    consortium: Path | None,
    references: bool,
    workdir: Path,
    seed: int,
    fhir_validation: FhirValidation,
    console: Console,
) -> RenderableType:
    """Run studies over given folders, one after the other over the same sites.

    Raises:
      FedHealthError: bad input (nothing was written), or a study that cannot go on.
    """
    loaded = [load_study(study) for study in studies]
    _check_names(loaded)
    members = load_consortium(consortium) if consortium else consortium_from_options(sites, site_maps)
    check_launch(loaded, members, Workdir(workdir.resolve()))
    place = _new_place(workdir)
    place.consortium.write_text(members.to_yaml(), encoding="utf-8")
    if references:
        console.print("--references pools the rows of all sites on this machine, for comparison only")
    with prefect_server(place.prefect) as server, stages(console) as show:
        start_forkserver()
        _run_flow(
            server,
            place,
            tuple(str(study.resolve()) for study in studies),
            place.consortium,
            references=references,
            seed=seed,
            notify=show,
            seconds={},
            fhir_validation=fhir_validation,
        )
    return _shown(place)


def _check_names(studies: Sequence[Study]) -> None:
    """Refuse two studies of one name: they would be one experiment and one model."""
    names = [study.name for study in studies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two of the studies are called {twice[0]}", "give each study a name of its own")


def _new_place(workdir: Path) -> Workdir:
    """The working directory, made once nothing stands in the way."""
    check_server()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise ConfigError(
            f"--workdir {workdir} cannot be made", "name a folder, new or of an earlier run"
        ) from None
    return Workdir(workdir.resolve())


def _synthesise(
    place: Workdir, hospitals: int, patients: int, seed: int, show: Callable[[str, int, int], None]
) -> Path:
    from fedhealth.synthetic import write_consortium

    done = 0

    def advance(site: str) -> None:
        nonlocal done
        done += 1
        show("synthesise", done, hospitals)

    out = place.path / "consortium"
    write_consortium(out, hospitals=hospitals, patients=patients, seed=seed, progress=advance)
    return out / "consortium.yaml"


def _demo_study(name: str, rounds: int, place: Workdir) -> Path:
    """The shipped demo study with the rounds that were asked for, as a file in the working directory."""
    source = Path(__file__).parent.parent / "infra" / "studies" / f"{name}.yaml"
    if not source.exists():
        raise ConfigError(f"the study {source} is missing", "run the demo from a clone of the repository")
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    content["training"]["rounds"] = rounds
    target = place.path / "studies" / f"{name}.yaml"
    target.parent.mkdir(exist_ok=True)
    target.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return target


def _run_flow(
    server: PrefectServer,
    place: Workdir,
    studies: tuple[str, ...],
    consortium: Path,
    *,
    references: bool,
    seed: int,
    notify: Callable[[str, int, int], None],
    seconds: dict[str, float],
    fhir_validation: FhirValidation = "sample",
) -> None:
    """Wait for the server, then run the embedded flow in this process."""
    started = time.monotonic()
    importing = threading.Thread(target=_import_flow, daemon=True)
    importing.start()
    server.wait()
    importing.join()
    from prefect.logging.handlers import APILogHandler

    from fedhealth.embedded.launch import launch_environment
    from flows.embedded import embedded_study
    from flows.flow_runs import no_heartbeats

    seconds["start"] = time.monotonic() - started
    coordinators = server.environment | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}
    try:
        with launch_environment(coordinators, seconds=seconds, notify=notify), no_heartbeats():
            embedded_study(
                studies=studies,
                consortium=str(consortium),
                workdir=str(place.path),
                references=references,
                seed=seed,
                fhir_validation=fhir_validation,
                label=place.path.name,
            )
    finally:
        APILogHandler().flush()  # while the server still listens


def _import_flow() -> None:
    import flows.embedded  # noqa: F401 - imported early, beside the server's start


def _shown(place: Workdir) -> RenderableType:
    from fedhealth.reporting import read_report, render_console

    return render_console(read_report(place.report_json))
