"""The report of one study of an embedded run, from what the coordinator told and the references reached."""

import json
from collections.abc import Iterable
from typing import Any, Literal

from fedhealth.embedded.study_result import StudyResult
from fedhealth.evaluation import Evaluation, headline_metric, prefix_of
from fedhealth.reporting import StudyReport
from fedhealth.reporting.evaluated import headlines, subgroup_rows
from fedhealth.reporting.report import (
    Combining,
    ComparisonRow,
    Log,
    ModelName,
    Privacy,
    RegisteredModel,
    RoundFigures,
    SiteQuality,
    SiteState,
    Trial,
)
from fedhealth.study import Study
from fedhealth.study.outcomes import Death, Readmission
from fedhealth.study.targets import Target, targets_of


def study_report(
    result: StudyResult,
    seconds: dict[str, float],
    bounds: dict[str, float | None],
    combined: Combining | None,
) -> StudyReport:
    """Everything that a reader may know of a study.

    Args:
      result: of the study.
      seconds: by stage, of the whole run.
      bounds: the generator's upper bound of AUROC by kind of outcome, of synthetic hospitals alone.
      combined: how the updates became one; None where the exchange does not tell.
    """
    study, told = Study.from_canonical(result.study), json.loads(result.coordinator)
    targets = targets_of(study)
    evaluation = Evaluation(metrics=told["metrics"], tables=told["tables"])
    sent = sorted(size for each in told["rounds"] for size in each["upload_bytes"].values() if size)
    return StudyReport(
        study=study.name,
        title=study.title,
        outcome=study.outcome_name,
        outcomes=tuple(target.name for target in targets) if len(targets) > 1 else (),
        study_digest=study.digest,
        run=told["run"],
        sites=tuple(_site_state(name, state, result.states) for name, state in told["sites"].items()),
        rounds=max(0, len(told["rounds"]) - 2),
        rounds_planned=study.training.rounds,
        rounds_figures=tuple(_round(each, targets) for each in told["rounds"][1:]),
        trials=tuple(Trial(**each) for each in told["trials"]),
        comparison=tuple(_comparison(result, study, evaluation, bounds)),
        metrics=told["metrics"],
        tables={name: tuple(rows) for name, rows in told["tables"].items()},
        subgroups=subgroup_rows(evaluation, targets, study.evaluation.subgroups),
        site_figures=told["figures"],
        local_models=result.local_models,
        combining=combined,
        privacy=Privacy(**{**told["privacy"], "not_covered": tuple(told["privacy"]["not_covered"])}),
        upload_bytes_per_site_round=int(sent[len(sent) // 2]) if sent else 0,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        model=RegisteredModel(**told["model"]),
        log=Log(
            size=result.verified["size"],
            root=result.verified["root"],
            verified=result.verified["ok"],
            cosigners=tuple(result.verified["cosigners"]),
        ),
        attrition={site: tuple(steps) for site, steps in result.attrition.items()},
        quality={site: _quality(each) for site, each in told["quality"].items()},
        missing_features=tuple(told["missing_columns"]),
        notes=_notes(study),
    )


def _comparison(
    result: StudyResult, study: Study, evaluation: Evaluation, bounds: dict[str, float | None]
) -> Iterable[ComparisonRow]:
    """References, the study's own model, the models that sites tuned for themselves, and the upper bound."""
    is_private, targets = study.privacy.mode != "none", targets_of(study)
    for row in result.references:
        if is_private or row["model"] != "federated":
            yield ComparisonRow(**row, is_reference=True)
    is_personal = bool(study.training.personal) or study.training.algorithm == "fedbn"
    own: ModelName = "federated_dp" if is_private else "federated"
    yield from _own(evaluation, targets, "personalised" if is_personal else own)
    tuned = {
        name.removeprefix("personalised."): value
        for name, value in evaluation.metrics.items()
        if name.startswith("personalised.")
    }
    if tuned and not is_personal:
        yield from _own(Evaluation(metrics=tuned), targets, "personalised")
    for target in targets:
        upper = bounds.get(study.outcomes[target.name].kind) if _is_bounded(study, target) else None
        if upper:
            yield _row(target, "upper_bound", upper, None, None, is_reference=True)


def _is_bounded(study: Study, target: Target) -> bool:
    """Whether the generator's own probabilities are of this outcome: readmission in 30 days, death in the stay."""
    outcome = study.outcomes[target.name]
    return (isinstance(outcome, Readmission) and outcome.within_days == 30) or (
        isinstance(outcome, Death) and outcome.within == "stay"
    )


def _own(evaluation: Evaluation, targets: tuple[Target, ...], model: ModelName) -> Iterable[ComparisonRow]:
    for target, told in zip(targets, headlines(evaluation, targets), strict=True):
        yield _row(target, model, told.value, told.low, told.high, is_reference=False)


def _row(
    target: Target,
    model: ModelName,
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    is_reference: bool,
) -> ComparisonRow:
    return ComparisonRow(
        outcome=target.name,
        model=model,
        metric=headline_metric(target),
        value=value,
        low=low,
        high=high,
        is_reference=is_reference,
    )


def _round(each: dict[str, Any], targets: tuple[Target, ...]) -> RoundFigures:
    survivors = min((len(sites) for sites in each["survivors"].values()), default=0)
    names = {target.name: prefix_of(target, targets) + headline_metric(target) for target in targets}
    return RoundFigures(
        round=each["round"],
        auroc=each["metrics"].get("auroc"),
        figures={outcome: each["metrics"].get(name) for outcome, name in names.items()},
        sites=survivors,
        seconds=round(each["seconds"], 3),
    )


def _site_state(name: str, state: str, failed: dict[str, str]) -> SiteState:
    if name in failed:
        return SiteState(name=name, state="failed", reason=failed[name])
    word, _, reason = state.partition(": ")
    words: dict[str, Literal["trained", "abstained", "no answer"]] = {
        "trained": "trained",
        "abstained": "abstained",
    }
    return SiteState(name=name, state=words.get(word, "no answer"), reason=reason or None)


def _quality(told: dict[str, Any]) -> SiteQuality:
    return SiteQuality(
        passed=sum(told["passed"].values()),
        failed=tuple(told["failed_checks"]),
        drift=tuple(sorted(told["drift"])),
    )


def _notes(study: Study) -> tuple[str, ...]:
    notes = ["embedded run: all keys were made in the working directory, none by a certificate authority"]
    if any(outcome.kind == "readmission" for outcome in study.outcomes.values()):
        notes.append("readmissions are those to the same site")
    if study.validation > 0.0:
        notes.append(
            "rounds before the last are scored on the validation fold, the last one on the test fold, by which nothing was chosen"
        )
    elif study.training.search.lr or study.training.early_stopping.patience is not None:
        notes.append(
            "the learning rate or the last round was chosen by figures of the test rows, so theirs are somewhat too good"
        )
    if study.features.standardise == "site":
        notes.append(
            "figures are of models that each site scales by its own moments; the registered one has the consortium's"
        )
    return tuple(notes)
