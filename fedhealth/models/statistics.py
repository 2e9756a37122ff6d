"""Consortium statistics of the features: what imputation and standardisation need. No torch here."""

import json
from dataclasses import dataclass, field

import numpy as np
import rfc8785
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as _load
from safetensors.numpy import save as _save

from fedhealth.errors import ProtocolError
from fedhealth.study.columns import Vocabulary

SD_FLOOR = 1e-3
"""Smallest standard deviation, as a share of the column's public range."""

_FLOAT32 = ("mean", "sd", "median")
_DTYPES = {**dict.fromkeys(_FLOAT32, np.dtype(np.float32)), "count": np.dtype(np.float64)}


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per feature column, over all training rows of the consortium, in the feature's own unit.

    The columns are those of `fedhealth.study.columns.feature_columns` with this vocabulary.

    Attributes:
      mean: float32 (columns,), of the observed values after clipping to the public bounds.
      sd: float32 (columns,), population standard deviation, always > 0.
      median: float32 (columns,), from a 64-bin histogram: what a missing value becomes.
      count: float64 (columns,), observed values; 0 where fewer than 11 people have the feature.
      vocabulary: by category, the codes that have a column.
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    median: NDArray[np.float32]
    count: NDArray[np.float64]
    vocabulary: Vocabulary = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialise to safetensors, a vocabulary as canonical JSON in its metadata. The same values give the same bytes."""
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _DTYPES}
        if not self.vocabulary:
            return bytes(_save(tensors))
        told = {name: list(codes) for name, codes in self.vocabulary.items()}
        return bytes(_save(tensors, metadata={"vocabulary": rfc8785.dumps(told).decode()}))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Statistics":
        """Parse `to_bytes`.

        Raises:
          ProtocolError: malformed, a wrong type or shape, not finite, an sd that is not positive, or codes that are
            not sorted.
        """
        try:
            loaded, vocabulary = _load(data), _vocabulary(data)
        except (SafetensorError, KeyError, ValueError, AttributeError, TypeError, RecursionError):
            raise _refused("is not valid safetensors") from None
        if {name: array.dtype for name, array in loaded.items()} != _DTYPES:
            raise _refused("has other tensors or types than mean, sd, median, count")
        if len({array.shape for array in loaded.values()}) != 1 or loaded["mean"].ndim != 1:
            raise _refused("has columns of different lengths")
        if not all(np.isfinite(array).all() for array in loaded.values()) or (loaded["sd"] <= 0).any():
            raise _refused("holds a value that is not finite or an sd that is not positive")
        return cls(**loaded, vocabulary=vocabulary)


def floor_sd(share: NDArray[np.floating], width: NDArray[np.floating]) -> NDArray[np.floating]:
    """The sd of a column from its share of the public range ``width``: at least `SD_FLOOR`, 1 for a constant column."""
    return np.asarray(np.where(share < SD_FLOOR / 10, 1.0, np.maximum(share, SD_FLOOR) * width))


def _vocabulary(data: bytes) -> Vocabulary:
    """The vocabulary in the metadata of safetensors."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = json.loads(data[8:end]).get("__metadata__", {}).get("vocabulary", "{}")
    told = json.loads(text)
    for codes in told.values():
        if not all(isinstance(code, str) for code in codes) or codes != sorted(set(codes)):
            raise ValueError
    return {name: tuple(codes) for name, codes in told.items()}


def _refused(problem: str) -> ProtocolError:
    return ProtocolError(f"a statistics object {problem}", "ask its sender to post it again")
