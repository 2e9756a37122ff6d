"""What a report says of an `Evaluation`: the headline of every outcome, its subgroups, and files for MLflow."""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fedhealth.evaluation import Evaluation, Table, headline_metric, prefix_of
from fedhealth.reporting.evaluation_plots import calibration_svg, decision_svg, subgroups_svg
from fedhealth.reporting.report import SubgroupRow
from fedhealth.study.subgroups import SUBGROUPS
from fedhealth.study.targets import Target


class Headline(NamedTuple):
    """The metric by which models of an outcome are compared; None where too few people would show."""

    outcome: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


def headlines(evaluation: Evaluation, targets: tuple[Target, ...]) -> tuple[Headline, ...]:
    """Every target's headline metric with its 95% interval."""
    return tuple(_headline(evaluation, target, prefix_of(target, targets)) for target in targets)


def subgroup_rows(
    evaluation: Evaluation, targets: tuple[Target, ...], subgroupings: Sequence[str]
) -> tuple[SubgroupRow, ...]:
    """Every target's headline metric in every band of the subgroupings by which was judged."""
    rows = []
    for target in targets:
        for name in subgroupings:
            for band in SUBGROUPS[name]:
                prefix = f"{prefix_of(target, targets)}{name}={band}."
                n = evaluation.metrics.get(f"{prefix}n")
                told = _headline(evaluation, target, prefix)._asdict()
                rows.append(SubgroupRow(**told, subgrouping=name, band=band, n=None if n is None else int(n)))
    return tuple(rows)


def evaluation_files(
    evaluation: Evaluation, targets: tuple[Target, ...], subgroupings: Sequence[str]
) -> dict[str, bytes]:
    """Plots (SVG) and tables (JSON) of an evaluation by file name, to be kept with its run.

    Guarantees: the same evaluation gives the same bytes; nothing is in them that is not in ``evaluation``.
    """
    files = {f"{name}.json": _json(list(table)) for name, table in evaluation.tables.items()}
    for target in targets:
        prefix = prefix_of(target, targets)
        for name, draw in _PLOTS.items():
            if prefix + name in evaluation.tables:
                files[f"{prefix}{name}.svg"] = draw(evaluation.tables[prefix + name]).encode()
    rows = subgroup_rows(evaluation, targets, subgroupings)
    for target in targets:
        own = [row for row in rows if row.outcome == target.name]
        if own:
            files[f"{prefix_of(target, targets)}subgroups.svg"] = subgroups_svg(own).encode()
            files[f"{prefix_of(target, targets)}subgroups.json"] = _json([row.model_dump() for row in own])
    return files


_PLOTS: dict[str, Callable[[Table], str]] = {"calibration": calibration_svg, "decision_curve": decision_svg}


def _headline(evaluation: Evaluation, target: Target, prefix: str) -> Headline:
    metric = headline_metric(target)
    value, low, high = (evaluation.metrics.get(f"{prefix}{name}") for name in (metric, "low", "high"))
    return Headline(target.name, metric, value, low, high)


def _json(rows: Sequence[object]) -> bytes:
    return json.dumps(rows, indent=2, allow_nan=False).encode()
