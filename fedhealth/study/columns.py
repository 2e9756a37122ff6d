"""The columns of the static vector: names, public clip bounds and kinds. The order is part of the study.

The preset ``default-128`` is 8 statics and, for each of the 20 series features, its last, minimum, maximum,
mean, slope and missing flag over the study's window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fedhealth.study.features import (
        ConditionFeature,
        DrugFeature,
        Features,
        MeasurementFeature,
        ProcedureFeature,
    )
    from fedhealth.study.spec import Study

SUMMARIES = ("last", "min", "max", "mean", "slope", "missing")
"""What is kept of a series feature, in the order of the columns."""

COUNT_CAP = 50
"""So many values in a window, or more, are one and the same."""

_FLAGS = ("conditions", "drugs", "procedures")


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One column: its name, the public bounds of its values (raw units), and whether it is a 0/1 flag.

    A flag is never missing; a number may be NaN. ``empty`` is what a row has of which nothing is on record: None is
    NaN for a number and 0 for a flag.
    """

    name: str
    low: float
    high: float
    kind: Literal["number", "flag"]
    empty: float | None = None


@dataclass(frozen=True, slots=True)
class SeriesFeature:
    """One of the 20 series features.

    ``low``..``high`` is the hard physiologic range: a value outside it is an error and is not used.
    ``clip_low``..``clip_high`` are the public clip bounds within it, wide enough for intensive care and
    narrow enough that 64 bins resolve a median. ``center`` and ``spread`` are what is typical of inpatients: a
    recurrent network sees (value - center) / spread.
    """

    name: str
    unit: str
    low: float
    high: float
    clip_low: float
    clip_high: float
    center: float
    spread: float


SERIES = (
    SeriesFeature("heart_rate", "/min", 0, 300, 20, 220, 85, 20),
    SeriesFeature("systolic_bp", "mm[Hg]", 0, 300, 40, 260, 122, 22),
    SeriesFeature("diastolic_bp", "mm[Hg]", 0, 300, 10, 180, 66, 14),
    SeriesFeature("mean_bp", "mm[Hg]", 0, 250, 20, 200, 84, 16),
    SeriesFeature("respiratory_rate", "/min", 0, 80, 0, 70, 18, 5),
    SeriesFeature("temperature", "Cel", 25, 45, 30, 43, 36.9, 0.7),
    SeriesFeature("spo2", "%", 0, 100, 50, 100, 97, 3),
    SeriesFeature("glucose", "mg/dL", 10, 2000, 20, 800, 130, 50),
    SeriesFeature("creatinine", "mg/dL", 0.1, 30, 0.1, 15, 1.2, 1),
    SeriesFeature("urea_nitrogen", "mg/dL", 1, 250, 1, 180, 22, 16),
    SeriesFeature("sodium", "mmol/L", 90, 200, 110, 170, 138, 5),
    SeriesFeature("potassium", "mmol/L", 1, 12, 1.5, 9, 4.1, 0.6),
    SeriesFeature("chloride", "mmol/L", 60, 160, 70, 140, 104, 6),
    SeriesFeature("bicarbonate", "mmol/L", 2, 60, 5, 50, 25, 4.5),
    SeriesFeature("haemoglobin", "g/dL", 1, 25, 3, 22, 11, 2.2),
    SeriesFeature("white_blood_cells", "10*3/uL", 0, 500, 0, 60, 10, 5),
    SeriesFeature("platelets", "10*3/uL", 0, 2500, 0, 1000, 220, 100),
    SeriesFeature("calcium", "mg/dL", 2, 20, 4, 16, 8.6, 0.8),
    SeriesFeature("lactate", "mmol/L", 0.1, 40, 0.1, 20, 1.8, 1.5),
    SeriesFeature("urine_output", "mL", 0, 5000, 0, 1500, 100, 100),
)
"""The series features of the preset icu-20, in the order of the columns."""

STATIC_COLUMNS = (
    FeatureColumn("age", 0, 90, "number"),
    FeatureColumn("sex", 0, 1, "number"),
    FeatureColumn("emergency_admission", 0, 1, "flag"),
    FeatureColumn("prior_admissions_12m", 0, 12, "number"),
    FeatureColumn("prior_ed_6m", 0, 12, "number"),
    FeatureColumn("days_since_discharge", 0, 365, "number"),
    FeatureColumn("comorbidity_count", 0, 16, "number"),
    FeatureColumn("surgical", 0, 1, "flag"),
)
"""Years capped at 90; sex 1 for female, 0 for male, NaN for other; days capped at 365, also for never."""

