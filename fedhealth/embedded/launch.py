"""One embedded run: the processes that were started, what stage took how long, and the report's raw material."""

import contextvars
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

from fedhealth.config import FhirValidation, Timeouts, Workdir
from fedhealth.embedded.consortium import Consortium, load_consortium
from fedhealth.embedded.coordinator_process import CoordinatorProcess, PlannedRun
from fedhealth.embedded.enrolment import enrol
from fedhealth.embedded.pool import SiteConfig, SitePool, start_forkserver
from fedhealth.embedded.preflight import check_launch
from fedhealth.embedded.study_result import StudyResult
from fedhealth.errors import ConfigError, FedHealthError, PolicyError
from fedhealth.exchange import hasty_url
from fedhealth.rounds.journal import write_durably
from fedhealth.study import Study, load_study

POLL_S = 0.05
CORES = 2
PASSED_ON = ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI")
"""What the coordinator's process inherits; never a site's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """What an embedded run is asked to do."""

    studies: tuple[str, ...]
    consortium: str
    workdir: str
    references: bool = False
    seed: int = 0
    fhir_validation: FhirValidation = "sample"
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(slots=True, kw_only=True)
class Launch:
    """A running consortium on one machine. It holds folders and processes, never a key or a row."""

    settings: LaunchSettings
    workdir: Workdir
    consortium: Consortium
    studies: dict[str, Study]
    study_files: dict[str, Path]
    pool: SitePool
    coordinator: CoordinatorProcess
    assistant: ProcessPoolExecutor
    """One process, forked when first used: it pools rows for the references, verifies, writes the report."""
    seconds: dict[str, float] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    failures: dict[str, FedHealthError] = field(default_factory=dict)
    references: dict[str, dict[str, Any]] = field(default_factory=dict)
    verified: dict[str, Any] = field(default_factory=dict)
    notify: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)
    _cores: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(CORES))
    _lock: Lock = field(default_factory=Lock)
    _assisting: Lock = field(default_factory=Lock)
    _stage_done: dict[str, int] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""
        return self.pool.sites

    @property
    def runs(self) -> tuple[str, ...]:
        """Ids of the planned runs, in their order."""
        return tuple(self.studies)

    def enrol(self) -> str:
        """Keys, roster, pair keys; returns the roster's digest."""
        with self._stage("enrol"):
            signed = enrol(self.pool, coordinator_folder=self.workdir.coordinator, pin=self.workdir.roster)
        return signed.roster.digest

    def harmonise(self, site: str) -> str:
        """One site's FHIR (or OMOP) to its CDM; a site that cannot be read is out, with its reason."""
        entry = self.consortium.entry(site)
        with self._site_stage("harmonise", site):
            map_folder = None if entry.site_map is None else str(entry.site_map)
            if (omop := entry.omop or entry.cdm) is not None:
                result = self.pool.call(site, "use_omop", str(omop), map_folder)
            else:
                result = self.pool.call(
                    site, "harmonise", str(entry.fhir), map_folder, self.settings.fhir_validation
                )
        if result["state"] == "failed":
            self.states[site] = result["problem"]
        return str(result["state"])

    def validate(self, site: str) -> str:
        """The gate at one site."""
        if site in self.states:
            return "data_unreadable"
        with self._site_stage("validate", site):
            result = self.pool.call(site, "validate")
        return "passed" if result["passed"] else str(result["reason"])

    def build_rows(self, site: str) -> str:
        """Cohort and features of every study at one site."""
        if site in self.states:
            return "data_unreadable"
        with self._site_stage("features", site):
            results = [
                self.pool.call(site, "build_rows", study.canonical()) for study in self.studies.values()
            ]
        return "built" if all(result["built"] for result in results) else "not built"

    def open_runs(self) -> None:
        """Give the coordinator its roster, for which it waits: it counts the time of sites that can answer."""
        write_durably(self.workdir.coordinator / "roster.json", self.workdir.roster.read_bytes())

    def follow(self, site: str, run: str) -> str:
        """One site answers every round of a run."""
        try:
            outcomes = [outcome for _, outcome in self.pool.call(site, "follow", run)]
        except FedHealthError as error:
            self.failures[site] = error
            raise
        return ", ".join(f"{outcomes.count(name)} {name}" for name in sorted(set(outcomes)))

    def await_run(self, run: str) -> int:
        """Wait for the coordinator to finish a run; returns its number of training rounds.

        Raises:
          FedHealthError: what the coordinator ended with.
        """
        rounds = self.studies[run].training.rounds
        with self._stage(f"rounds {self.studies[run].name}"):
            while (result := self._result_of(run)) is None:
                time.sleep(POLL_S)
                trained = min(rounds, max(0, self._closed_rounds(run) - 1))  # round 0 trains nothing
                self.notify(f"rounds {self.studies[run].name}", trained, rounds)
        closed = result["rounds"]
        return max(0, len(closed) - 2) if isinstance(closed, list) else 0  # nor does the one that only scores

    def _result_of(self, run: str) -> dict[str, object] | None:
        """The coordinator's result; of a run that sites ended, what the first of them said, for they know why."""
        try:
            return self.coordinator.result(run)
        except PolicyError as error:
            if not self.failures:
                raise
            site = min(self.failures)
            told = self.failures[site]
            raise type(told)(f"{site}: {told.problem} ({error.problem})", told.fix) from None

    def train_references(self, run: str) -> int:
        """Local-only, unprotected federated and centralised models, in the assistant's process.

        They need the statistics of the run's round 0 and nothing later, so they train beside its rounds.

        Raises:
          FedHealthError: what the coordinator ended with before.
        """
        study = self.studies[run]
        while not self._closed_rounds(run) and self.coordinator.result(run) is None:
            time.sleep(POLL_S)
        sites = tuple(site for site in self.sites if site not in self.states)
        with self._assisting, self._stage("references"):
            told = self.assistant.submit(
                _references, str(self.workdir.path), sites, study.canonical(), run, self.settings.seed
            ).result()
        self.references[run] = told
        return len(told["rows"])

    def verify(self) -> bool:
        """Let the sites co-sign the end of the log, and check log, exchange and registry against each other."""
        with self._stage("verify the log"):
            for site in (each for each in self.sites if each not in self.failures):
                self.pool.call(site, "witness")
            self.verified = self.assistant.submit(_verify, str(self.workdir.path)).result()
        return bool(self.verified["ok"])

    def write_report(self) -> str:
        """report.json and report.html in the working directory; the report is attached to the runs in MLflow."""
        with self._stage("report"):
            results = tuple(self._result(run) for run in self.runs)
            self.assistant.submit(
                _report, str(self.workdir.path), results, dict(self.seconds), self._upper_bound()
            ).result()
        return str(self.workdir.report_html)

    def _result(self, run: str) -> StudyResult:
        content = self.coordinator.result(run)
        if content is None:
            raise ConfigError(f"the run {run} has no result", "run the study again")
        return StudyResult(
            study=self.studies[run].canonical(),
            coordinator=json.dumps(content),
            references=tuple(self.references.get(run, {}).get("rows", ())),
            local_models=self.references.get(run, {}).get("local", {}),
            states=dict(self.states),
            attrition=self._attrition(run),
            verified=self.verified,
        )

    def _attrition(self, run: str) -> dict[str, Any]:
        study = self.studies[run]
        name = f"{study.name}-{study.digest[:16]}.attrition.json"
        paths = {site: self.workdir.site(site) / "rows" / name for site in self.sites}
        return {site: json.loads(path.read_bytes()) for site, path in paths.items() if path.exists()}

    def _upper_bound(self) -> tuple[str, ...]:
        """The sites' folders with the generator's own probabilities, when the data of all is synthetic."""
        folders = [entry.fhir.parent for entry in self.consortium.sites if entry.fhir is not None]
        is_synthetic = len(folders) == len(self.consortium.sites) and all(
            (folder / "truth.parquet").exists() for folder in folders
        )
        return tuple(map(str, folders)) if is_synthetic else ()

    def _closed_rounds(self, run: str) -> int:
        return len(list((self.workdir.exchange / "runs" / run / "rounds").glob("*/aggregate")))

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self.notify(name, 0, 1)
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
        self.notify(name, 1, 1)

    @contextmanager
    def _site_stage(self, name: str, site: str) -> Iterator[None]:
        """A stage that runs at as many sites at once as there are cores; its time is from first to last."""
        with self._cores:
            started = time.monotonic()
            yield
            with self._lock:
                first = self._first_started.setdefault(name, started)
                self.seconds[name] = time.monotonic() - first
                self._stage_done[name] = self._stage_done.get(name, 0) + 1
                done = self._stage_done[name]
        self.notify(name, done, len(self.sites))

    _first_started: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchEnvironment:
    """What a command adds to a launch: processes' variables, seconds spent before, where progress is shown."""

    variables: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notify: Callable[[str, int, int], None] = field(default=lambda stage, done, total: None)


