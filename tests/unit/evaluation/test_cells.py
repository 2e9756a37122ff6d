from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedhealth.evaluation.cells import cuts_between, one_row_each, settle

PAIRS = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 2)), max_size=60)
COUNTS = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=2, max_size=12)


@given(PAIRS)
def test_every_person_has_exactly_one_marked_row_on_every_side(pairs):
    person, side = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    marked = one_row_each(person, side)
    chosen = list(zip(person[marked], side[marked], strict=True))
    assert len(chosen) == len(set(chosen))
    assert set(chosen) == set(zip(person, side, strict=True))


def test_over_many_people_all_of_their_rows_are_as_likely():
    person = np.repeat(np.arange(3000), 3)
    marked = one_row_each(person, np.zeros(9000, dtype=np.int64))
    np.testing.assert_array_equal(marked.reshape(-1, 3).sum(axis=0), [1000, 1000, 1000])


def test_keyed_ids_at_the_ends_of_64_bits_stay_apart():
    ends = np.iinfo(np.int64)
    person = np.array([ends.min, ends.max, ends.min, 0], dtype=np.int64)
    assert one_row_each(person, np.zeros(4, dtype=np.int64)).sum() == 3


@given(COUNTS, st.randoms(use_true_random=False))
def test_no_cell_between_cuts_is_small_and_no_further_cut_could_be_made(bands, random):
    people = np.array(bands).T
    order = list(range(1, people.shape[1]))
    random.shuffle(order)
    cuts = cuts_between(people, order=order, min_cell=11)
    cells = [people[:, low:high].sum(axis=1) for low, high in pairwise(cuts)]
    assert len(cuts) == 2 or min(cell.min() for cell in cells) >= 11
    for cut in set(order) - set(cuts):
        low, high = max(each for each in cuts if each < cut), min(each for each in cuts if each > cut)
        assert min(people[:, low:cut].sum(axis=1).min(), people[:, cut:high].sum(axis=1).min()) < 11


def test_a_cut_that_is_wanted_comes_before_one_that_is_not():
    people = np.array([[11, 3, 11], [11, 11, 11]])
    assert cuts_between(people, order=(1, 2)) == (0, 1, 3)
    assert cuts_between(people, order=(2, 1)) == (0, 2, 3)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=7))
def test_what_is_left_of_the_whole_is_nobody_or_enough(groups):
    people = np.array(groups)
    rest = people[-1:]
    told = people[:-1]
    whole = people.sum(axis=0)
    shown = settle((told >= 11).all(axis=1), told * 2, told, whole=(whole * 2, whole), min_cell=11)
    left = told[~shown].sum(axis=0) + rest[0]
    assert (told[shown] >= 11).all()
    assert not shown.any() or (left >= 11).all() or not left.any()


def test_the_smallest_group_is_hidden_with_one_that_is_too_small():
    people = np.array([[40, 20], [30, 20], [5, 50]])
    whole = people.sum(axis=0)
    shown = settle((people >= 11).all(axis=1), people, people, whole=(whole, whole), min_cell=11)
    assert shown.tolist() == [True, False, False]


def test_nothing_is_hidden_where_nobody_is_left():
    people = np.array([[40, 20], [30, 20]])
    whole = people.sum(axis=0)
    assert settle(np.ones(2, dtype=bool), people, people, whole=(whole, whole), min_cell=11).all()
