"""Consortium statistics of the features: what imputation and standardisation need. No torch here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as _load
from safetensors.numpy import save as _save

from fedhealth.errors import ProtocolError

_FLOAT32 = ("mean", "sd", "median")
_DTYPES = {**dict.fromkeys(_FLOAT32, np.dtype(np.float32)), "count": np.dtype(np.float64)}


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per feature column, over all training rows of the consortium, in the feature's own unit.

    Attributes:
      mean: float32 (columns,), of the observed values after clipping to the public bounds.
      sd: float32 (columns,), population standard deviation, always > 0.
      median: float32 (columns,), from a 64-bin histogram: what a missing value becomes.
      count: float64 (columns,), observed values; 0 where fewer than 11 people have the feature.
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]
    median: NDArray[np.float32]
    count: NDArray[np.float64]

    def to_bytes(self) -> bytes:
        """Serialise to safetensors. The same values give the same bytes."""
        return bytes(_save({name: np.ascontiguousarray(getattr(self, name)) for name in _DTYPES}))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Statistics":
        """Parse `to_bytes`.

        Raises:
          ProtocolError: malformed, a wrong type or shape, not finite, or an sd that is not positive.
        """
        try:
            loaded = _load(data)
        except (SafetensorError, KeyError, ValueError):
            raise _refused("is not valid safetensors") from None
        if {name: array.dtype for name, array in loaded.items()} != _DTYPES:
            raise _refused("has other tensors or types than mean, sd, median, count")
        if len({array.shape for array in loaded.values()}) != 1 or loaded["mean"].ndim != 1:
            raise _refused("has columns of different lengths")
        if not all(np.isfinite(array).all() for array in loaded.values()) or (loaded["sd"] <= 0).any():
            raise _refused("holds a value that is not finite or an sd that is not positive")
        return cls(**loaded)


def _refused(problem: str) -> ProtocolError:
    return ProtocolError(f"a statistics object {problem}", "ask its sender to post it again")
