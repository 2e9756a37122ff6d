"""The rows of a study at one site: features, labels, keyed patients and folds. They never leave the site."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedhealth.errors import DataError

_TYPES = {"features": np.float32, "labels": np.float32, "person": np.int64, "is_test": np.bool_}


@dataclass(frozen=True, slots=True)
class Rows:
    """One row per index stay; a patient may have several.

    Args:
      features: float32, shape (n, columns), raw units; NaN is missing, flags are 0 or 1 and never NaN.
      labels: float32, shape (n,), 0 or 1.
      person: int64, shape (n,), keyed patient ids.
      is_test: bool, shape (n,); the same for all rows of a patient.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.float32]
    person: NDArray[np.int64]
    is_test: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def training(self) -> Self:
        """The rows of the training fold."""
        return self.where(~self.is_test)

    def test(self) -> Self:
        """The rows of the test fold."""
        return self.where(self.is_test)

    def where(self, chosen: NDArray[np.bool_]) -> Self:
        """The rows that are marked."""
        return type(self)(
            self.features[chosen], self.labels[chosen], self.person[chosen], self.is_test[chosen]
        )


def save_rows(path: Path, rows: Rows) -> None:
    """Write rows as safetensors, whole or not at all, readable by the owner alone (0600).

    The folder must exist.
    """
    data = save({name: np.ascontiguousarray(getattr(rows, name)) for name in _TYPES})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_rows(path: Path) -> Rows:
    """Read what `save_rows` wrote.

    Raises:
      DataError: no file, not safetensors, or other names, types or shapes.
    """
    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError):
        raise DataError("the stored rows cannot be read", "build them again from the CDM") from None
    n = len(tensors["labels"]) if "labels" in tensors else -1
    is_sound = set(tensors) == set(_TYPES) and all(
        array.dtype == _TYPES[name] and array.shape[0] == n and array.ndim == (2 if name == "features" else 1)
        for name, array in tensors.items()
    )
    if not is_sound:
        raise DataError("the stored rows have another form", "build them again from the CDM")
    return Rows(**tensors)
