"""Counts of scores between public thresholds, and the tables that come of them.

Scores fall into bands between the `THRESHOLDS`. All tables, the calibration error and the accuracy are made of one
set of cells, each a run of bands of at least 11 people with the outcome and 11 without, so that nothing smaller
can be had by taking one figure from another. Layout, with K bands:

    [negatives (K) | positives (K) | people at their negatives (K) | at their positives (K) | sum of scores (K)]

Counts are of rows, people are the marked rows of `one_row_each`, sums are fixed-point.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedhealth.evaluation.cells import SCALE, Counts, Table, cuts_between, fixed_point

# fmt: off
THRESHOLDS = (
    0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9,
)
# fmt: on
"""A score is flagged at a threshold that it reaches."""
BANDS = len(THRESHOLDS) + 1
TENTHS = tuple(cut for cut in range(1, BANDS) if round(THRESHOLDS[cut - 1] * 100) % 10 == 0)
"""The cuts, as numbers of the band after them, at 0.1, 0.2 ... 0.9."""
HALF = THRESHOLDS.index(0.5) + 1
_ORDER = (
    HALF,
    *(cut for cut in TENTHS if cut != HALF),
    *(cut for cut in range(1, BANDS) if cut not in TENTHS),
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bands:
    """Rows and people per band, ``(2, BANDS)`` for negatives and positives, and the sum of scores per band."""

    rows: Counts
    people: Counts
    scores: FloatArray

    @property
    def n(self) -> int:
        """Rows scored."""
        return int(self.rows.sum())

    def cuts(self, min_cell: int) -> tuple[int, ...]:
        """The cuts between cells that may be told; 0.5 is tried first, then tenths, then the rest."""
        return cuts_between(self.people, order=_ORDER, min_cell=min_cell)


def bands_length() -> int:
    """Length of the vector that `encode_bands` gives."""
    return 5 * BANDS


def encode_bands(probability: FloatArray, positive: NDArray[np.bool_], once: NDArray[np.bool_]) -> Counts:
    """Count scores by band; ``once`` marks one row of every person with and one without the outcome."""
    band = np.searchsorted(THRESHOLDS, probability, side="right")
    chosen = (~positive, positive, ~positive & once, positive & once)
    counts = [np.bincount(band[which], minlength=BANDS).astype(np.int64) for which in chosen]
    sums = np.bincount(band, weights=probability, minlength=BANDS).astype(np.float64)
    return np.concatenate([*counts, fixed_point(sums)])


def decode_bands(part: Counts) -> Bands:
    """Read what `encode_bands` laid out, of one site or summed over sites."""
    rows, people = part[: 4 * BANDS].reshape(2, 2, BANDS)
    return Bands(rows=rows, people=people, scores=part[4 * BANDS :] / SCALE)


def calibration_error(bands: Bands, cuts: tuple[int, ...]) -> float:
    """Expected calibration error over tenths of probability; tenths that may not be told are one with a neighbour."""
    residuals = bands.scores - bands.rows[1]
    return sum(abs(float(residuals[low:high].sum())) for low, high in _tenths(cuts)) / bands.n


def accuracy(bands: Bands, cuts: tuple[int, ...]) -> float | None:
    """Share of rows that lie on their side of 0.5; None where a side of 0.5 may not be told."""
    if HALF not in cuts:
        return None
    negatives, positives = bands.rows
    return int(negatives[:HALF].sum() + positives[HALF:].sum()) / bands.n


def threshold_table(bands: Bands, cuts: tuple[int, ...]) -> Table:
    """By threshold: sensitivity, specificity, PPV, NPV and the share that is flagged; None where it may not be told."""
    return tuple(_at_threshold(bands, cut, is_shown=cut in cuts) for cut in range(1, BANDS))


def decision_curve(bands: Bands, cuts: tuple[int, ...]) -> Table:
    """By threshold: net benefit per row of flagging by the model, of flagging all, and of flagging none.

    Source: Vickers and Elkin 2006.
    """
    negatives, positives = bands.rows
    rows = []
    for cut in range(1, BANDS):
        threshold = THRESHOLDS[cut - 1]
        odds = threshold / (1.0 - threshold)
        gained = (float(positives[low:].sum() - odds * negatives[low:].sum()) / bands.n for low in (cut, 0))
        model, everybody = gained
        shown = model if cut in cuts else None
        rows.append({"threshold": threshold, "model": shown, "all": everybody, "none": 0.0})
    return tuple(rows)


def calibration_table(bands: Bands, cuts: tuple[int, ...]) -> Table:
    """Mean score and observed rate by tenth of probability; tenths that may not be told are one with a neighbour."""
    ends = (0.0, *THRESHOLDS, 1.0)
    rows = []
    for low, high in _tenths(cuts):
        n = int(bands.rows[:, low:high].sum())
        rows.append(
            {
                "from": ends[low],
                "to": ends[high],
                "n": n,
                "mean_score": float(bands.scores[low:high].sum()) / n,
                "observed": int(bands.rows[1, low:high].sum()) / n,
            }
        )
    return tuple(rows)


def _tenths(cuts: tuple[int, ...]) -> list[tuple[int, int]]:
    """The cells between those cuts that are tenths."""
    return list(pairwise(cut for cut in cuts if cut in (0, *TENTHS, BANDS)))


def _at_threshold(bands: Bands, cut: int, *, is_shown: bool) -> dict[str, float | str | None]:
    names = ("sensitivity", "specificity", "ppv", "npv", "flagged")
    row: dict[str, float | str | None] = {"threshold": THRESHOLDS[cut - 1]}
    if not is_shown:
        return row | dict.fromkeys(names)
    (tn, fn), (fp, tp) = (bands.rows[:, part].sum(axis=1) for part in (slice(cut), slice(cut, None)))
    values = (tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn), (tp + fp) / bands.n)
    return row | dict(zip(names, map(float, values), strict=True))
