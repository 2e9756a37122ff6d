"""How each kind of target is counted and judged: one module per kind, all with the same functions."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation import binary, classes, number, survival
from fedhealth.evaluation.cells import Counts, Figures, Table
from fedhealth.study.targets import Target, TargetKind

Floats = NDArray[np.floating]


class Judge(Protocol):
    """What a module that judges one kind of target has."""

    @property
    def HEADLINE(self) -> str:
        """The metric by which models are compared; ``low`` and ``high`` are its interval."""

    @property
    def BY_GROUP(self) -> tuple[str, ...]:
        """The metrics that are told of a subgroup."""

    @property
    def BINS(self) -> tuple[int, int]:
        """Bins of everybody's scores, and of a subgroup's."""

    def sides(self, labels: Floats) -> NDArray[np.int64]:
        """The side of each label; people are counted once on every side."""

    def length(self, target: Target, *, bins: int) -> int:
        """Length of the vector."""

    def encode(
        self, scores: Floats, labels: Floats, once: NDArray[np.bool_], *, target: Target, bins: int
    ) -> Counts:
        """One site's rows whose label is known, as a vector."""

    def metrics(self, vector: Counts, *, target: Target, bins: int, min_cell: int) -> Figures:
        """Metrics of a sum of vectors."""

    def tables(self, vector: Counts, *, target: Target, bins: int, min_cell: int) -> dict[str, Table]:
        """Tables of a sum of vectors."""

    def counted(self, vector: Counts, *, target: Target, bins: int) -> tuple[Counts, Counts]:
        """Rows, and people, of which the metrics tell, by side."""


JUDGES: dict[TargetKind, Judge] = {
    "binary": binary,
    "classes": classes,
    "number": number,
    "hazard": survival,
}
