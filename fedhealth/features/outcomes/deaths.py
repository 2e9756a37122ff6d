"""The outcomes ``death`` and ``survival``."""

from fedhealth.features.outcomes.form import ALIVE, DIED_AT, OutcomeSql, followed, window_rules
from fedhealth.features.rules import Rule
from fedhealth.study.outcomes import Death, Survival
from fedhealth.study.spec import Study
from fedhealth.study.targets import SURVIVAL_INTERVALS

_DAY_S = 86_400


def death(outcome: Death, study: Study) -> OutcomeSql:
    """Yes or no: within the stay, or so many days after its start."""
    if outcome.within_days is None:
        event = "CASE WHEN c.died_in_stay THEN c.died_in_stay_at END"
        return OutcomeSql(label="c.died_in_stay", rules=(ALIVE,), event=event)
    days = outcome.within_days
    end = f"c.began + INTERVAL {days} DAY"
    unseen = f"{DIED_AT} IS NULL AND NOT {followed('c.began', days)}"
    return OutcomeSql(
        label=f"coalesce({DIED_AT} <= {end}, false)",
        rules=(ALIVE, *window_rules(study, end=end), Rule(f"followed for {days} days", unseen)),
        event=DIED_AT,
    )


def survival(outcome: Survival, study: Study) -> OutcomeSql:
    """Twice the interval of the horizon, counted from the prediction, in which somebody was last seen; and 1 for death.

    Who outlived the horizon was last seen in the interval after its last.
    """
    horizon_s = outcome.horizon_days * _DAY_S
    width_s = horizon_s / SURVIVAL_INTERVALS
    died_s = f"epoch({DIED_AT} - c.predicted)"
    seen_s = "epoch(c.observed_until::TIMESTAMP + INTERVAL 1 DAY - c.predicted)"
    last = f"floor(coalesce({died_s}, {seen_s}) / {width_s!r})"
    return OutcomeSql(
        label=(
            f"CASE WHEN {died_s} <= {horizon_s} THEN 2 * least({last}, {SURVIVAL_INTERVALS - 1}) + 1 "
            f"ELSE 2 * least({last}, {SURVIVAL_INTERVALS}) END"
        ),
        rules=(
            ALIVE,
            Rule("seen after the prediction", f"{DIED_AT} IS NULL AND NOT coalesce({seen_s} > 0, false)"),
        ),
        event=DIED_AT,
    )