_environment: contextvars.ContextVar[LaunchEnvironment] = contextvars.ContextVar("launch environment")
_current: contextvars.ContextVar[Launch] = contextvars.ContextVar("launch")


def current_launch() -> Launch:
    """The launch of this flow run."""
    return _current.get()


@contextmanager
def launch_environment(
    variables: Mapping[str, str], *, seconds: Mapping[str, float], notify: Callable[[str, int, int], None]
) -> Iterator[None]:
    """Set what the launches opened within this block start with; never a flow parameter."""
    token = _environment.set(LaunchEnvironment(dict(variables), dict(seconds), notify))
    try:
        yield
    finally:
        _environment.reset(token)


@contextmanager
def open_launch(settings: LaunchSettings) -> Iterator[Launch]:
    """Start the site processes and the coordinator's process; end them with the block.

    Raises:
      ConfigError, DataError, PolicyError: the consortium or a study cannot be used; nothing was started.
    """
    workdir = Workdir(Path(settings.workdir).resolve())
    consortium = load_consortium(Path(settings.consortium))
    files = {}
    for path in settings.studies:
        study = load_study(path)
        files[run_id(study, datetime.now(UTC))] = (study, Path(path).resolve())
    check_launch((study for study, _ in files.values()), consortium, workdir)
    workdir.path.mkdir(parents=True, exist_ok=True)
    (workdir.coordinator / "roster.json").unlink(missing_ok=True)
    studies = {run: study for run, (study, _) in files.items()}
    without_privacy = all(study.privacy.mode == "none" for study in studies.values())
    configs = {
        entry.name: SiteConfig(
            name=entry.name,
            folder=workdir.site(entry.name),
            exchange=hasty_url(workdir.exchange),
            derive_from_seed=settings.seed if without_privacy else None,
            timeouts=settings.timeouts,
        )
        for entry in consortium.sites
    }
    coordinator = _start_coordinator(settings, workdir, {run: path for run, (_, path) in files.items()})
    try:
        with SitePool(configs) as pool, ProcessPoolExecutor(1, mp_context=start_forkserver()) as assistant:
            launch = Launch(
                settings=settings,
                workdir=workdir,
                consortium=consortium,
                studies=studies,
                study_files={run: path for run, (_, path) in files.items()},
                pool=pool,
                coordinator=coordinator,
                assistant=assistant,
            )
            launch.seconds.update(_environment.get(LaunchEnvironment()).seconds)
            launch.notify = _environment.get(LaunchEnvironment()).notify
            token = _current.set(launch)
            try:
                yield launch
            finally:
                _current.reset(token)
    finally:
        coordinator.stop()


