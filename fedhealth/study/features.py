"""The section ``features`` of a study: what may be written under each key, and the default of every key.

All bounds and windows are public: they are part of what the sites approve.
"""

import math
from collections import Counter
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from fedhealth.study.columns import SERIES, SeriesFeature, columns_of
from fedhealth.study.language import Code, Count, Name, Positive, Section
from fedhealth.vocabulary.concepts import OPERATORS
from fedhealth.vocabulary.units import is_known_unit, ucum


def _is_ucum(unit: str) -> str:
    if not is_known_unit(unit):
        raise ValueError("a unit is UCUM, such as mg/dL, mm[Hg] or {score}")
    return unit


def _ends_by_the_prediction(window: tuple[float, float]) -> tuple[float, float]:
    if not -math.inf < window[0] < window[1] <= 0.0:
        raise ValueError("must be [start, end] with start < end <= 0, in hours")
    return window


def _is_an_interval(bounds: tuple[float, float]) -> tuple[float, float]:
    if not -math.inf < bounds[0] < bounds[1] < math.inf:
        raise ValueError("must be [low, high] with low < high")
    return bounds


def _are_operators(numbers: dict[str, float]) -> dict[str, float]:
    if not set(numbers) <= set(OPERATORS):
        raise ValueError(f"its keys are among {', '.join(OPERATORS)}")
    return numbers


Window = Annotated[tuple[float, float], AfterValidator(_ends_by_the_prediction)]
"""Hours relative to the prediction; both ends included."""
Unit = Annotated[str, AfterValidator(_is_ucum)]
Clip = Annotated[tuple[float, float], AfterValidator(_is_an_interval)]
Comparators = Annotated[dict[str, float], AfterValidator(_are_operators)]
Codes = Annotated[tuple[Code, ...], Field(min_length=1)]
Aggregate = Literal["last", "min", "max", "mean", "slope", "missing", "any", "count", "time_since"]


class MeasurementFeature(Section):
    """Numbers of one concept set, brought to one unit, in one window; a column for each aggregate.

    Attributes:
      clip: public bounds: a value beyond them counts as the bound. May be left out where the name is that of a
        series feature in its own unit, or where ``comparator`` says two numbers: then those bound the values, and a
        value beyond them is not used, as it is no number of that scale.
      comparator: by FHIR comparator, the number that a value with it becomes; others keep their own number.
    """

    name: Name
    codes: Codes
    unit: Unit
    clip: Clip | None = None
    comparator: Comparators = Field(default_factory=dict)
    window_h: Window = (-48.0, 0.0)
    aggregate: Annotated[tuple[Aggregate, ...], Field(min_length=1)] = (
        "last",
        "min",
        "max",
        "mean",
        "slope",
        "missing",
    )

    @model_validator(mode="after")
    def _has_bounds(self) -> Self:
        numbers = self.comparator.values()
        if self.clip is None and self._known() is None and len(set(numbers)) < 2:
            raise ValueError("needs clip: [low, high], the public bounds of its values")
        low, high = self.bounds
        if not all(low <= number <= high for number in numbers):
            raise ValueError("a number of comparator lies outside clip")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Public bounds, low < high, in the feature's unit."""
        known = self._known()
        if self.clip is not None:
            return self.clip
        if known is not None:
            return known.clip_low, known.clip_high
        return min(self.comparator.values()), max(self.comparator.values())

    @property
    def usable(self) -> tuple[float, float]:
        """The range outside which a value is an error and is not used; infinite where nothing is known of it."""
        known = self._known()
        if known is not None:
            return known.low, known.high
        return (-math.inf, math.inf) if self.clip is not None else self.bounds

    def _known(self) -> SeriesFeature | None:
        """The series feature whose name and unit are the feature's."""
        unit = ucum(self.unit)
        return next((each for each in SERIES if (each.name, each.unit) == (self.name, unit)), None)


class CategoryFeature(Section):
    """The last coded, boolean or text-coded observation of the window, one-hot over a federated vocabulary."""

    name: Name
    codes: Codes
    window_h: Window = (-48.0, 0.0)


class ConditionFeature(Section):
    """Whether a condition was on record."""

    name: Name
    codes: Codes
    look_back_days: Count = 3650


class DrugFeature(Section):
    """Whether a drug was given or ordered."""

    name: Name
    codes: tuple[Code, ...] = ()
    text: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = ()
    window_h: Window = (-72.0, 0.0)

    @model_validator(mode="after")
    def _is_addressed(self) -> Self:
        if not self.codes and not self.text:
            raise ValueError("needs codes or text")
        return self


class ProcedureFeature(Section):
    """Whether a procedure was done."""

    name: Name
    codes: Codes
    look_back_days: Count = 3650


class Series(Section):
    """The time series: so many steps of so many hours, the last one ending at the prediction."""

    preset: Literal["icu-20"] | None = "icu-20"
    step_h: Positive = 1.0
    steps: Annotated[int, Field(ge=1, le=10_000)] = 50


class Impute(Section):
    """What a missing number becomes."""

    kind: Literal["median", "mean", "zero"] = "median"


Static = Literal[
    "age",
    "sex",
    "emergency_admission",
    "prior_admissions_12m",
    "prior_ed_6m",
    "days_since_discharge",
    "comorbidity_count",
    "surgical",
]
STATICS: tuple[Static, ...] = get_args(Static)


class Features(Section):
    """What the model sees; ``window_h`` is the window of the preset's summaries."""

    preset: Literal["default-128"] | None = "default-128"
    statics: tuple[Static, ...] = STATICS
    window_h: Window = (-48.0, 0.0)
    measurements: tuple[MeasurementFeature, ...] = ()
    categories: tuple[CategoryFeature, ...] = ()
    conditions: tuple[ConditionFeature, ...] = ()
    drugs: tuple[DrugFeature, ...] = ()
    procedures: tuple[ProcedureFeature, ...] = ()
    series: Series = Series()
    impute: Impute = Impute()
    standardise: Literal["consortium", "site", "none"] = "consortium"

    @model_validator(mode="after")
    def _columns_have_names_of_their_own(self) -> Self:
        if self.preset is None and self.window_h != type(self).model_fields["window_h"].default:
            raise ValueError("window_h belongs to the preset: give each of measurements its own")
        names = [column.name for column in columns_of(self)] + [each.name for each in self.categories]
        if not names:
            raise ValueError("has no column: name a preset, statics or a list of features")
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise ValueError(f"two columns are called {name}")
        return self
