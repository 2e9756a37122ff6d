"""FLamby's Fed-Heart-Disease: the rows of the UCI files, its complete cases, its split and its 13 columns.

Source: Ogier du Terrail et al. 2022, FLamby, ``fed_heart_disease/dataset.py``; data Janosi et al. 1988, CC BY 4.0.
"""

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

HOSPITALS = {
    "cleveland": "cleveland",
    "hungarian": "hungary",
    "switzerland": "switzerland",
    "va": "long-beach",
}
"""By file, ``processed.<file>.data``: the hospital's name, in FLamby's order of centres."""

TRAIN_SHARE = 0.66
SPLIT_SEED = 43
CHEST_PAINS = (1, 2, 3, 4)
ECGS = (0, 1, 2)

Fold = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class HeartRow:
    """One person of a file in the file's own codes and units; None where it has a question mark.

    Slope, vessels and thallium scan are not read: FLamby drops them, and outside Cleveland they are rarely there.
    """

    age: int
    is_male: bool
    chest_pain: int | None
    systolic_bp: float | None
    cholesterol: float | None
    is_sugar_over_120: bool | None
    ecg: int | None
    max_heart_rate: float | None
    has_exercise_angina: bool | None
    st_depression: float | None
    is_diseased: bool

    @property
    def is_complete(self) -> bool:
        """Whether FLamby keeps it."""
        return None not in astuple(self)


def read_rows(path: Path) -> tuple[HeartRow, ...]:
    """Read a ``processed.*.data`` file.

    Raises:
      ValueError: a line has not 14 fields, or one that must be there is missing.
    """
    return tuple(_row(line) for line in path.read_text(encoding="ascii").splitlines() if line.strip())


def _row(line: str) -> HeartRow:
    fields = [None if each.strip() == "?" else float(each) for each in line.split(",")]
    if len(fields) != 14:
        raise ValueError("a line has not 14 fields")
    age, sex, pain, pressure, cholesterol, sugar, ecg, rate, angina, depression, *_, disease = fields
    if age is None or sex is None or disease is None:
        raise ValueError("age, sex or diagnosis is missing")
    return HeartRow(
        age=int(age),
        is_male=bool(sex),
        chest_pain=None if pain is None else int(pain),
        systolic_bp=pressure,
        cholesterol=cholesterol,
        is_sugar_over_120=None if sugar is None else bool(sugar),
        ecg=None if ecg is None else int(ecg),
        max_heart_rate=rate,
        has_exercise_angina=None if angina is None else bool(angina),
        st_depression=depression,
        is_diseased=disease > 0,
    )


def assign_folds(rows: tuple[HeartRow, ...]) -> tuple[Fold | None, ...]:
    """FLamby's fold of every complete row of one hospital, None for the others.

    Guarantees: a function of the order and the diagnoses of the complete rows. Stratified by diagnosis unless one
    of the two has at most 2 complete rows (Switzerland).
    """
    kept = [place for place, row in enumerate(rows) if row.is_complete]
    diseased = np.array([rows[place].is_diseased for place in kept])
    is_stratified = 2 < diseased.sum() < len(diseased) - 2
    _, test = train_test_split(
        np.array(kept),
        train_size=TRAIN_SHARE,
        test_size=1 - TRAIN_SHARE,
        random_state=SPLIT_SEED,
        stratify=diseased if is_stratified else None,
    )
    folds: list[Fold | None] = [None] * len(rows)
    for place in kept:
        folds[place] = "test" if place in test else "train"
    return tuple(folds)


@dataclass(frozen=True, slots=True)
class Arrays:
    """The complete rows of a hospital: FLamby's 13 columns in raw units, the diagnosis, the fold."""

    features: NDArray[np.float64]
    is_diseased: NDArray[np.bool_]
    is_test: NDArray[np.bool_]


def complete_arrays(rows: tuple[HeartRow, ...]) -> Arrays:
    """A hospital as FLamby has it; chest pain and ECG are one-hot without their first level."""
    kept = [(row, fold) for row, fold in zip(rows, assign_folds(rows), strict=True) if fold is not None]
    return Arrays(
        features=np.array([_columns(row) for row, _ in kept]),
        is_diseased=np.array([row.is_diseased for row, _ in kept]),
        is_test=np.array([fold == "test" for _, fold in kept]),
    )


def _columns(row: HeartRow) -> list[float]:
    numbers = (
        row.age,
        row.is_male,
        row.systolic_bp,
        row.cholesterol,
        row.is_sugar_over_120,
        row.max_heart_rate,
        row.has_exercise_angina,
        row.st_depression,
    )
    pains = [row.chest_pain == level for level in CHEST_PAINS[1:]]
    ecgs = [row.ecg == level for level in ECGS[1:]]
    return [float(each) for each in (*numbers, *pains, *ecgs) if each is not None]
