"""The codes that categories have anywhere in the consortium, by one secure sum in a 64-bit ring.

No code leaves a site but in that sum. A site puts each code of a category into `PLACES` of 256 cells, which a public
hash of the code names:

    cell   [rows | people | sites | 24 chunks of the code, times people | 4 checks of the code, times people]
    vector [rows, people | for each category: people without a code, 256 cells]

A cell of the sum that holds one code alone gives it back as chunks / people, and its checks prove it. Taken out of its
other cells it may leave one code alone there, and so on (an invertible Bloom lookup table): of 1,000 random sets of 100
codes all were told apart, of 150 codes 994. Codes that are not told apart are dropped, and so is every code of fewer than
11 people, or at fewer sites than a sum of updates must be over (3 or more, `aggregation.min_sites`); whoever was at two
sites counts at both. The sum is opened to the coordinator, who therefore could read the other codes; what is posted, and what a
model knows, are these.

Why as many sites as that: the weights of a code's own flag move by the rows that have it, so their part of the mean update is in
essence a sum over the sites that have the code. Of one site it would be that site's update, and of two each would know the
other's; the least cohort is what the study takes to be enough for a sum, and the same holds here.

No entry leaves the ring: a chunk or check is below 2^32; a site counts at most 2^25 pairs of person and code (10^6
people with 33 codes each), else it refuses; so 40 sites come to less than 40 * 2^25 * 2^32 < 2^63.

Source: Goodrich and Mitzenmacher 2011, Invertible Bloom Lookup Tables.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedhealth.privacy.people import MIN_CELL, count_people
from fedhealth.study.columns import Vocabulary
from fedhealth.study.spec import Study

CELLS = 256
PLACES = 3
CODE_BYTES = 96
"""The longest code, in UTF-8; a longer one is told as `OTHER`."""
OTHER = "other"
MAX_PAIRS = 2**25
"""Pairs of person and code that a site may count in one category."""
MIN_SITES = 3
"""The fewest sites of a code that is told, in any study."""

_CHUNKS, _CHECKS = CODE_BYTES // 4, 4
_COUNTS = 3
_LANES = _COUNTS + _CHUNKS + _CHECKS
_CATEGORY = 1 + CELLS * _LANES


@dataclass(frozen=True, slots=True)
class LevelCounts:
    """Training rows of the whole consortium, and those with each code of the vocabulary, in its order.

    None instead of a number that would tell of fewer than 11 people: of those who have the code, or of those who have
    another one or none.
    """

    rows: int
    levels: Mapping[str, tuple[int | None, ...]]


class _Held(NamedTuple):
    """How many have a code: the first lanes of a cell."""

    rows: int
    people: int
    sites: int


def told_as(code: str) -> str:
    """The form of a site's code in a vocabulary: the code, or `OTHER` for one too long or with a NUL in it."""
    return code if 0 < len(code.encode()) <= CODE_BYTES and "\0" not in code else OTHER


def vocabulary_length(study: Study) -> int:
    """Length of the vector that `encode_vocabulary` gives."""
    return 2 + len(study.features.categories) * _CATEGORY


def encode_vocabulary(
    levels: NDArray[np.int32], level_names: Sequence[Sequence[str]], person: NDArray[np.int64], study: Study
) -> NDArray[np.int64]:
    """Encode one site's training rows for a secure sum.

    Args:
      levels: (rows, categories), numbers in ``level_names``, -1 where missing.
      level_names: per category, the site's codes.
      person: (rows,), the patient of each row.
      study: names the categories.

    Returns:
      int64 of `vocabulary_length`, no entry negative. Zero rows give zeros.

    Raises:
      ValueError: shapes do not fit, or more than `MAX_PAIRS` people and codes.
    """
    categories = study.features.categories
    if levels.shape != (len(person), len(categories)) or len(level_names) != len(categories):
        raise ValueError(f"levels {levels.shape} do not fit {len(person)} rows, {len(categories)} categories")
    parts = [np.array([len(person), len(np.unique(person))], dtype=np.int64)]
    for place, category in enumerate(categories):
        parts.append(_encode(levels[:, place], level_names[place], person, category.name))
    return np.concatenate(parts)


