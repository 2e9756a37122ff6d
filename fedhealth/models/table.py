"""A registered model's input and output as a table of named columns: what its signature says, and what it reads."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.inputs import RawInputs
from fedhealth.models.statistics import Statistics
from fedhealth.study.columns import SERIES, numeric_columns
from fedhealth.study.spec import Study
from fedhealth.study.targets import targets_of

if TYPE_CHECKING:
    import pandas as pd


def number_names(study: Study) -> tuple[str, ...]:
    """The columns of numbers: the static ones and, of a model that reads series, ``heart_rate@0`` for its first step."""
    static = tuple(column.name for column in numeric_columns(study))
    return (*static, *_series_names(study))


def code_names(study: Study) -> tuple[str, ...]:
    """The columns of codes: one for each category of the study."""
    return tuple(category.name for category in study.features.categories)


def output_names(study: Study) -> tuple[str, ...]:
    """One name per output: the target's; ``where=home`` of a class; ``survival@0`` of an interval."""
    names: list[str] = []
    for target in targets_of(study):
        if target.kind == "classes":
            names += [f"{target.name}={each}" for each in target.classes]
        elif target.kind == "hazard":
            names += [f"{target.name}@{interval}" for interval in range(target.outputs)]
        else:
            names.append(target.name)
    return tuple(names)


def read_table(table: "pd.DataFrame", study: Study) -> RawInputs:
    """The rows of a table; columns in any order, others ignored.

    Raises:
      KeyError: a column is missing.
    """
    static = [column.name for column in numeric_columns(study)]
    numbers = table[static].to_numpy(dtype=np.float32)
    series = table[list(_series_names(study))].to_numpy(dtype=np.float32)
    steps = series.shape[1] // len(SERIES)
    columns = [_levels(table[name].to_numpy(dtype=object)) for name in code_names(study)]
    return RawInputs(
        numbers,
        series.reshape(len(table), steps, len(SERIES) if steps else 0),
        np.stack([levels for levels, _ in columns], axis=1)
        if columns
        else np.zeros((len(table), 0), dtype=np.int32),
        tuple(names for _, names in columns),
    )


def example_row(study: Study, statistics: Statistics) -> dict[str, list[object]]:
    """One row that is nobody's: the consortium's medians, no code, nothing measured."""
    medians = statistics.median[: len(numeric_columns(study))].astype(np.float64).tolist()
    numbers = medians + [float("nan")] * len(_series_names(study))
    return {name: [value] for name, value in zip(number_names(study), numbers, strict=True)} | {
        name: [""] for name in code_names(study)
    }


def _series_names(study: Study) -> tuple[str, ...]:
    if study.model.kind != "lstm":
        return ()
    steps = range(study.features.series.steps)
    return tuple(f"{feature.name}@{step}" for step in steps for feature in SERIES)


def _levels(codes: NDArray[np.object_]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Each code's number among those that occur; -1 for none."""
    given = [code if isinstance(code, str) and code else None for code in codes]
    names = tuple(sorted({code for code in given if code is not None}))
    number = {name: place for place, name in enumerate(names)}
    return np.array([-1 if code is None else number[code] for code in given], dtype=np.int32), names