def run_id(study: Study, now: datetime) -> str:
    """A run's id: the study's name and the time of its start."""
    return f"{study.name}-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}"


def _start_coordinator(
    settings: LaunchSettings, workdir: Workdir, runs: dict[str, Path]
) -> CoordinatorProcess:
    from fedhealth.registry import artifact_folder, choose_store

    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= _environment.get(LaunchEnvironment()).variables
    environment["FEDHEALTH_TIMEOUTS"] = json.dumps(
        {name: getattr(settings.timeouts, name) for name in Timeouts.__slots__}
    )
    return CoordinatorProcess(
        folder=workdir.coordinator,
        exchange=hasty_url(workdir.exchange),
        tracking_uri=choose_store(workdir.path, environment.pop("MLFLOW_TRACKING_URI", None)),
        artifacts=artifact_folder(workdir.path),
        seed=settings.seed,
        runs=tuple(PlannedRun(run=run, study_file=path) for run, path in runs.items()),
        environment=environment,
    )


def _references(workdir: str, sites: tuple[str, ...], study: bytes, run: str, seed: int) -> dict[str, Any]:
    """In the assistant's process, as the two below; the launcher imports nothing of what they use."""
    from fedhealth.embedded.results import reference_rows

    return reference_rows(workdir, sites, study, run, seed)


def _verify(workdir: str) -> dict[str, Any]:
    from fedhealth.embedded.history import verify_workdir

    return verify_workdir(workdir)


def _report(
    workdir: str, results: tuple[StudyResult, ...], seconds: dict[str, float], synthetic: tuple[str, ...]
) -> None:
    from fedhealth.embedded.results import build_report

    build_report(workdir, results, seconds, synthetic)
