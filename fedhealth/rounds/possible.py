"""Whether so many enrolled sites can carry a study out at all: known before any of them has begun to work.

What depends on the sites' data shows later. So does the size of a model whose study has categories: their codes are known
after round 0, and a network that is then too small for ``robust: plausibility`` is refused in round 1.
"""

from collections.abc import Collection, Sequence
from itertools import count

from fedhealth.aggregation.update import update_length
from fedhealth.errors import PolicyError
from fedhealth.rounds.groups import LEAST_SITES, check_groups, groups_needed, groups_of, smallest_circle
from fedhealth.rounds.layout import has_lane
from fedhealth.secagg.plan import colluders_withstood
from fedhealth.secagg.rlwe import MAX_SITES
from fedhealth.secagg.sketch import directions_for
from fedhealth.study.columns import feature_columns
from fedhealth.study.policy import allowances
from fedhealth.study.spec import Study


def check_possible(study: Study, sites: Sequence[str]) -> None:
    """Refuse a study that cannot come to a model even if all enrolled sites take part in every round.

    Args:
      study: the study.
      sites: all that are enrolled.

    Raises:
      ConfigError: a pattern of parameters is that of none.
      PolicyError: there are too few or too many sites, or the network is too small, for how the study aggregates.
    """
    _check_count(study, len(sites))
    _check_colluders(study, len(sites))
    check_groups(study, sites)
    if study.aggregation.robust == "groups":
        _check_colluders_of_groups(study, sites)
    _check_network(study)


def fix_of_quorum(study: Study, sites: Sequence[str], *, ready: int, reasons: Collection[str]) -> str:
    """What to do where fewer sites are ready than a study needs.

    Args:
      study: of the round.
      sites: all that are enrolled.
      ready: how many are.
      reasons: the codes with which others abstain.
    """
    if "policy" in reasons:
        needed = allowances(study, n_sites=smallest_circle(study, sites))
        return f"what refuses a study is in that site's log; its policy.yaml must allow for this one {needed}"
    look, aggregation = "see the reasons in the sites' logs", study.aggregation
    if ready < LEAST_SITES:
        return f"{look}; no sum is over fewer than {LEAST_SITES} sites"
    if aggregation.min_sites > ready:
        return f"{look}, or lower aggregation.min_sites to at most {ready} in the study"
    return f"{look}, or lower aggregation.quorum in the study"


def _check_count(study: Study, enrolled: int) -> None:
    least = study.aggregation.min_sites
    if enrolled < LEAST_SITES:
        raise PolicyError(
            f"only {enrolled} sites: a sum over fewer than {LEAST_SITES} would show a site's own numbers",
            "add sites",
        )
    if least > enrolled:
        raise PolicyError(
            f"aggregation.min_sites is {least}, and {enrolled} sites are enrolled",
            f"enrol {least - enrolled} more, or lower aggregation.min_sites to at most {enrolled}",
        )
    if study.aggregation.mode == "he" and enrolled > MAX_SITES:
        raise PolicyError(
            f"aggregation.mode he: a sum over more than {MAX_SITES} sites would not be exact",
            "set aggregation.mode to masks",
        )


def _check_colluders(study: Study, enrolled: int) -> None:
    asked, withstood = study.aggregation.colluders, colluders_withstood(enrolled)
    if asked > withstood:
        enough = next(more for more in count(enrolled) if colluders_withstood(more) >= asked)
        raise PolicyError(
            f"{enrolled} enrolled sites withstand {withstood} colluders, and aggregation.colluders is {asked}",
            f"lower aggregation.colluders to at most {withstood}, or enrol {enough} sites",
        )


def _check_colluders_of_groups(study: Study, sites: Sequence[str]) -> None:
    """A group withstands what its size does: four sites fewer colluders than three."""
    withstood = [colluders_withstood(len(group)) for group in groups_of(study, sites)]
    able = sum(each >= study.aggregation.colluders for each in withstood)
    if able < groups_needed(study):
        raise PolicyError(
            f"aggregation.robust groups: {able} of {len(withstood)} groups withstand "
            f"{study.aggregation.colluders} colluders, {groups_needed(study)} are needed",
            f"lower aggregation.colluders to at most {min(withstood)}, or set another aggregation.group_size",
        )


def _check_network(study: Study) -> None:
    """What only the network's parameters tell; it is built for the few studies that ask for it."""
    is_judged = study.aggregation.robust == "plausibility"
    if not (is_judged or study.training.personal or study.training.initial.freeze):
        return
    from fedhealth.models.networks import initial_weights  # imports torch
    from fedhealth.models.personal import split_personal
    from fedhealth.rounds.progress import check_patterns

    check_patterns(study)
    if is_judged and not study.features.categories:
        whole = initial_weights(study, inputs=len(feature_columns(study)), seed=0)
        directions_for(update_length(split_personal(whole, study)[0], lane=has_lane(study)))
