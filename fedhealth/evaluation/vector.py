"""Federated evaluation: one site's scored rows as one vector of integers, and what the sum of all sites' vectors says.

Layout: for every target, in the order of the study, its counts over all rows whose label is known; then, for every
subgrouping and every one of its bands, the same over the band's rows with fewer bins. Each part is laid out by the
module of the target's kind: `binary` (with `scores` and `bands`), `classes`, `number`, `survival`. Entries are counts
or fixed-point sums (2^30) of terms within [-1, 1]: 2^33 rows of all sites together fit a ring of 64 bits.

Whoever reads the sum can compute every figure; the vector itself is never stored. Everything that `decode_evaluation`
tells is of at least ``min_cell`` people, and so is every difference of what it tells of one target. What it does not
see is other releases: figures of single sites next to those of all, or of two outcomes of which one is not known for
a few people. A person who was at two sites counts at both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation.cells import Counts, Figures, Table, one_row_each, settle
from fedhealth.evaluation.judge import JUDGES
from fedhealth.privacy.people import MIN_CELL
from fedhealth.study.subgroups import SUBGROUPS
from fedhealth.study.targets import Target, output_slices

Floats = NDArray[np.floating]
_COLUMNS = {name: column for column, name in enumerate(SUBGROUPS)}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What may be told of a model; None where fewer than ``min_cell`` people would show.

    Attributes:
      metrics: by flat name: ``auroc`` with one target, ``death.auroc`` with several; of a subgroup
        ``sex=female.auroc`` or ``death.sex=female.auroc``; of a class ``home.auroc``.
      tables: by ``thresholds``, ``decision_curve``, ``calibration`` (a yes or no) or ``confusion`` (classes), with the
        same prefix.
    """

    metrics: Figures = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)


HEADLINES = frozenset(judge.HEADLINE for judge in JUDGES.values())
"""The headline metrics of all kinds of target."""


def headline_metric(target: Target) -> str:
    """The metric by which models of a target are compared; ``low`` and ``high`` are its interval."""
    return JUDGES[target.kind].HEADLINE


def prefix_of(target: Target, targets: tuple[Target, ...]) -> str:
    """What stands before a target's names in an `Evaluation`: nothing if it is the only one."""
    return f"{target.name}." if len(targets) > 1 else ""


def evaluation_length(targets: tuple[Target, ...], subgroupings: tuple[str, ...]) -> int:
    """Length of the vector that `encode_evaluation` gives."""
    return sum(sum(_lengths(target, subgroupings)) for target in targets)


def encode_evaluation(
    scores: Floats,
    labels: Floats,
    person: NDArray[np.int64],
    groups: NDArray[np.integer],
    targets: tuple[Target, ...],
    subgroupings: tuple[str, ...],
) -> Counts:
    """Encode one site's scored test rows for a secure sum.

    Args:
      scores: (rows, outputs) as `fedhealth.models.networks.predict` gives them.
      labels: (rows, targets) as `fedhealth.study.targets` writes them; a row counts for the targets that it knows.
      person: (rows,), keyed ids.
      groups: (rows, subgroupings), numbers of bands in the order of `fedhealth.study.subgroups`; -1 is in none.
        Not looked at without ``subgroupings``.
      targets: of the study.
      subgroupings: names of those by which is judged; may be empty.

    Returns:
      int64 of `evaluation_length`. Zero rows give zeros.

    Raises:
      ValueError: shapes differ, or a score or a label is out of range.
    """
    outputs = output_slices(targets)
    if scores.shape != (len(labels), outputs[-1].stop) or labels.shape != (len(person), len(targets)):
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} do not fit the targets")
    if subgroupings and groups.shape != (len(labels), len(SUBGROUPS)):
        raise ValueError(
            f"groups {groups.shape} do not fit {len(labels)} rows of {len(SUBGROUPS)} subgroupings"
        )
    bands = [(groups[:, _COLUMNS[name]], len(SUBGROUPS[name])) for name in subgroupings]
    parts = []
    for column, (target, place) in enumerate(zip(targets, outputs, strict=True)):
        known = ~np.isnan(labels[:, column])
        of_group = [band[known] == number for band, size in bands for number in range(size)]
        parts += _encode(scores[known, place], labels[known, column], person[known], of_group, target)
    return np.concatenate(parts)


