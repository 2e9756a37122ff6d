"""What the coordinator may tell of a round and of a run."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from fedhealth.evaluation import HEADLINES
from fedhealth.rounds.objects import Ready


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
