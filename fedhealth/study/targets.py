"""What a study's outcomes mean for a network: one target per outcome, in the order of their names.

A target says how its label is written in a row, how many outputs of the network are its own, and in what units the
network sees a number. All of it is public: a function of the study alone.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from fedhealth.study.outcomes import Disposition, LengthOfStay, Outcome, Survival
from fedhealth.study.spec import Study

TargetKind = Literal["binary", "classes", "number", "hazard"]

SURVIVAL_INTERVALS = 12
"""Intervals of equal length into which discrete-time survival cuts its horizon."""


@dataclass(frozen=True, slots=True)
class Target:
    """One outcome as the network has it.

    A label is a float32, NaN where it is not known:

        binary   0 or 1
        classes  the number of the class, 0..len(classes)-1
        number   in the outcome's unit, within [low, high]
        hazard   2 * interval + event: the interval in which the person was last seen, 1 if the event ended it;
                 who is known to have outlived the horizon was last seen in interval ``outputs``

    Attributes:
      name: the outcome's key in the study.
      kind: how label and outputs are read.
      outputs: how many outputs of the network are this target's.
      classes: names, of ``classes`` alone.
      low, high: public bounds of a number, beyond which its label is clipped.
      center, spread: a number is learnt as (label - center) / spread.
    """

    name: str
    kind: TargetKind
    outputs: int = 1
    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    center: float = 0.0
    spread: float = 1.0


def targets_of(study: Study) -> tuple[Target, ...]:
    """The targets of a study, in the order of its outcomes' names: that of the label columns and of the outputs."""
    return tuple(_target(name, outcome) for name, outcome in study.outcomes.items())


def output_slices(targets: tuple[Target, ...]) -> tuple[slice, ...]:
    """Where each target's outputs lie among the network's."""
    ends = [0]
    for target in targets:
        ends.append(ends[-1] + target.outputs)
    return tuple(slice(start, end) for start, end in pairwise(ends))


def _target(name: str, outcome: Outcome) -> Target:
    if isinstance(outcome, LengthOfStay) and outcome.over_days is None:
        return Target(name, "number", low=0.0, high=30.0, center=5.0, spread=5.0)
    if isinstance(outcome, Disposition):
        return Target(name, "classes", outputs=len(outcome.classes), classes=outcome.classes)
    if isinstance(outcome, Survival):
        return Target(name, "hazard", outputs=SURVIVAL_INTERVALS)
    return Target(name, "binary")
