"""From raw feature columns to what the network sees, on one path for training and scoring.

numpy only. The numbers used are public (clip bounds) or the consortium's (`Statistics`); they are kept beside
the trained weights, never among them. Only where a study standardises by site does a site use numbers of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedhealth.models.inputs import RawInputs
from fedhealth.models.statistics import Statistics, floor_sd
from fedhealth.study.columns import FeatureColumn, feature_columns
from fedhealth.study.spec import Study

ImputeKind = Literal["median", "mean", "zero"]

_FILLS: dict[ImputeKind, Callable[[Statistics], NDArray[np.float32]]] = {
    "median": lambda statistics: statistics.median,
    "mean": lambda statistics: statistics.mean,
    "zero": lambda statistics: np.zeros_like(statistics.mean),
}
"""By kind, what a missing value becomes in raw units."""


def static_inputs(rows: RawInputs, statistics: Statistics, study: Study) -> NDArray[np.float32]:
    """The static inputs of a study's network: numbers and flags, then a flag for each code of the vocabulary.

    Args:
      rows: in raw units; a code that the consortium does not know is none of its flags.
      statistics: the consortium's, or at a site those of `site_statistics`.
      study: how values are imputed and scaled.

    Returns:
      float32 (rows, inputs), finite.

    Raises:
      ValueError: shapes do not fit.
    """
    return prepare(
        expand_levels(rows, statistics, study),
        statistics,
        feature_columns(study, statistics.vocabulary),
        impute=study.features.impute.kind,
        is_scaled=study.features.standardise != "none",
    )


def prepare(
    features: NDArray[np.floating],
    statistics: Statistics,
    columns: Sequence[FeatureColumn],
    *,
    impute: ImputeKind = "median",
    is_scaled: bool = True,
) -> NDArray[np.float32]:
    """Clip to the public bounds, impute by a number of the consortium, standardise by its mean and sd.

    Guarantees: every output is finite, whatever the input (infinities are clipped); numbers and flags take
    the same path; a row's output depends on that row alone.

    Args:
      features: (rows, columns) in raw units, NaN where missing.
      statistics: of these columns.
      columns: the public clip bounds.
      impute: what a missing value becomes: the median, the mean, or 0 in raw units (which may lie outside the bounds).
      is_scaled: whether to standardise.

    Returns:
      float32 (rows, columns).

    Raises:
      ValueError: another number of columns than the statistics or the study have.
    """
    if features.ndim != 2 or not features.shape[1] == len(columns) == len(statistics.mean):
        raise ValueError(f"features {features.shape} do not fit {len(columns)} columns and their statistics")
    raw = np.asarray(features, dtype=np.float32)
    filled = np.where(np.isnan(raw), _FILLS[impute](statistics), _clip(raw, columns))
    scaled = (filled - statistics.mean) / statistics.sd if is_scaled else filled
    return np.ascontiguousarray(scaled, dtype=np.float32)  # one layout: sums over it have one order


def expand_levels(rows: RawInputs, statistics: Statistics, study: Study) -> NDArray[np.float32]:
    """The columns of rows in raw units: the numeric ones, then 0 or 1 for each code of the vocabulary.

    Raises:
      ValueError: the rows have levels of another number of categories than the study.
    """
    categories = study.features.categories
    levels, names = rows.levels, rows.level_names
    if not levels.size:
        levels, names = np.full((len(rows), len(categories)), -1, dtype=np.int32), ((),) * len(categories)
    if levels.shape != (len(rows), len(categories)) or len(names) != len(categories):
        raise ValueError(f"levels {levels.shape} do not fit {len(rows)} rows, {len(categories)} categories")
    flags = [
        _one_hot(levels[:, place], names[place], statistics.vocabulary.get(category.name, ()))
        for place, category in enumerate(categories)
    ]
    return np.concatenate([np.asarray(rows.features, dtype=np.float32), *flags], axis=1)


def site_statistics(training: RawInputs, statistics: Statistics, study: Study) -> Statistics:
    """What a site scales by: the consortium's statistics, or where the study says so with its own mean and sd.

    Its own are those of its training rows, and never leave it; a column that none of them has keeps the consortium's.
    What is missing is imputed by the consortium's numbers in any case, and a registered model has the consortium's.

    Args:
      training: the site's training rows.
      statistics: the consortium's.
      study: the study.
    """
    if study.features.standardise != "site":
        return statistics
    columns = feature_columns(study, statistics.vocabulary)
    width = np.array([column.high - column.low for column in columns])
    values = _clip(expand_levels(training, statistics, study), columns).astype(np.float64)
    observed = ~np.isnan(values)
    count = np.maximum(observed.sum(axis=0), 1)
    mean = np.where(observed, values, 0.0).sum(axis=0) / count
    sd = np.sqrt((np.where(observed, values - mean, 0.0) ** 2).sum(axis=0) / count)
    is_known = observed.any(axis=0)
    return replace(
        statistics,
        mean=np.where(is_known, mean, statistics.mean).astype(np.float32),
        sd=np.where(is_known, floor_sd(sd / width, width), statistics.sd).astype(np.float32),
    )


def _clip(values: NDArray[np.float32], columns: Sequence[FeatureColumn]) -> NDArray[np.float32]:
    low = np.array([column.low for column in columns], dtype=np.float32)
    high = np.array([column.high for column in columns], dtype=np.float32)
    return np.clip(values, low, high)


def _one_hot(levels: NDArray[np.integer], names: Sequence[str], codes: Sequence[str]) -> NDArray[np.float32]:
    """Flags (rows, codes) of levels that count in ``names``; -1 and names that are no code are none."""
    place = np.array([codes.index(name) if name in codes else -1 for name in names] + [-1])
    return np.asarray(place[levels][:, None] == np.arange(len(codes)), dtype=np.float32)
