"""The bands of `fedhealth.study.subgroups` to which every row belongs; no feature, only what a model is judged by."""

from itertools import pairwise

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.features.tables import as_array
from fedhealth.features.value_sets import RACE_OTHER
from fedhealth.study.subgroups import AGE_BANDS, SUBGROUPS
from fedhealth.vocabulary.concepts import GENDER_FEMALE, GENDER_MALE, RACES

_ADULT = 18
_OLDEST = 200

_RACES = {
    "american_indian": RACES["1002-5"],
    "asian": RACES["2028-9"],
    "black": RACES["2054-5"],
    "pacific_islander": RACES["2076-8"],
    "white": RACES["2106-3"],
    "other": RACE_OTHER,
}


def _concepts(column: str, of_band: dict[str, int], bands: tuple[str, ...]) -> str:
    cases = " ".join(f"WHEN {of_band[band]} THEN {number}" for number, band in enumerate(bands))
    return f"CASE {column} {cases} ELSE -1 END"


def _ages() -> str:
    bounds = enumerate(pairwise((_ADULT, *AGE_BANDS, _OLDEST)))
    cases = " ".join(f"WHEN age >= {low} AND age < {high} THEN {number}" for number, (low, high) in bounds)
    return f"CASE {cases} ELSE -1 END"


_BANDS = {
    "sex": _concepts("gender_concept_id", {"female": GENDER_FEMALE, "male": GENDER_MALE}, SUBGROUPS["sex"]),
    "age_band": _ages(),
    "race": _concepts("race_concept_id", _RACES, SUBGROUPS["race"]),
}
"""SQL over ``index_stay`` for the number of the band, by subgrouping."""


def groups_of(database: duckdb.DuckDBPyConnection) -> NDArray[np.int8]:
    """The bands of every row; needs ``index_stay``.

    Returns:
      int8, shape (rows, subgroupings), in the order of `SUBGROUPS`; -1 where unknown or in none of the bands.
    """
    columns = ", ".join(f"({_BANDS[name]})::BIGINT AS {name}" for name in SUBGROUPS)
    found = database.execute(f"SELECT {columns} FROM index_stay ORDER BY row_id").fetchnumpy()
    return np.stack([as_array(found[name], np.int64) for name in SUBGROUPS], axis=1).astype(np.int8)
