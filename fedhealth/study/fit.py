"""Which parts of a study fit one another: nothing is predicted that is known by then."""

from collections.abc import Mapping

from fedhealth.study.explain import Unfit
from fedhealth.study.language import Aggregation, Cohort, Prediction, Privacy, Split
from fedhealth.study.outcomes import (
    ConditionOutcome,
    Death,
    Disposition,
    IcuTransfer,
    KidneyInjury,
    LengthOfStay,
    ObservationOutcome,
    Outcome,
)


def misfit(
    cohort: Cohort, prediction: Prediction, outcomes: Mapping[str, Outcome], split: Split
) -> str | None:
    """What makes the sections of a study no study together, in one line; None if they fit."""
    for name, outcome in outcomes.items():
        if problem := _outcome_misfit(f"outcomes.{name}", outcome, cohort, prediction):
            return problem
    if cohort.exclude.event_before_h is not None and not any(map(_is_event, outcomes.values())):
        return "cohort.exclude.event_before_h: no outcome is an event that has a time"
    first = next(iter(outcomes.values()))
    if split.stratify and isinstance(first, LengthOfStay) and first.over_days is None:
        return "split.stratify: the first outcome is a number and has no classes"
    return None


def check_aggregation(aggregation: Aggregation, privacy: Privacy, *, model: str, algorithm: str) -> None:
    """Refuse a way of aggregating that does not go with the rest of a study.

    Raises:
      Unfit: the problem, and which key to change.
    """
    is_masked_mean = aggregation.mode != "plain" and aggregation.robust == "none"
    if model in ("gbm", "cox") and not is_masked_mean:
        raise Unfit(
            f"model.kind {model} grows by masked sums: it has no aggregation.mode plain and no robust rule",
            "set aggregation.mode to masks and aggregation.robust to none",
        )
    if model in ("gbm", "cox") and aggregation.mode == "he":
        raise Unfit(
            f"model.kind {model} grows by masked sums: aggregation.mode he encrypts updates alone",
            "set aggregation.mode to masks",
        )
    if model in ("gbm", "cox") and aggregation.compresses:
        raise Unfit(f"model.kind {model} grows by exact sums", "remove aggregation.ring_bits")
    if aggregation.robust not in ("none", "plausibility") and algorithm == "scaffold":
        raise Unfit(
            f"aggregation.robust {aggregation.robust} gives no mean, and scaffold's control is one",
            "set aggregation.robust to plausibility or none",
        )
    if aggregation.robust == "plausibility" and privacy.mode == "distributed":
        raise Unfit(
            "aggregation.robust plausibility shows projections of a site's update",
            "set privacy.mode to local",
        )
    if aggregation.robust == "groups" and privacy.mode == "distributed":
        raise Unfit(
            "aggregation.robust groups opens sums with a part of the noise", "set privacy.mode to local"
        )


def _outcome_misfit(key: str, outcome: Outcome, cohort: Cohort, prediction: Prediction) -> str | None:
    if _is_of_the_stay(outcome):
        words = f"a {outcome.kind.replace('_', ' ')}"
        if prediction.at == "discharge":
            return f"{key}: {words} within the stay is known at discharge: predict at admission"
        if cohort.index.visit == "outpatient":
            return f"{key}: {words} within the stay needs a stay, and an outpatient visit is none"
    ends = _window_ends(outcome)
    first_h = prediction.plus_h or prediction.step_h
    if ends is not None and first_h is not None and 24 * ends[1] <= first_h:
        return f"{key}.{ends[0]}: the window is over by the first prediction"
    return None


def _is_of_the_stay(outcome: Outcome) -> bool:
    """Whether the outcome is settled when the stay ends."""
    if isinstance(outcome, Death):
        return outcome.within == "stay"
    return isinstance(outcome, KidneyInjury | IcuTransfer | LengthOfStay | Disposition)


def _window_ends(outcome: Outcome) -> tuple[str, float] | None:
    """The key and the days after the index start at which the outcome is settled, where it has such."""
    if isinstance(outcome, Death | ConditionOutcome | ObservationOutcome) and outcome.within_days is not None:
        return "within_days", outcome.within_days
    if isinstance(outcome, LengthOfStay) and outcome.over_days is not None:
        return "over_days", outcome.over_days
    return None


def _is_event(outcome: Outcome) -> bool:
    return not isinstance(outcome, LengthOfStay | Disposition)
