"""A site in a run: it watches the board and answers every manifest that is open, under its own policy.

Everything it needs is on the board or in its own folder, so a site process that was killed answers the
next manifest, or goes on within an open sum, with the same bytes.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from fedhealth.aggregation.profiles import Profile
from fedhealth.audit import Witness
from fedhealth.config import Timeouts
from fedhealth.errors import DataError, MissingObjectError, PolicyError, ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.features.rows import Rows
from fedhealth.identity import SiteSecrets
from fedhealth.privacy.buckets import bucket
from fedhealth.privacy.noise import derive_key
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.aggregate import PROFILE, Aggregate
from fedhealth.rounds.groups import circle_of, is_grouped, smallest_circle
from fedhealth.rounds.journal import SiteJournal
from fedhealth.rounds.layout import is_judged, sum_layout
from fedhealth.rounds.objects import (
    PREPROCESSING_ROUND,
    Abstain,
    Approval,
    ConsentStatement,
    DriftFound,
    Figures,
    Manifest,
    Quality,
    Ready,
    approval_key,
    compares_before,
    round_key,
    site_key,
    trains,
)
from fedhealth.rounds.plain import PlainUpdates, travels_in_the_clear
from fedhealth.rounds.posted import judge_manifest, read_manifest, read_posted, read_study, read_transferred
from fedhealth.rounds.progress import Progress
from fedhealth.rounds.site_closing import RoundClosing
from fedhealth.rounds.site_consent import consenting
from fedhealth.rounds.site_data import SiteFolder, data_state, policy_digest, rows_of
from fedhealth.rounds.site_drift import drift_of, own_profile
from fedhealth.rounds.site_memory import SiteMemory
from fedhealth.rounds.site_plan import await_plan
from fedhealth.rounds.site_sum import SiteSumContext, post_plain, take_part
from fedhealth.rounds.site_vector import SiteRound
from fedhealth.secagg.plan import SumPlan
from fedhealth.study.policy import SitePolicy
from fedhealth.study.spec import Study
from fedhealth.training.plan import LocalPlan, local_seed, plan_local

_log = logging.getLogger("fedhealth.site")


@dataclass(slots=True)
class SiteRun:
    """What a site holds in memory of one run; all of it can be rebuilt from the board and its folder.

    ``rows`` are those of who consents in the round that is answered, ``all_rows`` those of everybody.
    """

    study: Study
    all_rows: Rows
    rows: Rows
    consent: ConsentStatement
    plan: LocalPlan
    seed: int


@dataclass(slots=True)
class SiteNode:
    """One site at the exchange."""

    name: str
    folder: SiteFolder
    board: Board
    coordinator: str
    secrets: SiteSecrets
    pair_keys: dict[str, bytes] = field(repr=False)
    tag_key: bytes = field(repr=False)
    timeouts: Timeouts
    clock: Callable[[], float] = time.time
    _runs: dict[str, SiteRun] = field(default_factory=dict)
    _progress: dict[str, Progress] = field(default_factory=dict)
    _profiles: dict[str, Profile | None] = field(default_factory=dict)
    _found: dict[str, DriftFound] = field(default_factory=dict)
    _shown: dict[tuple[str, int], dict[str, NDArray[np.int64]]] = field(default_factory=dict)
    _closing: RoundClosing = field(init=False)

    def __post_init__(self) -> None:
        """Read what this site has witnessed."""
        board = self.board
        self._closing = RoundClosing(
            board=board,
            coordinator=self.coordinator,
            witness=Witness(board.exchange, board.keys, board.roster, folder=self.folder.journal),
            timeouts=self.timeouts,
            tag_key=self.tag_key,
            took_part=lambda run: (self.folder.journal / run).is_dir(),
            account_of=lambda run: RunAccount(
                board, self.coordinator, run, self._study_of(self._manifest(run, PREPROCESSING_ROUND))
            ),
            shape_of=lambda manifest: self._progress_of(manifest).shape(manifest.round),
        )

    def open_manifests(self) -> tuple[tuple[str, int], ...]:
        """Rounds with a manifest that are not closed, or whose closing this site has not seen.

        The one that was opened last comes first: a run that nobody goes on with must not hold up the others.
        """
        keys = self.board.list("runs/")
        closed = set(_rounds_of(keys, "aggregate"))
        found = sorted(_rounds_of(keys, "manifest"))
        newest = dict(found)
        is_open = [
            (run, number)
            for run, number in found
            if (run, number) not in closed
            or (newest[run] == number and not self._closing.witness.has_seen(run, number))
        ]
        return tuple(sorted(is_open, key=lambda each: self._opened_at(*each), reverse=True))

    def witness(self) -> None:
        """Co-sign the newest checkpoint of the log.

        Raises:
          ProtocolError: the log forks, or leaves out what this site gave.
        """
        self._closing.observe()

    def follow(self, run: str) -> Iterator[tuple[int, str]]:
        """Answer every round of a run as it opens, to the last; yields (round, outcome)."""
        number, is_over = 0, False
        while not is_over:
            self.board.wait(
                round_key(run, number, "manifest"),
                timeout_s=self.timeouts.coordinator_timeout_s,
                poll_s=self.timeouts.poll_s,
            )
            yield number, self.answer(run, number)
            self.close(run, number)
            is_over = self._progress_of(self._manifest(run, number)).is_final(number)
            number += 1

    def answer(self, run: str, number: int) -> str:
        """Answer one open round: ``done``, ``abstained`` or ``left_out``; ``closed`` when it is closed already.

        Raises:
          ProtocolError: the coordinator or a peer lied: nothing more is sent in this round.
        """
        manifest = self._manifest(run, number)
        if self.board.exists(round_key(run, number, "aggregate")):
            return "closed"
        self._check_growth(manifest)
        study = self._study_of(manifest)
        if number == PREPROCESSING_ROUND and self.folder.quality.exists():
            self._post_site(
                manifest, "quality", Quality.from_bytes(self.folder.quality.read_bytes()).to_bytes()
            )
        reason = self._reason_to_abstain(manifest, study)
        if reason is not None:
            self._post_site(manifest, "abstain", Abstain(reason=reason).to_bytes())
            _log.info("round %s of %s: abstained, %s", number, run, reason)
            return "abstained"
        state = self._runs[run]
        self._post_site(manifest, "ready", self._ready(study, state).to_bytes())
        answered = self._round(manifest, state)
        is_last = number > PREPROCESSING_ROUND and not trains(manifest.purposes)
        if is_last and self.folder.policy().share_figures:  # before the sums, which the coordinator waits for
            self._post_site(manifest, "figures", Figures(metrics=answered.figures()).to_bytes())
        own = [name for name in manifest.purposes if self._is_asked(study, name)]
        outcomes = [self._answer_sum(manifest, answered, name) for name in own]
        return "done" if all(outcomes) else "left_out"

    def close(self, run: str, number: int) -> None:
        """See a round closed: replay its sums or have enough verdicts on them (R5), then co-sign the log.

        Raises:
          ProtocolError: the coordinator published something else than the sums, or its log forks.
          TransportError: the round was not closed in time.
        """
        timeouts = self.timeouts
        self.board.wait(
            round_key(run, number, "aggregate"),
            timeout_s=timeouts.coordinator_timeout_s,
            poll_s=timeouts.poll_s,
        )
        manifest = self._manifest(run, number)
        self._closing.accepted(manifest)
        self._closing.witness_round(manifest)

    # --- reading and judging what the coordinator opened

    def _opened_at(self, run: str, number: int) -> str:
        """When the coordinator says that it opened a round; empty of what is no manifest."""
        try:
            return read_posted(self.board, run, number, "manifest").header.time
        except (MissingObjectError, ProtocolError):
            return ""

    def _check_growth(self, manifest: Manifest) -> None:
        """Refuse to go on from a round that was closed with other sums than were shown within it."""
        shown = self._shown.pop((manifest.run, manifest.round - 1), {})
        if shown:
            closed = self._closing.accepted(self._manifest(manifest.run, manifest.round - 1))
            if any(not np.array_equal(closed.tensors[name], vector) for name, vector in shown.items()):
                raise ProtocolError(
                    "a round was closed with other sums than were shown within it", "report the coordinator"
                )

    def _manifest(self, run: str, number: int) -> Manifest:
        return read_manifest(self.board, run, number)

    def _study_of(self, manifest: Manifest) -> Study:
        held = self._runs.get(manifest.run)
        return held.study if held else read_study(self.board, manifest)

    def _reason_to_abstain(self, manifest: Manifest, study: Study) -> str | None:
        """Why this site sits the round out; None when it takes part (its data are loaded then)."""
        policy = self.folder.policy()
        try:
            policy.check(study, n_sites=smallest_circle(study, self.board.roster.sites))
        except PolicyError as error:
            _log.warning(
                "round %s of %s: %s", manifest.round, manifest.run, error
            )  # the exchange gets a code
            return "policy"
        progress, number = self._progress_of(manifest), manifest.round
        judge_manifest(manifest, purposes=progress.purposes(number), weights=progress.whole(number))
        state = data_state(self.folder)
        if not state.passed:
            return state.reason or "validation"
        reason = self._drift(manifest, study) or self._load(manifest, study, policy)
        if reason is not None:
            return reason
        approval = Approval(study_digest=study.digest, policy_digest=policy_digest(policy))
        self.board.post(
            approval_key(study, self.name), kind="approval", payload=approval.to_bytes(), study=study.digest
        )
        return None

    def _drift(self, manifest: Manifest, study: Study) -> str | None:
        """From round 1 on: a code if this site's data is so unlike the others' that it abstains."""
        if not study.evaluation.compare_sites or manifest.round == PREPROCESSING_ROUND:
            return None
        if manifest.run not in self._found:
            opening = self._closing.accepted(self._manifest(manifest.run, PREPROCESSING_ROUND))
            self._found[manifest.run] = drift_of(self._profile(manifest.run), opening, site=self.name)
        return self._found[manifest.run].fatal

    def _compare(self, manifest: Manifest) -> bool:
        """Whether this site's data is like the others'; told once, when the first sum of the run is open."""
        if manifest.run not in self._found:
            opened = self._opened(manifest, PROFILE)
            found = drift_of(self._profile(manifest.run), opened, site=self.name)
            self._post_site(manifest, "drift", found.to_bytes())
            self._found[manifest.run] = found
        return self._found[manifest.run].fatal is None

    def _profile(self, run: str) -> Profile | None:
        if run not in self._profiles:
            self._profiles[run] = own_profile(self.folder, run)
        return self._profiles[run]

    def _load(self, manifest: Manifest, study: Study, policy: SitePolicy) -> str | None:
        """Load the rows of those who consent now; a reason to abstain, or None."""
        held = self._runs.get(manifest.run)
        try:
            rows = (
                held.all_rows if held else rows_of(self.folder, study, site_secret=self.secrets.site_secret)
            )
        except DataError:
            return "cohort_unreadable"
        try:
            asked = consenting(
                self.folder,
                rows,
                site_secret=self.secrets.site_secret,
                run=manifest.run,
                number=manifest.round,
                now=datetime.fromtimestamp(self.clock(), UTC),
            )
        except DataError:
            return "consent_unreadable"
        patients = len(np.unique(asked.rows.person[asked.rows.is_training]))
        try:
            policy.check_cohort(study, patients=len(np.unique(asked.rows.person)))
        except PolicyError:
            return "cohort_too_small"
        if patients == 0:
            return "cohort_too_small"
        plan = plan_local(study, declared_patients=bucket(patients))
        loaded = SiteRun(study, rows, asked.rows, asked.statement, plan, manifest.seed)
        if self._declared_before(manifest) not in (None, self._ready(study, loaded).declaration):
            return "declaration_changed"
        if held:
            held.rows, held.consent, held.plan = loaded.rows, loaded.consent, plan
        else:
            self._runs[manifest.run] = loaded
        return None

    def _progress_of(self, manifest: Manifest) -> Progress:
        """The run as this site computes it from the aggregates."""
        run = manifest.run
        if run not in self._progress:
            study = self._study_of(manifest)
            self._progress[run] = Progress(
                study=study,
                seed=manifest.seed,
                sites=len(self.board.roster.sites),
                aggregate_of=lambda number: self._closing.accepted(self._manifest(run, number)),
                transferred=lambda: read_transferred(self.board, run, study),
            )
        return self._progress[run]

    # --- answering

    def _ready(self, study: Study, state: SiteRun) -> Ready:
        if study.privacy.mode == "none":
            return Ready(weight=None, patients=None, noise_multiplier=None, steps=None, consent=state.consent)
        training = state.rows.is_training
        return Ready(
            weight=float(bucket(int(training.sum()))) if study.training.weighting == "examples" else 1.0,
            patients=bucket(len(np.unique(state.rows.person[training]))),
            noise_multiplier=state.plan.noise_multiplier,
            steps=state.plan.steps,
            consent=state.consent,
        )

    def _declared_before(self, manifest: Manifest) -> Ready | None:
        """What this site declared in the first round of the run that it was ready for.

        Epsilon is accounted for with it, so rows that were loaded anew must still be declared as they were then.
        """
        for number in range(manifest.round):
            key = site_key(manifest.run, number, self.name, "ready")
            if self.board.exists(key):
                opened = self.board.read(
                    key, kind="ready", sender=self.name, role="site", run=manifest.run, round=number
                )
                return Ready.from_bytes(opened.payload).declaration
        return None

    def _post_site(self, manifest: Manifest, name: str, payload: bytes) -> None:
        key = site_key(manifest.run, manifest.round, self.name, name)
        self.board.post(
            key,
            kind=name,
            payload=payload,
            study=manifest.study_digest,
            run=manifest.run,
            round=manifest.round,
        )

    def _round(self, manifest: Manifest, state: SiteRun) -> SiteRound:
        """What this site answers a round with."""
        progress = self._progress_of(manifest)
        return SiteRound(
            number=manifest.round,
            shape=progress.shape(manifest.round),
            rows=state.rows,
            plan=state.plan,
            declared=self._ready(state.study, state).weight,
            seed=local_seed(manifest.seed, site=self.name, number=manifest.round),
            noise_key_of=lambda plan: self._noise_key(state.study, plan, progress),
            memory=SiteMemory(self.folder.memory(manifest.run), self.name, progress),
            profile=lambda: self._profile(manifest.run),
            opened=lambda step: self._opened(manifest, f"growth/{step}").tensors[f"growth/{step}"],
        )

    def _noise_key(self, study: Study, plan: SumPlan, progress: Progress) -> bytes:
        """Of the plan alone; without privacy the same for every run of one seed, so that a run can be repeated."""
        if study.privacy.mode != "none":
            return derive_key(self.secrets.site_noise_key, plan.digest, 0)
        return derive_key(self.secrets.site_secret, progress.public_seed(plan.round).hex(), 0)

    def _opened(self, manifest: Manifest, name: str) -> Aggregate:
        """What an earlier sum of a round came to, as the coordinator posted it."""
        key = round_key(manifest.run, manifest.round, f"opened/{name}")
        timeouts = self.timeouts
        self.board.wait(key, timeout_s=timeouts.coordinator_timeout_s, poll_s=timeouts.poll_s)
        opened = read_posted(self.board, manifest.run, manifest.round, "opened", name=f"opened/{name}")
        told = Aggregate.from_bytes(opened.payload)
        self._shown.setdefault((manifest.run, manifest.round), {})[name] = told.tensors[name]
        return told

    def _is_asked(self, study: Study, name: str) -> bool:
        """Whether a sum may be of this site: one of another group is not."""
        return self.name in circle_of(study, name, self.board.roster.sites).sites

    def _answer_sum(self, manifest: Manifest, answered: SiteRound, name: str) -> bool:
        if compares_before(manifest.purposes, name) and not self._compare(manifest):
            return False
        plan = await_plan(self.board, manifest, answered.shape, name, timeouts=self.timeouts)
        if plan is None or self.name not in plan.cohort:
            return False
        self.folder.policy().check(answered.shape.study, n_sites=len(plan.cohort))
        context = SiteSumContext(
            board=self.board,
            journal=SiteJournal(self.folder.journal),
            site=self.name,
            coordinator=self.coordinator,
            pair_keys={peer: self.pair_keys[peer] for peer in plan.cohort if peer != self.name},
            tag_key=self.tag_key,
            timeouts=self.timeouts,
            shows_sketch=is_judged(answered.shape.study, plan.purpose),
            may_be_given_up=is_grouped(answered.shape.study, name),
        )
        if travels_in_the_clear(answered.shape.study, plan.purpose):
            return self._answer_in_clear(context, plan, answered)
        is_encrypted = sum_layout(answered.shape, name).cipher_length is not None
        return take_part(context, plan, vector_of=answered.vector, is_encrypted=is_encrypted)

    def _answer_in_clear(self, context: SiteSumContext, plan: SumPlan, answered: SiteRound) -> bool:
        """Post the update without a mask; what all of them come to is replayed like any sum."""
        account = RunAccount(self.board, self.coordinator, plan.run, answered.shape.study)
        declared = account.declared(plan.round, plan.cohort)
        updates = PlainUpdates(shape=answered.shape, plan=plan, declared=declared)
        return post_plain(context, updates, vector_of=answered.vector)


def _rounds_of(keys: Iterable[str], kind: str) -> Iterator[tuple[str, int]]:
    """Run and number of each round whose manifest or aggregate is among the keys; others are passed over."""
    for found in (_ROUND.fullmatch(key) for key in keys):
        if found and found["kind"] == kind:
            yield found["run"], int(found["number"])


_ROUND = re.compile(r"runs/(?P<run>[^/]+)/rounds/(?P<number>0|[1-9][0-9]{0,8})/(?P<kind>manifest|aggregate)")