def decode_evaluation(
    vector: Counts,
    targets: tuple[Target, ...],
    subgroupings: tuple[str, ...],
    *,
    min_cell: int = MIN_CELL,
) -> Evaluation:
    """What a sum of vectors, or one site's own, says of the model.

    Guarantees: every figure, and every difference of figures of one target, is of at least ``min_cell`` people (of a
    yes or no: with and without the outcome). A subgroup that is smaller is None throughout; where those of a
    subgrouping who are in no told band are fewer, the smallest told band is hidden with them.

    Raises:
      ValueError: the vector has another length or a negative count.
    """
    if vector.shape != (evaluation_length(targets, subgroupings),):
        raise ValueError(f"a sum of shape {vector.shape} is not one of these targets and subgroupings")
    lengths = [length for target in targets for length in _lengths(target, subgroupings)]
    parts = iter(np.split(vector, np.cumsum(lengths)[:-1]))
    metrics: dict[str, float | None] = {}
    tables: dict[str, Table] = {}
    for target in targets:
        judge, prefix, whole = JUDGES[target.kind], prefix_of(target, targets), next(parts)
        bins, cell = judge.BINS[0], max(min_cell, 1)
        figures = dict(judge.metrics(whole, target=target, bins=bins, min_cell=cell))
        for name in subgroupings:
            bands = [next(parts) for _ in SUBGROUPS[name]]
            figures |= _of_bands(name, bands, whole, target=target, min_cell=cell)
        metrics |= {prefix + name: value for name, value in figures.items()}
        found = judge.tables(whole, target=target, bins=bins, min_cell=cell)
        tables |= {prefix + name: table for name, table in found.items()}
    return Evaluation(metrics=metrics, tables=tables)


def _lengths(target: Target, subgroupings: tuple[str, ...]) -> tuple[int, ...]:
    """Lengths of a target's parts: of everybody, and of the bands of every subgrouping."""
    judge = JUDGES[target.kind]
    whole, group = (judge.length(target, bins=bins) for bins in judge.BINS)
    return whole, *(group for name in subgroupings for _ in SUBGROUPS[name])


def _encode(
    scores: Floats, labels: Floats, person: NDArray[np.int64], groups: list[NDArray[np.bool_]], target: Target
) -> list[Counts]:
    """A target's parts, over rows whose label is known."""
    judge = JUDGES[target.kind]
    once = one_row_each(person, judge.sides(labels))
    everybody = np.ones(len(labels), dtype=np.bool_)
    fine, coarse = judge.BINS
    return [
        judge.encode(scores[which], labels[which], once[which], target=target, bins=bins)
        for which, bins in [(everybody, fine), *((group, coarse) for group in groups)]
    ]


def _of_bands(
    subgrouping: str, parts: list[Counts], whole: Counts, *, target: Target, min_cell: int
) -> dict[str, float | None]:
    """The metrics of a subgrouping's bands, None of those that are too small or would give away what is left."""
    judge = JUDGES[target.kind]
    fine, coarse = judge.BINS
    counted = [judge.counted(part, target=target, bins=coarse) for part in parts]
    rows, people = (np.array(each) for each in zip(*counted, strict=True))
    everybody = judge.counted(whole, target=target, bins=fine)
    large = np.asarray((people >= min_cell).all(axis=1))
    shown = settle(large, rows, people, whole=everybody, min_cell=min_cell)
    figures: dict[str, float | None] = {}
    for band, part, is_shown in zip(SUBGROUPS[subgrouping], parts, shown, strict=True):
        found = judge.metrics(part, target=target, bins=coarse, min_cell=min_cell) if is_shown else {}
        figures |= {f"{subgrouping}={band}.{key}": found.get(key) for key in judge.BY_GROUP}
    return figures