def decode_vocabulary(
    sum_vector: NDArray[np.int64], study: Study, *, min_cell: int = MIN_CELL, min_sites: int = MIN_SITES
) -> tuple[Vocabulary, LevelCounts]:
    """Decode the sum of all sites' vectors.

    Guarantees, for a sum of honest vectors: the vocabulary has codes of at least ``min_cell`` people and ``min_sites`` sites
    only, and all of those that can be told apart; none is read wrongly, but with probability 2^-128; counts are exact.

    Returns:
      By category the sorted codes, empty where no code is told; and the counts of their rows.

    Raises:
      ValueError: the vector has another length.
    """
    if sum_vector.shape != (vocabulary_length(study),):
        raise ValueError(f"a sum of shape {sum_vector.shape} does not fit the study's categories")
    rows, vocabulary, counts = int(sum_vector[0]), {}, {}
    blocks = sum_vector[2:].reshape(len(study.features.categories), _CATEGORY)
    for category, block in zip(study.features.categories, blocks, strict=True):
        found = _peel(block[1:].reshape(CELLS, _LANES), category.name)
        told = sorted(
            code for code, held in found.items() if held.people >= min_cell and held.sites >= min_sites
        )
        shown = _shown(found, told, rows=rows, without=int(block[0]), min_cell=min_cell)
        vocabulary[category.name] = tuple(told)
        counts[category.name] = tuple(found[code].rows if code in shown else None for code in told)
    return vocabulary, LevelCounts(rows=rows, levels=counts)


def _encode(
    levels: NDArray[np.int32], names: Sequence[str], person: NDArray[np.int64], category: str
) -> NDArray[np.int64]:
    told = [told_as(name) for name in names]
    codes = sorted(set(told))
    number = np.array([codes.index(code) for code in told] + [-1], dtype=np.int64)
    marked = number[levels][:, None] == np.arange(
        -1, len(codes)
    )  # the first column is of rows without a code
    rows, people = marked.sum(axis=0), count_people(marked, person)
    if int(people[1:].sum()) > MAX_PAIRS:
        raise ValueError("too many people and codes for one secure sum")
    cells = np.zeros((CELLS, _LANES), dtype=np.int64)
    for code, n_rows, n_people in zip(codes, rows[1:], people[1:], strict=True):
        if n_people:
            added = _contribution(category, code, _Held(int(n_rows), int(n_people), sites=1))
            cells[list(_places(category, code))] += added.astype(np.int64)
    return np.concatenate([people[:1], cells.ravel()])


def _peel(cells: NDArray[np.int64], category: str) -> dict[str, _Held]:
    """Counts of every code that can be told apart, those of few people or sites too."""
    left = cells.astype(object)  # of a falsified sum, products may exceed 64 bits
    found: dict[str, _Held] = {}
    waiting = list(range(CELLS))
    while waiting:
        place = waiting.pop()
        code = _single(left[place], category)
        if code is None or code in found or place not in _places(category, code):
            continue
        found[code] = _held(left[place])
        for each in _places(category, code):
            left[each] = left[each] - _contribution(category, code, found[code])
            waiting.append(each)
    return found


def _single(cell: NDArray[np.object_], category: str) -> str | None:
    """The one code that a cell holds; None if it holds none or several."""
    held, chunks = _held(cell), cell[_COUNTS : _COUNTS + _CHUNKS].tolist()
    if not 0 < held.sites <= held.people <= held.rows:
        return None
    if any(each % held.people or not 0 <= each // held.people < 2**32 for each in chunks):
        return None
    data = b"".join((each // held.people).to_bytes(4, "big") for each in chunks).rstrip(b"\0")
    try:
        code = data.decode()
    except UnicodeDecodeError:
        return None
    is_proven = told_as(code) == code and (cell == _contribution(category, code, held)).all()
    return code if is_proven else None


def _held(cell: NDArray[np.object_]) -> _Held:
    """The counts of a cell that holds one code."""
    return _Held(*(int(each) for each in cell[:_COUNTS]))


def _contribution(category: str, code: str, held: _Held) -> NDArray[np.object_]:
    """What a code adds to each of its cells."""
    return np.array([*held, *(held.people * lane for lane in _lanes(category, code))], dtype=object)


def _lanes(category: str, code: str) -> tuple[int, ...]:
    """The code's chunks and its checks, each below 2^32."""
    data = code.encode().ljust(CODE_BYTES, b"\0") + _hash(category, code)[16:]
    return tuple(int.from_bytes(data[start : start + 4], "big") for start in range(0, len(data), 4))


def _places(category: str, code: str) -> tuple[int, ...]:
    """The cells of a code: the first different bytes of its hash."""
    return tuple(dict.fromkeys(_hash(category, code)[:16]))[:PLACES]


def _hash(category: str, code: str) -> bytes:
    return hashlib.sha256(f"{category}|{code}".encode()).digest()


def _shown(
    found: Mapping[str, _Held], told: Sequence[str], *, rows: int, without: int, min_cell: int
) -> set[str]:
    """The told codes whose rows may be told as well.

    The rows of all others follow from those of a code, and the rows of whoever is not told of from those of all codes:
    so each of the two must be rows of enough people, or of nobody in the latter case.
    """

    def others(codes: set[str]) -> Iterator[int]:
        yield without
        yield from (held.people for code, held in found.items() if code not in codes)

    shown = {code for code in told if max(others({code})) >= min_cell}
    is_all = rows == sum(found[code].rows for code in shown)
    if shown and not is_all and max(others(shown)) < min_cell:
        shown.remove(min(shown, key=lambda code: (found[code].people, code)))
    return shown
