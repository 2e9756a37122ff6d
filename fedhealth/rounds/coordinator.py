"""The coordinator's rounds: open, wait, sum, close. It never sees a row, and under masks not one site's update.

All state is on the board; what a secure sum opened is decoded at once and kept in the coordinator's own
folder until the round closes (score bins are never stored, only the metrics made from them). Every method may
be called again after a crash and then finds what is already done.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from fedhealth.audit import ROSTER_SUBJECT, StatementKind
from fedhealth.audit.log import TransparencyLog
from fedhealth.config import Timeouts
from fedhealth.errors import ConfigError, PolicyError, ProtocolError
from fedhealth.evaluation import Table
from fedhealth.exchange.board import Board
from fedhealth.models import weights as weight_codec
from fedhealth.models.weights import Weights
from fedhealth.refs import RoundRef
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import Aggregate, read_aggregate
from fedhealth.rounds.coordinator_closing import (
    await_cosigners,
    await_verdicts,
    news_of,
    signed_objects,
)
from fedhealth.rounds.groups import (
    check_groups,
    round_result,
)
from fedhealth.rounds.journal import write_durably
from fedhealth.rounds.objects import (
    PREPROCESSING_ROUND,
    Abstain,
    DriftFound,
    Manifest,
    Payload,
    Ready,
    check_run_id,
    compares_before,
    is_needed_within,
    last_round,
    purposes_of,
    round_key,
    site_key,
    sites_needed,
    study_key,
)
from fedhealth.rounds.outcome import Attendance, RoundClosed
from fedhealth.rounds.pinned_roster import certificates_in
from fedhealth.rounds.possible import fix_of_quorum
from fedhealth.rounds.posted import read_manifest, read_study
from fedhealth.rounds.progress import Progress, check_patterns
from fedhealth.rounds.replay import verifiers_needed
from fedhealth.rounds.round_sums import RoundSums
from fedhealth.secagg.plan import colluders_withstood
from fedhealth.study.spec import Study

P = TypeVar("P", bound=Payload)


@dataclass(slots=True, kw_only=True)
class CoordinatorNode:
    """The coordinator at the exchange."""

    name: str
    folder: Path
    board: Board
    log: TransparencyLog
    timeouts: Timeouts
    blamed: dict[str, str] = field(default_factory=dict)
    _opened_at: dict[tuple[str, int], float] = field(default_factory=dict)
    _progress: dict[str, Progress] = field(default_factory=dict)

    # --- a run

    def start_run(self, study: Study, *, run: str, seed: int, transferred: Weights | None = None) -> int:
        """Put the signed study and the manifest of round 0 on the board; returns the number of the last round.

        Args:
          study: the study.
          run: the run's id.
          seed: of everything that is not secret.
          transferred: the weights of the registered model that the study starts from, if it names one.

        Raises:
          ConfigError: the run id cannot be part of a key, the transferred weights are not the study's, or a pattern of
            parameters is that of none.
          PolicyError: too few sites are enrolled for the study's groups.
        """
        check_run_id(run)
        check_groups(study, self.board.roster.sites)
        check_patterns(study)
        self._keep_transferred(study, run, transferred)
        self._log_roster()
        key = study_key(study)
        digest = self.board.post(key, kind="study", payload=study.canonical(), study=study.digest)
        self.log.append(
            "study", {"name": study.name, "study_digest": study.digest, "run": run}, {key: digest}
        )
        self._post_manifest(study, run=run, number=0, seed=seed)
        return last_round(study)

    def progress(self, run: str) -> Progress:
        """The run as its aggregates tell it."""
        if run not in self._progress:
            self._progress[run] = Progress(
                study=self.study_of(run),
                seed=self.manifest(run).seed,
                sites=len(self.board.roster.sites),
                aggregate_of=lambda number: read_aggregate(self.board, self.name, run, number),
                transferred=lambda: weight_codec.from_bytes(self._transferred_path(run).read_bytes()),
            )
        return self._progress[run]

    def tables(self, run: str) -> Mapping[str, Table]:
        """The tables of the final model's evaluation, by name."""
        return read_aggregate(self.board, self.name, run, self.final_round(run)).tables

    def account(self, run: str) -> RunAccount:
        """What may be told of a run."""
        return RunAccount(self.board, self.name, run, self.study_of(run))

    def manifest(self, run: str, number: int = 0) -> Manifest:
        """The coordinator's own manifest of a round.

        Raises:
          MissingObjectError: the round was never opened.
        """
        return read_manifest(self.board, run, number)

    def study_of(self, run: str) -> Study:
        """The study that a run's first manifest names."""
        return read_study(self.board, self.manifest(run))

    def open_runs(self) -> tuple[str, ...]:
        """Runs with a manifest whose last round is not closed, oldest name first."""
        keys = self.board.list("runs/")
        runs = sorted({key.split("/")[1] for key in keys if key.endswith("/rounds/0/manifest")})
        return tuple(run for run in runs if self.next_round(run) is not None)

    def next_round(self, run: str) -> int | None:
        """The first round of a run that is not closed; None when the run is finished."""
        number = 0
        while self._closed_path(run, number).exists():
            if self.progress(run).is_final(number):
                return None
            number += 1
        return number

    def final_round(self, run: str) -> int:
        """The round that scored the final model of a finished run."""
        progress = self.progress(run)
        return next(
            number for number in range(1, last_round(progress.study) + 1) if progress.is_final(number)
        )

    def find_open_round(self, run: str | None = None) -> RoundRef | None:
        """The first round that is not closed, of a run or of the first open run; None when nothing is open."""
        candidates = (run,) if run is not None else self.open_runs()
        for candidate in candidates:
            number = self.next_round(candidate)
            if number is not None:
                return RoundRef(run=candidate, number=number)
        return None

    # --- one round

    def open_round(self, run: str, number: int) -> Manifest:
        """Post the model and the manifest of a round; a round that is open already stays as it is."""
        self._opened_at.setdefault((run, number), time.monotonic())
        if self.board.exists(round_key(run, number, "manifest")):
            return self.manifest(run, number)
        return self._post_manifest(self.study_of(run), run=run, number=number, seed=self.manifest(run).seed)

    def wait_for_sites(self, run: str, number: int) -> Attendance:
        """Wait until every expected site is ready or abstains, or time is up.

        Expected are, in round 0, all sites of the roster, later those that were ready in the round before; a
        site that comes back in time takes part again.

        Raises:
          PolicyError: fewer sites are ready than the study's quorum or minimum asks for.
        """
        study = self.study_of(run)
        sites = self.board.roster.sites
        expected = set(self._ready_before(run, number) or sites)
        deadline = time.monotonic() + self.timeouts.ready_timeout_s
        answers: dict[str, Ready | Abstain] = {}
        account, spoilt = self.account(run), set[str]()
        while time.monotonic() < deadline and not expected <= {*answers, *spoilt}:
            for site in (each for each in sites if each not in answers and each not in spoilt):
                try:
                    if (answer := account.read_answer(number, site)) is not None:
                        answers[site] = answer
                except ProtocolError as error:  # what it said stays said
                    self.blamed[site] = error.problem
                    spoilt.add(site)
            if not expected <= {*answers, *spoilt}:
                time.sleep(self.timeouts.poll_s)
        attendance = Attendance(
            ready={site: answer for site, answer in sorted(answers.items()) if isinstance(answer, Ready)},
            abstained={
                site: answer.reason for site, answer in sorted(answers.items()) if isinstance(answer, Abstain)
            },
            silent=tuple(site for site in sites if site not in answers),
        )
        self._check_quorum(study, number, attendance)
        return attendance

    def secure_sum(self, run: str, number: int, name: str, *, cohort: tuple[str, ...]) -> tuple[str, ...]:
        """Run one secure sum of a round over a cohort and keep what it decodes to; returns the survivors.

        Of a group's sum those of the cohort count that are in the group; no survivors mean that the round goes on without it.

        Raises:
          PolicyError: too few sites answered, or the decoded sum shows a study that cannot go on.
        """
        stored = self._result_path(run, number, name)
        if not stored.exists():
            if compares_before(self.manifest(run, number).purposes, name):
                cohort = self._alike(run, number, cohort)
            write_durably(stored, self._sums(run, number).result(name, cohort).to_bytes())
        data = stored.read_bytes()
        if is_needed_within(name):
            self._post(run=run, number=number, kind="opened", payload=data, name=f"opened/{name}")
        return Aggregate.from_bytes(data).survivors[name]

    def _alike(self, run: str, number: int, cohort: tuple[str, ...]) -> tuple[str, ...]:
        """The sites of a cohort that have compared themselves with the others and are like them.

        Raises:
          PolicyError: too few.
        """
        keys = [site_key(run, number, site, "drift") for site in cohort]
        told: Mapping[str, DriftFound] = {}
        times = {"timeout_s": self.timeouts.phase_timeout_s, "poll_s": self.timeouts.poll_s}
        for known in news_of(self.board, keys, **times):
            if known == len(keys):
                break
        told = self.account(run).drift()
        alike = tuple(site for site in cohort if site in told and told[site].fatal is None)
        needed = sites_needed(self.study_of(run), enrolled=len(self.board.roster.sites))
        if len(alike) < needed:
            unlike = sorted({each.fatal for each in told.values() if each.fatal}) or ["no answer"]
            raise PolicyError(
                f"{len(alike)} sites are like the others, {needed} are needed (others: {', '.join(unlike)})",
                "see what the sites report of their data, or lower aggregation.quorum in the study",
            )
        return alike

    def close_round(self, run: str, number: int) -> RoundClosed:
        """Post the round's aggregate, let sites replay it (R5), log every object of the round, and sign a checkpoint.

        A round counts as closed when all of that is done: after a kill in between it is closed again, with the same bytes.
        The sites have some time to co-sign the checkpoint; one that comes later is co-signed with the next.

        Raises:
          PolicyError: fewer sites than the study asks for came to the same aggregate, or too few groups are left.
        """
        if (found := self.closed_round(run, number)) is not None:
            return found
        manifest = self.manifest(run, number)
        parts = {
            name: Aggregate.from_bytes(self._result_path(run, number, name).read_bytes())
            for name in manifest.purposes
        }
        aggregate = round_result(self.progress(run).shape(number), parts)
        payload = aggregate.to_bytes()
        self._post(run=run, number=number, kind="aggregate", payload=payload)
        self._await_verdicts(manifest, payload)
        objects = self._objects(run, number)
        told: dict[str, JsonValue] = {"run": run, "round": number, "study_digest": manifest.study_digest}
        index = self.log.index_of(StatementKind.ROUND, told)  # after a kill: a verdict may have come since
        if index is None:
            index = self.log.append("round", told, {key: digest for key, (digest, _) in objects.items()})
        checkpoint = self.log.checkpoint()
        closed = RoundClosed(
            run=run,
            round=number,
            survivors=aggregate.survivors,
            metrics=aggregate.metrics,
            log_index=index,
            log_size=checkpoint.size,
            log_root=checkpoint.root,
            cosigners=await_cosigners(self.board, self.log, checkpoint, timeouts=self.timeouts),
            upload_bytes=self._bytes_by_site(objects),
            seconds=time.monotonic() - self._opened_at.get((run, number), time.monotonic()),
        )
        write_durably(self._closed_path(run, number), closed.to_bytes())
        return closed

    def closed_round(self, run: str, number: int) -> RoundClosed | None:
        """What is told of a round that is closed; None before."""
        path = self._closed_path(run, number)
        return RoundClosed.from_bytes(path.read_bytes()) if path.exists() else None

    # --- private

    def _await_verdicts(self, manifest: Manifest, aggregate: bytes) -> None:
        """Wait for enough sites that came to the aggregate; blame who came to another."""
        found = await_verdicts(
            self.board,
            manifest,
            hashlib.sha256(aggregate).hexdigest(),
            needed=verifiers_needed(self.study_of(manifest.run)),
            timeouts=self.timeouts,
        )
        self.blamed |= dict.fromkeys(found.differ, "says that the round's sums are others than they are")

    def _post_manifest(self, study: Study, *, run: str, number: int, seed: int) -> Manifest:
        """The model, from round 1 on, and then the manifest that names it."""
        sites = len(self.board.roster.sites)
        weights, purposes = Weights(), purposes_of(study, number, is_final=False, sites=sites)
        if number > PREPROCESSING_ROUND:
            progress = self.progress(run)
            weights, purposes = progress.whole(number), progress.purposes(number)
            self._post(run=run, number=number, kind="model", payload=weight_codec.to_bytes(weights))
        manifest = Manifest(
            study=study.name,
            study_digest=study.digest,
            run=run,
            round=number,
            purposes=purposes,
            model_digest=weight_codec.digest(weights),
            roster_digest=self.board.roster.digest,
            seed=seed,
        )
        key, payload = round_key(run, number, "manifest"), manifest.to_bytes()
        self.board.post(key, kind="manifest", payload=payload, study=study.digest, run=run, round=number)
        return manifest

    def _post(self, *, run: str, number: int, kind: str, payload: bytes, name: str = "") -> None:
        key, study = round_key(run, number, name or kind), self.manifest(run).study_digest
        self.board.post(key, kind=kind, payload=payload, study=study, run=run, round=number)

    def _keep_transferred(self, study: Study, run: str, weights: Weights | None) -> None:
        wanted = study.training.initial.digest
        if wanted is None:
            return
        if weights is None or weight_codec.digest(weights) != wanted:
            raise ConfigError(
                "training.initial: the registered model has another digest than the study names",
                "copy model and digest from the version's tags in MLflow",
            )
        write_durably(self._transferred_path(run), weight_codec.to_bytes(weights))

    def _log_roster(self) -> None:
        """Log who may take part and, with an authority, post and log the certificates and revocations that say so."""
        roster = self.board.roster
        told, subjects = {"sites": len(roster.sites)}, {ROSTER_SUBJECT: roster.digest}
        if (found := certificates_in(self.folder, roster, self.board.clock())) is not None:
            number, payload = found
            key = f"epochs/{roster.digest}/certificates/{number}-{hashlib.sha256(payload).hexdigest()[:16]}"
            subjects[key] = self.board.post(key, kind="certificates", payload=payload)
            told["list_of_revocations"] = number
        self.log.append("roster", told, subjects)

    def _transferred_path(self, run: str) -> Path:
        return self.folder / "runs" / run / "transferred.safetensors"

    def _ready_before(self, run: str, number: int) -> tuple[str, ...]:
        if number == 0:
            return ()
        sites = self.board.roster.sites
        return tuple(site for site in sites if self.board.exists(site_key(run, number - 1, site, "ready")))

    def _check_quorum(self, study: Study, number: int, attendance: Attendance) -> None:
        needed = sites_needed(study, enrolled=len(self.board.roster.sites))
        withstood, asked = colluders_withstood(len(attendance.ready)), study.aggregation.colluders
        if len(attendance.ready) >= needed and asked > withstood:
            raise PolicyError(
                f"round {number}: {len(attendance.ready)} sites withstand {withstood} colluders, not {asked}",
                "lower aggregation.colluders in the study, or bring more sites",
            )
        if len(attendance.ready) < needed:
            reasons = sorted(set(attendance.abstained.values())) or ["no answer"]
            raise PolicyError(
                f"round {number}: {len(attendance.ready)} sites are ready, {needed} are needed "
                f"(others: {', '.join(reasons)})",
                fix_of_quorum(study, self.board.roster.sites, ready=len(attendance.ready), reasons=reasons),
            )

    def _sums(self, run: str, number: int) -> RoundSums:
        return RoundSums(
            board=self.board,
            folder=self.folder / "runs" / run,
            manifest=self.manifest(run, number),
            shape_of=lambda: self.progress(run).shape(number),
            account=self.account(run),
            timeouts=self.timeouts,
            blame=self.blamed.__setitem__,
        )

    def _closed_path(self, run: str, number: int) -> Path:
        return self.folder / "runs" / run / f"closed-{number:04d}.json"

    def _result_path(self, run: str, number: int, name: str) -> Path:
        return self.folder / "runs" / run / f"{number:04d}-{name.replace('/', '-')}.bin"

    def _objects(self, run: str, number: int) -> dict[str, tuple[str, int]]:
        """By key, digest and bytes of every signed object of a round."""
        keys = (
            *self.board.list(f"runs/{run}/rounds/{number}/"),
            *self.board.list(f"runs/{run}/sums/{number}/"),
        )
        manifest = self.manifest(run, number)
        approvals = self.board.list(f"studies/{manifest.study}/{manifest.study_digest}/approvals/")
        enrolment = self.board.list(f"epochs/{self.board.roster.digest}/")
        wanted = (*keys, *((*approvals, *enrolment) if number == 0 else ()))
        return signed_objects(self.board, wanted, blame=self.blamed.__setitem__)

    def _bytes_by_site(self, objects: Mapping[str, tuple[str, int]]) -> dict[str, int]:
        sites = self.board.roster.sites
        return {
            site: sum(size for key, (_, size) in objects.items() if site in key.split("/")) for site in sites
        }
