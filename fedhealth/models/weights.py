"""Model weights as named float32 arrays: one order, one serial form, one digest. No torch here."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as _load
from safetensors.numpy import save as _save

from fedhealth.errors import ProtocolError

Weights = dict[str, NDArray[np.float32]]


def sorted_weights(named: Mapping[str, NDArray[np.float32]]) -> Weights:
    """Copy named arrays into the canonical form: sorted by name, float32, C-contiguous."""
    return {name: np.ascontiguousarray(named[name], dtype=np.float32) for name in sorted(named)}


def flatten(weights: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Lay all parameters out in one vector, in the order of their sorted names.

    Returns:
      A float32 copy of shape (parameters,).
    """
    parts = [np.asarray(weights[name], dtype=np.float32).ravel() for name in sorted(weights)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def unflatten(vector: NDArray[np.floating], like: Mapping[str, NDArray[np.float32]]) -> Weights:
    """Cut a flat vector into the shapes of ``like``; the inverse of `flatten`.

    Returns:
      New float32 arrays, sorted by name.

    Raises:
      ValueError: the vector's length is not the number of parameters of ``like``.
    """
    if vector.shape != (parameter_count(like),):
        raise ValueError(f"a vector of shape {vector.shape} does not fit {parameter_count(like)} parameters")
    weights: Weights = {}
    start = 0
    for name in sorted(like):
        end = start + like[name].size
        weights[name] = vector[start:end].astype(np.float32).reshape(like[name].shape)
        start = end
    return weights


def parameter_count(weights: Mapping[str, NDArray[np.float32]]) -> int:
    """Number of scalars in all arrays together."""
    return sum(math.prod(array.shape) for array in weights.values())


def subtract(left: Weights, right: Weights) -> Weights:
    """``left - right`` by name, float32."""
    return {name: left[name] - right[name] for name in sorted(left)}


def to_bytes(weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Serialise to safetensors. The same values give the same bytes."""
    return bytes(_save(sorted_weights(weights)))


def from_bytes(data: bytes) -> Weights:
    """Parse safetensors made by `to_bytes`.

    Raises:
      ProtocolError: not safetensors, a tensor that is not float32, or a value that is not finite.
    """
    try:
        loaded = _load(data)
    except (SafetensorError, KeyError, ValueError):
        raise ProtocolError(
            "a weights object is not valid safetensors", "ask its sender to post it again"
        ) from None
    for array in loaded.values():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ProtocolError(
                "a weights object holds values that are not finite float32", "reject its sender"
            )
    return sorted_weights(loaded)


def digest(weights: Mapping[str, NDArray[np.float32]]) -> str:
    """Hex SHA-256 of `to_bytes`."""
    return hashlib.sha256(to_bytes(weights)).hexdigest()
