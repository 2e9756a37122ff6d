"""The coordinator's rounds: open, wait, sum, close. It never sees a row nor one site's update.

All state is on the board; what a secure sum opened is decoded at once and kept in the coordinator's own
folder until the round closes (score bins are never stored, only the metrics made from them). Every method may
be called again after a crash and then finds what is already done.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fedhealth import __version__
from fedhealth.aggregation.optimizers import server_step
from fedhealth.audit import ROSTER_SUBJECT
from fedhealth.audit.log import TransparencyLog
from fedhealth.config import Timeouts
from fedhealth.errors import MissingObjectError, PolicyError, ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.exchange.envelope import unseal
from fedhealth.models import weights as weight_codec
from fedhealth.models.networks import initial_weights
from fedhealth.models.weights import Weights
from fedhealth.privacy.accounting import epsilon_spent
from fedhealth.refs import RoundRef
from fedhealth.rounds.aggregate import Aggregate, merge, read_aggregate
from fedhealth.rounds.coordinator_sum import CoordinatorSumContext, run_sum
from fedhealth.rounds.journal import write_durably
from fedhealth.rounds.layout import decode_sum, shape_of, sum_layout
from fedhealth.rounds.objects import (
    PREPROCESSING_ROUND,
    Abstain,
    DriftFound,
    Manifest,
    Payload,
    Quality,
    Ready,
    check_run_id,
    last_round,
    purposes_of,
    round_key,
    settings_digest,
    site_key,
    sites_needed,
    study_key,
    sum_counter,
    sum_prefix,
    survivors_needed,
)
from fedhealth.rounds.outcome import NOT_COVERED, Attendance, PrivacySpent, RoundClosed
from fedhealth.secagg.plan import SumPlan, threshold_for
from fedhealth.study.columns import feature_columns
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

    # --- a run

    def start_run(self, study: Study, *, run: str, seed: int) -> int:
        """Put the signed study and the manifest of round 0 on the board; returns the number of the last round.

        Raises:
          ConfigError: the run id cannot be part of a key.
        """
        check_run_id(run)
        self.log.append(
            "roster", {"sites": len(self.board.roster.sites)}, {ROSTER_SUBJECT: self.board.roster.digest}
        )
        key = study_key(study)
        digest = self.board.post(key, kind="study", payload=study.canonical(), study=study.digest)
        self.log.append(
            "study", {"name": study.name, "study_digest": study.digest, "run": run}, {key: digest}
        )
        self._post_manifest(study, run=run, number=0, seed=seed, weights=self._initial(study, seed))
        return last_round(study)

    def manifest(self, run: str, number: int = 0) -> Manifest:
        """The coordinator's own manifest of a round.

        Raises:
          MissingObjectError: the round was never opened.
        """
        opened = self.board.read(
            round_key(run, number, "manifest"),
            kind="manifest",
            sender=self.name,
            role="coordinator",
            run=run,
            round=number,
        )
        return Manifest.from_bytes(opened.payload)

    def study_of(self, run: str) -> Study:
        """The study that a run's first manifest names."""
        manifest = self.manifest(run)
        key = f"studies/{manifest.study}/{manifest.study_digest}/study"
        return Study.from_canonical(
            self.board.read(key, kind="study", sender=self.name, role="coordinator").payload
        )

    def open_runs(self) -> tuple[str, ...]:
        """Runs with a manifest whose last round is not closed, oldest name first."""
        keys = self.board.list("runs/")
        runs = sorted({key.split("/")[1] for key in keys if key.endswith("/rounds/0/manifest")})
        return tuple(run for run in runs if self.next_round(run) is not None)

    def next_round(self, run: str) -> int | None:
        """The first round of a run that is not closed; None when the run is finished."""
        final = last_round(self.study_of(run))
        for number in range(final + 1):
            if not self.board.exists(round_key(run, number, "aggregate")):
                return number
        return None

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
        first = self.manifest(run)
        study = self.study_of(run)
        weights = self.weights(run, number, study)
        return self._post_manifest(study, run=run, number=number, seed=first.seed, weights=weights)

    def weights(self, run: str, number: int, study: Study) -> Weights:
        """The global model with which a round opens."""
        key = round_key(run, number, "model")
        if self.board.exists(key):
            opened = self.board.read(
                key, kind="model", sender=self.name, role="coordinator", run=run, round=number
            )
            return weight_codec.from_bytes(opened.payload)
        if number <= 1:
            return self._initial(study, self.manifest(run).seed)
        previous = self.weights(run, number - 1, study)
        delta = read_aggregate(self.board, self.name, run, number - 1).tensors
        return server_step(previous, dict(delta), study)

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
        while time.monotonic() < deadline and not expected <= set(answers):
            answers |= {
                site: answer
                for site in sites
                if site not in answers and (answer := self._answer_of(run, number, site)) is not None
            }
            if not expected <= set(answers):
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

    def secure_sum(self, run: str, number: int, purpose: str, *, cohort: tuple[str, ...]) -> tuple[str, ...]:
        """Run one secure sum over a cohort and keep what it decodes to; returns the survivors.

        Raises:
          PolicyError: too few sites answered, or the decoded sum shows a study that cannot go on.
        """
        study = self.study_of(run)
        stored = self._result_path(run, number, purpose)
        if not stored.exists():
            plan = self._plan(study, run=run, number=number, purpose=purpose, cohort=cohort)
            context = CoordinatorSumContext(
                board=self.board,
                coordinator=self.name,
                timeouts=self.timeouts,
                blame=self.blamed.__setitem__,
            )
            opened = run_sum(context, plan)
            result = decode_sum(
                study,
                purpose,
                opened.vector,
                cohort=plan.cohort,
                declared=self._declared_weights(run, number, opened.survivors, study),
                like=shape_of(study),
            )
            write_durably(stored, result.with_survivors(purpose, opened.survivors).to_bytes())
        return Aggregate.from_bytes(stored.read_bytes()).survivors[purpose]

    def close_round(self, run: str, number: int) -> RoundClosed:
        """Post the round's aggregate, log every object of the round, and sign a checkpoint."""
        manifest = self.manifest(run, number)
        parts = [
            Aggregate.from_bytes(self._result_path(run, number, purpose).read_bytes())
            for purpose in manifest.purposes
        ]
        aggregate = merge(parts)
        self.board.post(
            round_key(run, number, "aggregate"),
            kind="aggregate",
            payload=aggregate.to_bytes(),
            study=manifest.study_digest,
            run=run,
            round=number,
        )
        objects = self._objects(run, number)
        index = self.log.append(
            "round",
            {"run": run, "round": number, "study_digest": manifest.study_digest},
            {key: digest for key, (digest, _) in objects.items()},
        )
        checkpoint = self.log.checkpoint()
        return RoundClosed(
            run=run,
            round=number,
            survivors=aggregate.survivors,
            metrics=aggregate.metrics,
            log_index=index,
            log_size=checkpoint.size,
            log_root=checkpoint.root,
            upload_bytes=self._bytes_by_site(objects),
            seconds=time.monotonic() - self._opened_at.get((run, number), time.monotonic()),
        )

    # --- what a run may tell

    def attendance(self, run: str) -> dict[str, str]:
        """By site ``trained`` (an update of it is in the model), else ``abstained: reason`` or ``no answer``."""
        final = last_round(self.study_of(run))
        updates = [
            read_aggregate(self.board, self.name, run, number).survivors for number in range(final + 1)
        ]
        trained = {site for survivors in updates for site in survivors.get("update", ())}
        states = dict.fromkeys(self.board.roster.sites, "no answer")
        for site in states:
            answers = (self._answer_of(run, number, site) for number in range(final, -1, -1))
            reasons = (answer.reason for answer in answers if isinstance(answer, Abstain))
            if site in trained:
                states[site] = "trained"
            elif reason := next(reasons, None):
                states[site] = f"abstained: {reason}"
        return states

    def quality(self, run: str) -> dict[str, Quality]:
        """What each site told of its data's quality; sites that told nothing, or nothing that can be read, are absent."""
        return self._told(run, PREPROCESSING_ROUND, Quality)

    def drift(self, run: str) -> dict[str, DriftFound]:
        """In what each site told that its data is unlike the others', likewise."""
        return self._told(run, PREPROCESSING_ROUND + 1, DriftFound)

    def _told(self, run: str, number: int, payload: type[P]) -> dict[str, P]:
        told = {}
        for site in self.board.roster.sites:
            key = site_key(run, number, site, payload.kind)
            if self.board.exists(key):
                with suppress(ProtocolError):  # it informs reviewers: it may not cost the run its model
                    opened = self.board.read(
                        key, kind=payload.kind, sender=site, role="site", run=run, round=number
                    )
                    told[site] = payload.from_bytes(opened.payload)
        return told

    def privacy_of(self, run: str) -> PrivacySpent:
        """Account for a run from what its sites declared and the updates that were summed."""
        study = self.study_of(run)
        rounds = range(1, study.training.rounds + 1)
        spent = {site: self._epsilon_of(study, run, site, rounds) for site in self.board.roster.sites}
        per_site = {site: epsilon for site, epsilon in spent.items() if epsilon > 0}
        return PrivacySpent(
            mode=study.privacy.mode,
            epsilon=max(per_site.values(), default=0.0),
            delta=study.privacy.delta,
            per_site=per_site,
            not_covered=NOT_COVERED,
        )

    def _epsilon_of(self, study: Study, run: str, site: str, rounds: range) -> float:
        """Charged is every round whose update this site was asked for, also when it did not reach the sum."""
        answers = [self._answer_of(run, number, site) for number in rounds]
        trained = [answer.declaration for answer in answers if isinstance(answer, Ready)]
        if not trained:
            return 0.0
        first = trained[0]
        if first.patients is None or first.noise_multiplier is None or first.steps is None:
            return math.inf
        if any(answer != first for answer in trained):  # no honest site declares twice
            return math.inf
        return epsilon_spent(
            noise_multiplier=first.noise_multiplier,
            sampling_probability=min(study.training.batch_size / first.patients, 1.0),
            steps=first.steps * len(trained),
            delta=study.privacy.delta,
        )

    # --- private

    def _initial(self, study: Study, seed: int) -> Weights:
        return initial_weights(study, inputs=len(feature_columns(study)), seed=seed)

    def _post_manifest(self, study: Study, *, run: str, number: int, seed: int, weights: Weights) -> Manifest:
        if number > 0:
            self.board.post(
                round_key(run, number, "model"),
                kind="model",
                payload=weight_codec.to_bytes(weights),
                study=study.digest,
                run=run,
                round=number,
            )
        manifest = Manifest(
            study=study.name,
            study_digest=study.digest,
            run=run,
            round=number,
            purposes=purposes_of(study, number),
            model_digest=weight_codec.digest(weights),
            roster_digest=self.board.roster.digest,
            seed=seed,
        )
        self.board.post(
            round_key(run, number, "manifest"),
            kind="manifest",
            payload=manifest.to_bytes(),
            study=study.digest,
            run=run,
            round=number,
        )
        return manifest

    def _answer_of(self, run: str, number: int, site: str) -> Ready | Abstain | None:
        for name, payload in (("ready", Ready), ("abstain", Abstain)):
            try:
                opened = self.board.read(
                    site_key(run, number, site, name),
                    kind=name,
                    sender=site,
                    role="site",
                    run=run,
                    round=number,
                )
            except MissingObjectError:
                continue
            return payload.from_bytes(opened.payload)
        return None

    def _ready_before(self, run: str, number: int) -> tuple[str, ...]:
        if number == 0:
            return ()
        sites = self.board.roster.sites
        return tuple(site for site in sites if self.board.exists(site_key(run, number - 1, site, "ready")))

    def _check_quorum(self, study: Study, number: int, attendance: Attendance) -> None:
        needed = sites_needed(study, enrolled=len(self.board.roster.sites))
        if len(attendance.ready) < needed:
            reasons = sorted(set(attendance.abstained.values())) or ["no answer"]
            raise PolicyError(
                f"round {number}: {len(attendance.ready)} sites are ready, {needed} are needed "
                f"(others: {', '.join(reasons)})",
                "see the reasons in the sites' logs, or lower aggregation.quorum in the study",
            )

    def _plan(self, study: Study, *, run: str, number: int, purpose: str, cohort: tuple[str, ...]) -> SumPlan:
        """The plan that is posted already, whoever is ready by now, else a new one over the cohort."""
        key = f"{sum_prefix(run, number, purpose)}/plan/{self.name}"
        if self.board.exists(key):
            posted = self.board.read(
                key,
                kind="plan",
                sender=self.name,
                role="coordinator",
                study=study.digest,
                run=run,
                round=number,
                purpose=purpose,
            )
            return SumPlan.from_bytes(posted.payload)
        manifest = self.manifest(run, number)
        layout = sum_layout(study, purpose, like=shape_of(study))
        return SumPlan(
            study_digest=study.digest,
            run=run,
            round=number,
            purpose=purpose,
            step=0,
            attempt=0,
            model_digest=manifest.model_digest,
            settings_digest=settings_digest(study, __version__),
            roster_digest=self.board.roster.digest,
            cohort=tuple(sorted(cohort)),
            threshold=threshold_for(len(cohort)),
            min_survivors=survivors_needed(study, cohort=len(cohort)),
            ring_bits=layout.ring_bits,
            length=layout.length,
            counter=sum_counter(study, number, purpose),
        )

    def _declared_weights(
        self, run: str, number: int, survivors: tuple[str, ...], study: Study
    ) -> tuple[float, ...] | None:
        """Under differential privacy the survivors' declared weights, whose sum is the denominator."""
        if study.privacy.mode == "none":
            return None
        answers = [self._answer_of(run, number, site) for site in survivors]
        return tuple(
            answer.weight for answer in answers if isinstance(answer, Ready) and answer.weight is not None
        )

    def _result_path(self, run: str, number: int, purpose: str) -> Path:
        return self.folder / "runs" / run / f"{number:04d}-{purpose}.bin"

    def _objects(self, run: str, number: int) -> dict[str, tuple[str, int]]:
        """By key, digest and bytes of every signed object of a round; one at a time is in memory."""
        keys = (
            *self.board.list(f"runs/{run}/rounds/{number}/"),
            *self.board.list(f"runs/{run}/sums/{number}/"),
        )
        manifest = self.manifest(run, number)
        approvals = self.board.list(f"studies/{manifest.study}/{manifest.study_digest}/approvals/")
        wanted = (*keys, *(approvals if number == 0 else ()))
        objects: dict[str, tuple[str, int]] = {}
        for key in wanted:
            data = self.board.exchange.get(key)
            if self._is_signed(key, data):
                objects[key] = hashlib.sha256(data).hexdigest(), len(data)
        return objects

    def _is_signed(self, key: str, data: bytes) -> bool:
        """Whether an object is its sender's and stands where it was posted; junk does not enter the log."""
        try:
            return unseal(data, roster=self.board.roster, limits=self.board.limits).header.key == key
        except ProtocolError as error:
            self.blamed[key] = error.problem
            return False

    def _bytes_by_site(self, objects: Mapping[str, tuple[str, int]]) -> dict[str, int]:
        sites = self.board.roster.sites
        return {
            site: sum(size for key, (_, size) in objects.items() if site in key.split("/")) for site in sites
        }