Vocabulary = Mapping[str, tuple[str, ...]]
"""By category, the codes that a network knows, sorted: one column each."""


def numeric_columns(study: "Study") -> tuple[FeatureColumn, ...]:
    """The columns of `fedhealth.features.Rows.features`, in order: see `columns_of`."""
    return columns_of(study.features)


def feature_columns(study: "Study", vocabulary: Vocabulary | None = None) -> tuple[FeatureColumn, ...]:
    """The columns of the study's static vector, in order: the numeric ones, then a flag for each code of a category.

    Guarantees: names are unique; bounds are finite with low < high; a function of its arguments alone. Without a
    vocabulary, those of `numeric_columns`.

    Args:
      study: the study.
      vocabulary: the consortium's; a category that it lacks has no column.
    """
    known = vocabulary or {}
    levels = [
        FeatureColumn(f"{category.name}={code}", 0, 1, "flag")
        for category in study.features.categories
        for code in known.get(category.name, ())
    ]
    return (*numeric_columns(study), *levels)


def columns_of(features: "Features") -> tuple[FeatureColumn, ...]:
    """The numeric columns of a ``features`` section.

    Statics, the summaries of the preset, measurements with a column for each aggregate, then conditions, drugs and
    procedures as flags; each list in the study's order. default-128 with all statics and nothing else has 128.
    """
    known = {column.name: column for column in STATIC_COLUMNS}
    summaries = SERIES if features.preset is not None else ()
    return (
        *(known[name] for name in features.statics),
        *(column for each in summaries for column in _summary_columns(each)),
        *(column for each in features.measurements for column in measurement_columns(each)),
        *(FeatureColumn(each.name, 0, 1, "flag") for each in flags_of(features)),
    )


def flags_of(features: "Features") -> "tuple[ConditionFeature | DrugFeature | ProcedureFeature, ...]":
    """The features that are yes or no, in the order of their columns."""
    return (*features.conditions, *features.drugs, *features.procedures)


def measurement_columns(feature: "MeasurementFeature") -> tuple[FeatureColumn, ...]:
    """A measurement's columns, one for each aggregate in the study's order.

    Values are within the feature's bounds, and its slope, per 24 h, within one whole range up or down; ``count`` is
    capped at `COUNT_CAP`; ``time_since`` is in hours, and that of no value is the whole way back to where the window
    begins.
    """
    (low, high), (start, end) = feature.bounds, feature.window_h
    found = {
        "slope": FeatureColumn("slope", low - high, high - low, "number"),
        "missing": FeatureColumn("missing", 0, 1, "flag", empty=1),
        "any": FeatureColumn("any", 0, 1, "flag"),
        "count": FeatureColumn("count", 0, COUNT_CAP, "number", empty=0),
        "time_since": FeatureColumn("time_since", abs(end), abs(start), "number", empty=abs(start)),
    }
    return tuple(
        replace(found.get(name, FeatureColumn(name, low, high, "number")), name=f"{feature.name}_{name}")
        for name in feature.aggregate
    )


def asked_columns(study: "Study", vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """By feature that a study names itself, such as ``measurements.creatinine``, the names of its columns.

    The preset's features and statics are not among them: a consortium may lack some.
    """
    features = study.features
    asked = {f"measurements.{each.name}": measurement_columns(each) for each in features.measurements}
    flags = {f"{kind}.{each.name}": (each.name,) for kind in _FLAGS for each in getattr(features, kind)}
    levels = {
        f"categories.{each.name}": tuple(f"{each.name}={code}" for code in vocabulary.get(each.name, ()))
        for each in features.categories
    }
    return {name: tuple(column.name for column in found) for name, found in asked.items()} | flags | levels


def _summary_columns(feature: SeriesFeature) -> tuple[FeatureColumn, ...]:
    """Values within the clip bounds; the slope, per 24 h, within one whole range up or down."""
    low, high = feature.clip_low, feature.clip_high
    values = [FeatureColumn(f"{feature.name}_{name}", low, high, "number") for name in SUMMARIES[:4]]
    slope = FeatureColumn(f"{feature.name}_slope", low - high, high - low, "number")
    return (*values, slope, FeatureColumn(f"{feature.name}_missing", 0, 1, "flag"))
