"""What may be told of a run: who took part, what its sites told of their data, what privacy it spent."""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from fedhealth.errors import MissingObjectError, ProtocolError
from fedhealth.exchange.board import Reader
from fedhealth.privacy.accounting import epsilon_spent
from fedhealth.privacy.uncovered import not_covered
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.rounds.objects import (
    PREPROCESSING_ROUND,
    Abstain,
    DriftFound,
    Figures,
    Manifest,
    Payload,
    Quality,
    Ready,
    round_key,
    site_key,
    trains,
)
from fedhealth.rounds.outcome import PrivacySpent
from fedhealth.study.spec import Study

P = TypeVar("P", bound=Payload)


_LEARNING = ("update", "growth/0")
"""The sums that change the model."""


def _size_of(answer: Ready | Abstain | None) -> float:
    """The declared weight, else the bucket of patients; 1 of who told neither."""
    if not isinstance(answer, Ready):
        return 1.0
    patients = 1 if answer.consent is None else max(answer.consent.patients, 1)
    return float(patients if answer.weight is None else answer.weight)


@dataclass(frozen=True, slots=True)
class RunAccount:
    """One run, read from the board."""

    board: Reader
    coordinator: str
    run: str
    study: Study

    def answer(self, number: int, site: str) -> Ready | Abstain | None:
        """What a site answered to a round; None if nothing, or nothing that can be used."""
        try:
            return self.read_answer(number, site)
        except ProtocolError:
            return None

    def read_answer(self, number: int, site: str) -> Ready | Abstain | None:
        """What a site answered to a round; None if nothing.

        Raises:
          ProtocolError: what it posted is malformed, or does not declare what the study counts with.
        """
        for name, payload in (("ready", Ready), ("abstain", Abstain)):
            try:
                opened = self.board.read(
                    site_key(self.run, number, site, name),
                    kind=name,
                    sender=site,
                    role="site",
                    run=self.run,
                    round=number,
                )
            except MissingObjectError:
                continue
            answer = payload.from_bytes(opened.payload)
            if isinstance(answer, Ready) and not answer.declares(self.study):
                raise ProtocolError(f"site {site} declared nothing to count it with", f"leave {site} out")
            return answer
        return None

    def closed(self) -> int:
        """How many rounds are closed."""
        number = 0
        while self.board.exists(round_key(self.run, number, "aggregate")):
            number += 1
        return number

    def attendance(self) -> dict[str, str]:
        """By site ``trained`` (an update of it is in the model), else ``abstained: reason`` or ``no answer``."""
        closed = range(self.closed())
        updates = [read_aggregate(self.board, self.coordinator, self.run, n).survivors for n in closed]
        trained = {site for survivors in updates for name in _LEARNING for site in survivors.get(name, ())}
        states = dict.fromkeys(self.board.roster.sites, "no answer")
        for site in states:
            answers = (self.answer(number, site) for number in reversed(closed))
            reasons = (answer.reason for answer in answers if isinstance(answer, Abstain))
            if site in trained:
                states[site] = "trained"
            elif reason := next(reasons, None):
                states[site] = f"abstained: {reason}"
        return states

    def declared(self, number: int, sites: Iterable[str]) -> dict[str, float] | None:
        """By site the weight that it declared in a round; None without differential privacy, where none is declared."""
        if self.study.privacy.mode == "none":
            return None
        answers = {site: self.answer(number, site) for site in sites}
        return {
            site: answer.weight
            for site, answer in answers.items()
            if isinstance(answer, Ready) and answer.weight is not None
        }

    def sizes(self, number: int, sites: Iterable[str]) -> dict[str, float]:
        """By site what is publicly known of the weight with which it counts in a round's mean.

        The declared weight; without differential privacy, where none is, the bucket of its patients. 1 where sites count alike.
        """
        if self.study.training.weighting == "uniform":
            return dict.fromkeys(sites, 1.0)
        return {site: _size_of(self.answer(number, site)) for site in sites}

    def quality(self) -> dict[str, Quality]:
        """What each site told of its data's quality; sites that told nothing, or nothing that can be read, are absent."""
        return self._told(PREPROCESSING_ROUND, Quality)

    def drift(self) -> dict[str, DriftFound]:
        """In what each site told that its data is unlike the others', likewise."""
        return self._told(PREPROCESSING_ROUND, DriftFound)

    def figures(self) -> dict[str, dict[str, float | None]]:
        """How the final model does at each site whose policy lets the consortium see it."""
        final = self.closed() - 1
        return {site: dict(told.metrics) for site, told in self._told(final, Figures).items()}

    def _told(self, number: int, payload: type[P]) -> dict[str, P]:
        told = {}
        for site in self.board.roster.sites:
            key = site_key(self.run, number, site, payload.kind)
            if self.board.exists(key):
                with suppress(ProtocolError):  # it informs reviewers: it may not cost the run its model
                    opened = self.board.read(
                        key, kind=payload.kind, sender=site, role="site", run=self.run, round=number
                    )
                    told[site] = payload.from_bytes(opened.payload)
        return told

    def privacy(self) -> PrivacySpent:
        """Account for a run from what its sites declared and the updates that were summed."""
        study = self.study
        spent = {site: self._epsilon_of(site) for site in self.board.roster.sites}
        per_site = {site: epsilon for site, epsilon in spent.items() if epsilon > 0}
        return PrivacySpent(
            mode=study.privacy.mode,
            epsilon=max(per_site.values(), default=0.0),
            delta=study.privacy.delta,
            per_site=per_site,
            not_covered=not_covered(study, shares_figures=bool(self.figures())),
        )

    def _training_rounds(self) -> list[int]:
        """The rounds whose manifest asked for updates."""
        asked, number = [], PREPROCESSING_ROUND
        while self.board.exists(key := round_key(self.run, number, "manifest")):
            opened = self.board.read(
                key, kind="manifest", sender=self.coordinator, role="coordinator", run=self.run, round=number
            )
            if trains(Manifest.from_bytes(opened.payload).purposes):
                asked.append(number)
            number += 1
        return asked

    def _epsilon_of(self, site: str) -> float:
        """Charged is every round whose update this site was asked for, also when it did not reach the sum."""
        study = self.study
        answers = [self.answer(number, site) for number in self._training_rounds()]
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
