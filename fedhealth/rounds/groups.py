"""Updates summed by groups (``aggregation.robust: groups``): who is in which, what a sum needs, what is published of all.

Every group's sum is opened on its own, so that a wrong update spoils its group's mean and no other; the published update is
the trimmed mean of the groups' means. Who is in which group follows from study and roster: it is the same in every
round of a run, nobody announces it, and a site answers no sum of another group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import ceil

import numpy as np

from fedhealth.aggregation.robust import trimmed_mean
from fedhealth.errors import PolicyError
from fedhealth.exchange.board import Board, Reader
from fedhealth.models.weights import flatten, unflatten
from fedhealth.rounds.aggregate import Aggregate, merge
from fedhealth.rounds.layout import RoundShape
from fedhealth.rounds.objects import PhaseRoster, address_of, group_count, part_of, sites_needed, sum_key
from fedhealth.rounds.plain import GRID
from fedhealth.secagg.plan import SumPlan, colluders_withstood, threshold_for
from fedhealth.study.spec import Study

LEAST_SITES = 3
"""Of a group: a sum of two tells each the other's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """The sites that a sum may be of, and how many it needs.

    Attributes:
      sites: sorted.
      least_cohort: how many of them must be ready.
      least_survivors: how many must last, whatever the cohort.
      colluders: how many of a cohort it must withstand.
    """

    sites: tuple[str, ...]
    least_cohort: int
    least_survivors: int
    colluders: int

    def survivors_needed(self, cohort: int) -> int:
        """How many of a cohort must last for its sum to be opened."""
        return max(threshold_for(cohort), self.least_survivors)

    def can_sum(self, cohort: tuple[str, ...]) -> bool:
        """Whether so many sites may be summed at all."""
        return len(cohort) >= self.least_cohort and colluders_withstood(len(cohort)) >= self.colluders


def is_grouped(study: Study, name: str) -> bool:
    """Whether a sum is of one group alone: those of updates, where the study says so."""
    return study.aggregation.robust == "groups" and part_of(name)[0] == "update"


def groups_of(study: Study, sites: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The groups of a study, of ``group_size`` enrolled sites or a few more.

    Guarantees: every site is in one; sizes differ by at most one; the order of ``sites`` does not matter. They are dealt out
    in the order of SHA-256(study digest, zero byte, site).
    """
    order = sorted(sites, key=lambda site: sha256(f"{study.digest}\0{site}".encode()).digest())
    count = group_count(study, sites=len(sites))
    return tuple(tuple(sorted(order[first::count])) for first in range(count))


def circle_of(study: Study, name: str, sites: Sequence[str]) -> Circle:
    """Whom a sum may be of: all enrolled ``sites``, or one group of them."""
    aggregation = study.aggregation
    if not is_grouped(study, name):
        return Circle(
            sites=tuple(sorted(sites)),
            least_cohort=sites_needed(study, enrolled=len(sites)),
            least_survivors=aggregation.min_sites,
            colluders=aggregation.colluders,
        )
    group = groups_of(study, sites)[part_of(name)[1]]
    least = max(LEAST_SITES, aggregation.colluders + 2)  # two honest sites stay hidden in each other
    return Circle(
        sites=group,
        least_cohort=max(ceil(aggregation.quorum * len(group)), least),
        least_survivors=least,
        colluders=aggregation.colluders,
    )


def smallest_circle(study: Study, sites: Sequence[str]) -> int:
    """How many sites the smallest sum of a study may be of."""
    if study.aggregation.robust != "groups":
        return len(sites)
    return min(map(len, groups_of(study, sites)), default=0)


def check_groups(study: Study, sites: Sequence[str]) -> None:
    """Refuse a study by groups that has too few sites for them.

    Raises:
      PolicyError: fewer groups than its rule needs.
    """
    needed, size = groups_needed(study), study.aggregation.group_size
    if study.aggregation.robust == "groups" and group_count(study, sites=len(sites)) < needed:
        raise PolicyError(
            f"aggregation.robust groups: {len(sites)} sites make no {needed} groups of {size}",
            f"enrol at least {needed * size} sites, or choose another aggregation.robust",
        )


def groups_needed(study: Study) -> int:
    """How many groups must be left of a round: one more than twice the attackers, each of whom spoils at most one."""
    return 2 * study.aggregation.attackers + 1


def round_result(shape: RoundShape, parts: Mapping[str, Aggregate]) -> Aggregate:
    """One round's sums as one result, its groups as one update.

    Args:
      shape: of the round.
      parts: by name of the sum what it came to; a group without survivors is left out.

    Raises:
      PolicyError: too few groups, or sites in them, are left.
    """
    groups = {name: part for name, part in parts.items() if is_grouped(shape.study, name)}
    if not groups:
        return merge(parts.values())
    kept = [part for name, part in groups.items() if part.survivors[name]]
    return merge([*(part for name, part in parts.items() if name not in groups), _combined(shape, kept)])


def _combined(shape: RoundShape, groups: Sequence[Aggregate]) -> Aggregate:
    """The trimmed mean of the groups' means, in which every group counts once; rounded as a rule's result in the clear is."""
    aggregation = shape.study.aggregation
    survivors = sorted(site for group in groups for sites in group.survivors.values() for site in sites)
    if len(groups) < groups_needed(shape.study) or len(survivors) < aggregation.min_sites:
        raise PolicyError(
            f"{len(groups)} groups with {len(survivors)} sites are left, "
            f"{groups_needed(shape.study)} with {aggregation.min_sites} are needed",
            "bring the missing sites back and start the round again, or enrol more sites",
        )
    rows = np.stack([flatten(group.tensors).astype(np.float64) for group in groups])
    row = trimmed_mean(rows, attackers=aggregation.attackers)
    weights = [group.metrics["total_weight"] or 0.0 for group in groups if group.metrics]
    return Aggregate(
        tensors=unflatten(np.rint(row / GRID) * GRID, shape.model),
        metrics={"total_weight": sum(weights)} if weights else {},
        survivors={"update": tuple(survivors)},
    )


def given_up_key(plan: SumPlan, coordinator: str) -> str:
    """Where the coordinator says that it goes on without a group."""
    return sum_key(plan, "given-up", coordinator)


def left_out(name: str) -> Aggregate:
    """What a group's sum comes to that does not count: nothing, of nobody."""
    return Aggregate().with_survivors(name, ())


def give_up(board: Board, plan: SumPlan, coordinator: str) -> None:
    """Say, for sites that wait and for the replay, that a group's sum does not count: a list of nobody."""
    key, nobody = given_up_key(plan, coordinator), PhaseRoster(digests={})
    board.post(key, kind="roster", payload=nobody.to_bytes(), **address_of(plan))


def is_given_up(board: Reader, plan: SumPlan, coordinator: str) -> bool:
    """Whether the coordinator has said so."""
    key = given_up_key(plan, coordinator)
    if not board.exists(key):
        return False
    board.read(key, kind="roster", sender=coordinator, role="coordinator", **address_of(plan))
    return True
