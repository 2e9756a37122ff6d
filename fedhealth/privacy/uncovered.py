"""What a study computes from patients and lets leave a site without a charge to epsilon."""

from collections.abc import Iterator

from fedhealth.models.stepwise import STEPWISE
from fedhealth.study.spec import Study

_SHOWN_OF_UPDATES = {
    "plain": "the update of every site in every round, in the clear for coordinator and sites, its size weight with it",
    "plausibility": "64 projections or fewer of the update of every site in every round, in the clear for coordinator and sites",
    "groups": "the sum of the updates and weights of every group of 3 sites or more in every round, not of all sites alone",
}
"""By mode or robust rule of the aggregation, what it shows of one site's update."""


def not_covered(study: Study, *, shares_figures: bool) -> tuple[str, ...]:
    """The releases of a study outside its epsilon, each in one line; of what the study does not do there is no line.

    Args:
      study: of a run.
      shares_figures: whether some site's policy lets its own figures be seen.
    """
    return (
        *_of_model(study),
        *_of_preprocessing(study),
        *_of_evaluation(study, shares_figures=shares_figures),
        *_of_attendance(study),
        "differences between runs: of two runs with and without a site, the sums differ by that site's part",
        *_of_initial(study),
        *_of_aggregation(study),
    )


def _of_model(study: Study) -> Iterator[str]:
    if study.privacy.mode == "none":
        has_rule = study.aggregation.robust not in ("none", "plausibility")
        updates = "what the rule makes of the updates" if has_rule else "the sum of the updates"
        summed = "the sums by which the model grows" if study.model.kind in STEPWISE else updates
        yield f"{summed} in every round, and so the model: no noise at all (privacy none)"
    if (share := study.aggregation.sent_share) < 1.0:
        yield (
            f"what a site has not sent of its updates, as it sends a share of {share:g}: it remembers that in its own folder"
            " and adds it to later ones (error feedback)"
        )


def _of_preprocessing(study: Study) -> Iterator[str]:
    yield "moments and histograms of the features (round 0): exact secure sums, not noised"
    yield "class counts of the consortium (round 0): exact, used for one check and not published"
    if study.features.categories:
        yield "codes of categories (round 0): exact secure sums, published from 11 people on"
    if study.evaluation.compare_sites:
        yield "people per bin of the compared quantities (round 0): exact secure sums, published from 11 people on"


def _of_evaluation(study: Study, *, shares_figures: bool) -> Iterator[str]:
    last = ", by subgroup in the last" if study.evaluation.subgroups else ""
    yield f"evaluation counts of every round{last}: exact secure sums, metrics published from 11 people on"
    yield "differences between rounds: figures of a round are told to three decimals, without numbers of people"
    if shares_figures:
        yield "figures of a site whose policy shares them: to two decimals, from 11 people on"
    if study.training.fine_tune.epochs is not None:
        yield "evaluation counts of the models that sites tune for themselves: exact secure sums, likewise"


def _of_attendance(study: Study) -> Iterator[str]:
    yield "which sites abstain, and their reason codes"
    unlike = ", and in what it is unlike the others" if study.evaluation.compare_sites else ""
    yield f"which quality checks each site's data passed or failed{unlike}, by name"
    if study.privacy.mode != "none":
        yield "declared sizes: buckets in steps of the square root of two"
    yield (
        "consents of every round: how many patients are in and out, in buckets in steps of the square root of two, 0 below 11"
    )
    yield "attrition tables: each site's exact numbers of people, from 11 on"


def _of_initial(study: Study) -> Iterator[str]:
    """What a transferred model told already."""
    if (initial := study.training.initial.model) is not None:
        yield f"the initial model {initial}: its own epsilon comes on top"


def _of_aggregation(study: Study) -> Iterator[str]:
    """What a study's aggregation tells of one site's update, beside the mean."""
    aggregation = study.aggregation
    told = _SHOWN_OF_UPDATES.get(aggregation.mode) or _SHOWN_OF_UPDATES.get(aggregation.robust)
    if told is None:
        return
    if study.privacy.mode == "none":
        yield f"{told}: nothing is noised"
        return
    hidden = "only its group hides" if aggregation.robust == "groups" else "no sum hides"
    yield f"{told}: noised at the site, so epsilon covers it, but {hidden} whose it is"
