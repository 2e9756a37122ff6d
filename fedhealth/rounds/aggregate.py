"""What a closed round publishes: tensors, metrics, survivors."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedhealth.errors import ProtocolError
from fedhealth.exchange.board import Board
from fedhealth.models.statistics import Statistics
from fedhealth.rounds.objects import round_key

Tensors = Mapping[str, NDArray[Any]]
PROFILE = "profile"
"""The tensor of round 0 that is the consortium's profile, no statistic of a feature."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The published result of a round, or of one of its sums.

    Attributes:
      tensors: the mean update by parameter name, or in round 0 the consortium's statistics.
      metrics: pooled metrics; None where fewer than 11 people would show.
      survivors: by purpose, the sites that are in the sum.
      missing_columns: in round 0, features that too few people have to tell of.
    """

    tensors: Tensors = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    survivors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing_columns: tuple[str, ...] = ()

    def with_survivors(self, purpose: str, survivors: tuple[str, ...]) -> "Aggregate":
        """The same result, saying who is in it."""
        return replace(self, survivors={purpose: survivors})

    def to_bytes(self) -> bytes:
        """4 bytes of length (big endian), canonical JSON, safetensors."""
        head = rfc8785.dumps(
            {
                "metrics": dict(self.metrics),
                "survivors": {name: list(sites) for name, sites in self.survivors.items()},
                "missing_columns": list(self.missing_columns),
            }
        )
        tensors = {name: np.ascontiguousarray(self.tensors[name]) for name in sorted(self.tensors)}
        return len(head).to_bytes(4, "big") + head + bytes(save(tensors))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Aggregate":
        """Parse `to_bytes`.

        Raises:
          ProtocolError: malformed.
        """
        try:
            end = 4 + int.from_bytes(data[:4], "big")
            head = json.loads(data[4:end])
            return cls(
                tensors=load(data[end:]),
                metrics=head["metrics"],
                survivors={name: tuple(sites) for name, sites in head["survivors"].items()},
                missing_columns=tuple(head["missing_columns"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError):
            raise ProtocolError("an aggregate is malformed", "ask the coordinator to post it again") from None


def statistics_of(aggregate: Aggregate) -> Statistics:
    """The consortium's statistics from the aggregate of round 0.

    Raises:
      ProtocolError: it holds none.
    """
    return Statistics.from_bytes(
        bytes(save({name: np.asarray(each) for name, each in aggregate.tensors.items() if name != PROFILE}))
    )


def merge(parts: Iterable[Aggregate]) -> Aggregate:
    """One round's sums as one result; names do not collide, as every purpose has its own."""
    merged = Aggregate()
    for part in parts:
        merged = Aggregate(
            tensors={**merged.tensors, **part.tensors},
            metrics={**merged.metrics, **part.metrics},
            survivors={**merged.survivors, **part.survivors},
            missing_columns=merged.missing_columns + part.missing_columns,
        )
    return merged


def read_aggregate(board: Board, coordinator: str, run: str, number: int) -> Aggregate:
    """The coordinator's aggregate of a round, verified.

    Raises:
      MissingObjectError: the round is not closed.
    """
    opened = board.read(
        round_key(run, number, "aggregate"),
        kind="aggregate",
        sender=coordinator,
        role="coordinator",
        run=run,
        round=number,
    )
    return Aggregate.from_bytes(opened.payload)
