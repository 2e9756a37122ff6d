"""The outcomes of a study as SQL: what a label is, and when it is not known. One module a family of kinds."""

from collections.abc import Callable
from typing import Any

from fedhealth.features.outcomes.deaths import death, survival
from fedhealth.features.outcomes.form import OutcomeSql
from fedhealth.features.outcomes.kidney import kidney_injury
from fedhealth.features.outcomes.readmission import readmission
from fedhealth.features.outcomes.records import OBSERVED, condition, observation
from fedhealth.features.outcomes.stay import disposition, icu_transfer, length_of_stay
from fedhealth.study.outcomes import Outcome
from fedhealth.study.spec import Study

__all__ = ["OBSERVED", "OutcomeSql", "outcome_sql"]

_KINDS: dict[str, Callable[[Any, Study], OutcomeSql]] = {
    "readmission": readmission,
    "death": death,
    "survival": survival,
    "icu_transfer": icu_transfer,
    "length_of_stay": length_of_stay,
    "disposition": disposition,
    "kidney_injury": kidney_injury,
    "condition": condition,
    "observation": observation,
}


def outcome_sql(outcome: Outcome, study: Study) -> OutcomeSql:
    """The SQL of one outcome of the study."""
    return _KINDS[outcome.kind](outcome, study)
