"""The rows of a study at one site: features, labels, keyed patients and folds. They never leave the site."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedhealth.errors import DataError
from fedhealth.models.inputs import RawInputs

_TYPES: dict[str, tuple[type[np.generic], int]] = {
    "features": (np.float32, 2),
    "labels": (np.float32, 2),
    "person": (np.int64, 1),
    "is_test": (np.bool_, 1),
    "is_validation": (np.bool_, 1),
    "series": (np.float32, 3),
    "levels": (np.int32, 2),
    "groups": (np.int8, 2),
}
"""Type and number of dimensions of every array."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One row per index stay and prediction; a patient may have several.

    Args:
      features: float32, shape (n, columns), raw units; NaN is missing, flags are 0 or 1 and never NaN.
      labels: float32, shape (n, targets), as `fedhealth.study.targets` writes them; NaN is not known.
      person: int64, shape (n,), keyed patient ids.
      is_test: bool, shape (n,); the same for all rows of a patient.
      is_validation: bool, shape (n,); likewise, of none that is tested; nobody where the study chooses nothing by scores.
      series: float32, shape (n, steps, measured), raw units, NaN where nothing was measured; (n, 0, 0) without series.
      levels: int32, shape (n, categories), numbers in ``level_names``; -1 is missing.
      groups: int8, shape (n, subgroupings), numbers of the bands of `fedhealth.study.subgroups`; -1 is in none.
      level_names: per category the codes that occur at this site, sorted.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.float32]
    person: NDArray[np.int64]
    is_test: NDArray[np.bool_]
    is_validation: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    series: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.float32))
    levels: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int32))
    groups: NDArray[np.int8] = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int8))
    level_names: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for name, (kind, dimensions) in _TYPES.items():
            array = getattr(self, name)
            if array.shape == (0,) * dimensions and len(self.labels):
                object.__setattr__(self, name, np.zeros((len(self.labels), *(0,) * (dimensions - 1)), kind))

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self) -> RawInputs:
        """What a network may see of the rows."""
        return RawInputs(self.features, self.series, self.levels, self.level_names)

    @property
    def is_training(self) -> NDArray[np.bool_]:
        """Whether a row is in neither the test fold nor the validation fold, shape (n,)."""
        return ~(self.is_test | self.is_validation)

    def training(self) -> Self:
        """The rows of the training fold."""
        return self.where(self.is_training)

    def validation(self) -> Self:
        """The rows of the validation fold."""
        return self.where(self.is_validation)

    def test(self) -> Self:
        """The rows of the test fold."""
        return self.where(self.is_test)

    def where(self, chosen: NDArray[np.bool_]) -> Self:
        """The rows that are marked."""
        arrays = {name: getattr(self, name)[chosen] for name in _TYPES}
        return type(self)(**arrays, level_names=self.level_names)


def save_rows(path: Path, rows: Rows) -> None:
    """Write rows as safetensors, whole or not at all, readable by the owner alone (0600).

    The folder must exist.
    """
    arrays = {name: np.ascontiguousarray(getattr(rows, name)) for name in _TYPES}
    data = save(arrays, metadata={"level_names": json.dumps(rows.level_names)})
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
        with safe_open(path, framework="numpy") as stored:
            tensors = {name: stored.get_tensor(name) for name in sorted(stored.keys())}
            names = json.loads((stored.metadata() or {}).get("level_names", "[]"))
    except (OSError, SafetensorError, ValueError):
        raise DataError("the stored rows cannot be read", "build them again from the CDM") from None
    n = len(tensors["labels"]) if "labels" in tensors else -1
    is_sound = set(tensors) == set(_TYPES) and all(
        tensors[name].dtype == kind and tensors[name].shape[0] == n and tensors[name].ndim == dimensions
        for name, (kind, dimensions) in _TYPES.items()
    )
    if not is_sound:
        raise DataError("the stored rows have another form", "build them again from the CDM")
    return Rows(**tensors, level_names=tuple(tuple(each) for each in names))
