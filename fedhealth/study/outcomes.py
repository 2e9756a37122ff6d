"""The outcomes of a study file: what may be written under each kind.

What each of them means is in `fedhealth.features.outcomes`, and in docs/reference/study.md for people.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedhealth.study.language import Code, Count, Hours, Positive, Section

MissingIf = Literal["died_in_stay", "left_against_advice", "transferred_acute"]
DispositionClass = Literal["home", "home_care", "facility", "transfer", "died"]


def _as_long_as_the_label(section: dict[str, Any]) -> int:
    days: int = section.get("within_days", 30)  # not there when it was refused
    return days


class Readmission(Section):
    """An unplanned inpatient stay that starts within so many days after discharge."""

    kind: Literal["readmission"]
    within_days: Count = 30
    follow_up_days: Count = Field(default_factory=_as_long_as_the_label)
    missing_if: tuple[MissingIf, ...] = ("died_in_stay", "left_against_advice", "transferred_acute")

    @model_validator(mode="after")
    def _everybody_is_followed_to_the_end(self) -> Self:
        if self.follow_up_days < self.within_days:
            raise ValueError("follow_up_days must reach within_days: who is seen for less has no label")
        return self


class Death(Section):
    """Death within the stay, or within so many days from the start of the index stay."""

    kind: Literal["death"]
    within: Literal["stay"] | None = None
    within_days: Count | None = None

    @model_validator(mode="after")
    def _one_window(self) -> Self:
        if (self.within is None) == (self.within_days is None):
            raise ValueError("needs exactly one of within: stay and within_days: N")
        return self


class KidneyInjury(Section):
    """KDIGO creatinine rise, with its onset some hours after admission."""

    kind: Literal["kidney_injury"]
    onset_after_h: Hours = 24.0


class IcuTransfer(Section):
    """A transfer to intensive care."""

    kind: Literal["icu_transfer"]
    within: Literal["stay"] = "stay"


class LengthOfStay(Section):
    """Days of stay, or with ``over_days`` a yes or no."""

    kind: Literal["length_of_stay"]
    over_days: Positive | None = None
    missing_if: tuple[MissingIf, ...] = ()


class Disposition(Section):
    """Where the patient goes after the stay."""

    kind: Literal["disposition"]
    classes: Annotated[tuple[DispositionClass, ...], Field(min_length=2)] = (
        "home",
        "home_care",
        "facility",
        "transfer",
        "died",
    )

    @model_validator(mode="after")
    def _each_class_once(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class stands twice in classes")
        return self


class Survival(Section):
    """Time from the prediction to an event, up to a horizon."""

    kind: Literal["survival"]
    event: Literal["death"] = "death"
    horizon_days: Count = 365


class ConditionOutcome(Section):
    """A coded condition: confirmed is 1, refuted 0; ``unrecorded`` says what neither is."""

    kind: Literal["condition"]
    codes: Annotated[tuple[Code, ...], Field(min_length=1)]
    within_days: Count
    unrecorded: Literal["missing", "negative"] = "missing"


class ObservationOutcome(Section):
    """A coded observation with positive and negative values; any other value is no label."""

    kind: Literal["observation"]
    codes: Annotated[tuple[Code, ...], Field(min_length=1)]
    within_days: Count
    positive: Annotated[tuple[str, ...], Field(min_length=1)]
    negative: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _no_value_is_both(self) -> Self:
        if {value.casefold() for value in self.positive} & {value.casefold() for value in self.negative}:
            raise ValueError("a value is both positive and negative")
        return self


Outcome = Annotated[
    Readmission
    | Death
    | KidneyInjury
    | IcuTransfer
    | LengthOfStay
    | Disposition
    | Survival
    | ConditionOutcome
    | ObservationOutcome,
    Field(discriminator="kind"),
]
