"""The columns of the static vector: names, public clip bounds and kinds. The order is part of the study.

The preset ``default-128`` is 8 statics and, for each of the 20 series features, its last, minimum, maximum,
mean, slope and missing flag over the study's window.
"""

from dataclasses import dataclass
from typing import Literal

from fedhealth.errors import ConfigError
from fedhealth.study.spec import Study

SUMMARIES = ("last", "min", "max", "mean", "slope", "missing")
"""What is kept of a series feature, in the order of the columns."""


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One column: its name, the public bounds of its values (raw units), and whether it is a 0/1 flag.

    A flag is never missing; a number may be NaN.
    """

    name: str
    low: float
    high: float
    kind: Literal["number", "flag"]


@dataclass(frozen=True, slots=True)
class SeriesFeature:
    """One of the 20 series features.

    ``low``..``high`` is the hard physiologic range: a value outside it is an error and is not used.
    ``clip_low``..``clip_high`` are the public clip bounds within it, wide enough for intensive care and
    narrow enough that 64 bins resolve a median.
    """

    name: str
    unit: str
    low: float
    high: float
    clip_low: float
    clip_high: float


SERIES = (
    SeriesFeature("heart_rate", "/min", 0, 300, 20, 220),
    SeriesFeature("systolic_bp", "mm[Hg]", 0, 300, 40, 260),
    SeriesFeature("diastolic_bp", "mm[Hg]", 0, 300, 10, 180),
    SeriesFeature("mean_bp", "mm[Hg]", 0, 250, 20, 200),
    SeriesFeature("respiratory_rate", "/min", 0, 80, 0, 70),
    SeriesFeature("temperature", "Cel", 25, 45, 30, 43),
    SeriesFeature("spo2", "%", 0, 100, 50, 100),
    SeriesFeature("glucose", "mg/dL", 10, 2000, 20, 800),
    SeriesFeature("creatinine", "mg/dL", 0.1, 30, 0.1, 15),
    SeriesFeature("urea_nitrogen", "mg/dL", 1, 250, 1, 180),
    SeriesFeature("sodium", "mmol/L", 90, 200, 110, 170),
    SeriesFeature("potassium", "mmol/L", 1, 12, 1.5, 9),
    SeriesFeature("chloride", "mmol/L", 60, 160, 70, 140),
    SeriesFeature("bicarbonate", "mmol/L", 2, 60, 5, 50),
    SeriesFeature("haemoglobin", "g/dL", 1, 25, 3, 22),
    SeriesFeature("white_blood_cells", "10*3/uL", 0, 500, 0, 60),
    SeriesFeature("platelets", "10*3/uL", 0, 2500, 0, 1000),
    SeriesFeature("calcium", "mg/dL", 2, 20, 4, 16),
    SeriesFeature("lactate", "mmol/L", 0.1, 40, 0.1, 20),
    SeriesFeature("urine_output", "mL", 0, 5000, 0, 1500),
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


def feature_columns(study: Study) -> tuple[FeatureColumn, ...]:
    """The columns of the study's static vector, in order; 128 for the preset default-128.

    Guarantees: names are unique; bounds are finite with low < high; a function of the study alone.

    Raises:
      ConfigError: the study has another preset.
    """
    if study.features.preset != "default-128":
        raise ConfigError("features.preset: only default-128 is built", "use default-128")
    return STATIC_COLUMNS + tuple(column for feature in SERIES for column in _summary_columns(feature))


def _summary_columns(feature: SeriesFeature) -> tuple[FeatureColumn, ...]:
    """Values within the clip bounds; the slope, per 24 h, within one whole range up or down."""
    low, high = feature.clip_low, feature.clip_high
    values = [FeatureColumn(f"{feature.name}_{name}", low, high, "number") for name in SUMMARIES[:4]]
    slope = FeatureColumn(f"{feature.name}_slope", low - high, high - low, "number")
    return (*values, slope, FeatureColumn(f"{feature.name}_missing", 0, 1, "flag"))
