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

from fedhealth.aggregation.statistics import with_levels
from fedhealth.aggregation.vocabulary import LevelCounts
from fedhealth.errors import ProtocolError
from fedhealth.evaluation import Table
from fedhealth.exchange.board import Reader
from fedhealth.models.statistics import Statistics
from fedhealth.rounds.objects import round_key
from fedhealth.study.columns import Vocabulary

Tensors = Mapping[str, NDArray[Any]]
PROFILE = "profile"
"""The tensor of round 0 that is the consortium's profile, no statistic of a feature."""


@dataclass(frozen=True, slots=True)
class Levels:
    """What the sum over the categories told: codes, and how many rows of the consortium have each."""

    vocabulary: Vocabulary
    counts: LevelCounts

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        codes = {name: list(codes) for name, codes in self.vocabulary.items()}
        counts = {name: list(rows) for name, rows in self.counts.levels.items()}
        return {"codes": codes, "rows": self.counts.rows, "counts": counts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Levels":
        """Read `to_json`."""
        vocabulary = {name: tuple(codes) for name, codes in data["codes"].items()}
        counts = {name: tuple(rows) for name, rows in data["counts"].items()}
        return cls(vocabulary, LevelCounts(rows=data["rows"], levels=counts))


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The published result of a round, or of one of its sums.

    Attributes:
      tensors: the mean update by parameter name, or in round 0 the consortium's statistics.
      metrics: pooled metrics; None where fewer than 11 people would show.
      survivors: by purpose, the sites that are in the sum.
      missing_columns: in round 0, features that too few people have to tell of.
      tables: of an evaluation, by name: rows of named cells, None where fewer than 11 people would show.
      levels: in round 0, the codes of the categories, and how many rows have each.
    """

    tensors: Tensors = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    survivors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing_columns: tuple[str, ...] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    levels: Levels | None = None

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
                "tables": {name: [dict(row) for row in rows] for name, rows in self.tables.items()},
                "levels": None if self.levels is None else self.levels.to_json(),
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
                tables={name: tuple(rows) for name, rows in head["tables"].items()},
                levels=None if head["levels"] is None else Levels.from_json(head["levels"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError):
            raise ProtocolError("an aggregate is malformed", "ask the coordinator to post it again") from None


def statistics_of(aggregate: Aggregate) -> Statistics:
    """The consortium's statistics from the aggregate of round 0: of numbers and flags, then of the categories' codes.

    Raises:
      ProtocolError: it holds none.
    """
    tensors = {name: np.asarray(each) for name, each in aggregate.tensors.items() if name != PROFILE}
    statistics = Statistics.from_bytes(bytes(save(tensors)))
    if aggregate.levels is None:
        return statistics
    return with_levels(statistics, aggregate.levels.vocabulary, aggregate.levels.counts)


def merge(parts: Iterable[Aggregate]) -> Aggregate:
    """One round's sums as one result; names do not collide, as every purpose has its own."""
    merged = Aggregate()
    for part in parts:
        merged = Aggregate(
            tensors={**merged.tensors, **part.tensors},
            metrics={**merged.metrics, **part.metrics},
            survivors={**merged.survivors, **part.survivors},
            missing_columns=merged.missing_columns + part.missing_columns,
            tables={**merged.tables, **part.tables},
            levels=part.levels or merged.levels,
        )
    return merged


def read_aggregate(board: Reader, coordinator: str, run: str, number: int) -> Aggregate:
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
