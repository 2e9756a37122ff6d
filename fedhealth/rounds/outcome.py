"""What the coordinator may tell of a round and of a run."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fedhealth.evaluation import HEADLINES
from fedhealth.rounds.objects import Ready

NOT_COVERED = (
    "moments and histograms of the features (round 0): exact secure sums, not noised",
    "class counts of the consortium (round 0): exact, used for one check and not published",
    "codes of categories (round 0): exact secure sums, published from 11 people on",
    "evaluation counts of every round, by subgroup in the last: exact secure sums, metrics published from 11 people on",
    "differences between rounds: figures of a round are told to three decimals, without numbers of people",
    "figures of a site whose policy shares them: to two decimals, from 11 people on",
    "evaluation counts of the models that sites tune for themselves, where the study asks for it: likewise",
    "which sites abstain, and their reason codes",
    "which quality checks each site's data passed or failed, and in what it is unlike the others, by name",
    "people per bin of the compared quantities (round 0): exact secure sums, published from 11 people on",
    "declared sizes: buckets in steps of the square root of two",
    "consents of every round: how many patients are in and out, as such buckets, 0 below 11",
    "attrition tables: each site's exact numbers of people, from 11 on",
    "differences between runs: of two runs with and without a site, the sums differ by that site's part",
)
"""What is computed from patients and leaves a site without noise, until the ledger charges it."""

SHOWN_OF_UPDATES = {
    "plain": "the update of every site in every round, in the clear for coordinator and sites, its size weight with it",
    "plausibility": "64 projections or fewer of the update of every site in every round, in the clear for coordinator and sites",
    "groups": "the sum of the updates and weights of every group of 3 sites or more in every round, not of all sites alone",
}
"""By mode or robust rule of the aggregation, what it shows of one site's update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """Who takes part in a round, who abstains with which reason code, and who said nothing in time."""

    ready: Mapping[str, Ready]
    abstained: Mapping[str, str]
    silent: tuple[str, ...]

    def states(self) -> dict[str, str]:
        """By site: ``ready``, ``abstained: reason`` or ``no answer``."""
        states = dict.fromkeys(self.ready, "ready") | dict.fromkeys(self.silent, "no answer")
        return dict(sorted((states | {s: f"abstained: {r}" for s, r in self.abstained.items()}).items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosed:
    """What everybody may know of a closed round."""

    run: str
    round: int
    survivors: Mapping[str, tuple[str, ...]]
    metrics: Mapping[str, float | None]
    log_index: int
    log_size: int
    log_root: str
    cosigners: tuple[str, ...]
    upload_bytes: Mapping[str, int]
    seconds: float

    def headlines(self) -> dict[str, float]:
        """The pooled metrics by which models are compared, of each outcome, where they may be told."""
        return {
            name: value
            for name, value in self.metrics.items()
            if value is not None and "=" not in name and name.rpartition(".")[2] in HEADLINES
        }

    def to_bytes(self) -> bytes:
        """All of it as JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "RoundClosed":
        """Read `to_bytes`."""
        told = json.loads(data)
        survivors = {name: tuple(sites) for name, sites in told["survivors"].items()}
        return cls(**{**told, "survivors": survivors, "cosigners": tuple(told["cosigners"])})

    def to_json(self) -> dict[str, object]:
        """The round as a report shows it."""
        return {
            "round": self.round,
            "metrics": dict(self.metrics),
            "survivors": {name: list(sites) for name, sites in self.survivors.items()},
            "seconds": self.seconds,
            "log_index": self.log_index,
            "cosigners": list(self.cosigners),
            "upload_bytes": dict(self.upload_bytes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySpent:
    """What a run has spent, from the sites' declared numbers alone.

    Attributes:
      epsilon: the largest over the sites; infinite without differential privacy.
      per_site: epsilon by site that trained.
      not_covered: releases computed from patients that epsilon does not cover yet.
    """

    mode: str
    epsilon: float
    delta: float
    per_site: Mapping[str, float]
    not_covered: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """JSON has no infinity: None means no guarantee."""
        finite = math.isfinite(self.epsilon)
        return {
            "unit": "patient",
            "mode": self.mode,
            "epsilon": self.epsilon if finite else None,
            "delta": self.delta if finite else None,
            "per_site": dict(self.per_site) if finite else {},
            "not_covered": list(self.not_covered),
        }
