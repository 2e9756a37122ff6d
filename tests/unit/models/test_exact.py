"""Arithmetic of one order, against numpy and the C library."""

import math

import numpy as np
import pytest

from fedhealth.errors import ProtocolError
from fedhealth.models.stepwise.exact import exact_dot, exact_exp, exact_log, solve_positive


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_equations_are_solved_as_numpy_solves_them(size):
    generator = np.random.default_rng(size)
    root = generator.normal(size=(size + 3, size))
    matrix, right = root.T @ root, generator.normal(size=size)
    kept = matrix.copy(), right.copy()
    np.testing.assert_allclose(solve_positive(matrix, right), np.linalg.solve(matrix, right), rtol=1e-8)
    np.testing.assert_array_equal(matrix, kept[0])
    np.testing.assert_array_equal(right, kept[1])


@pytest.mark.parametrize("matrix", [[[0.0]], [[1.0, 2.0], [2.0, 1.0]], [[math.inf]], [[math.nan]]])
def test_what_is_not_positive_definite_is_refused(matrix):
    with pytest.raises(ProtocolError):
        solve_positive(np.array(matrix), np.ones(len(matrix)))


def test_a_dot_product_does_not_depend_on_the_order():
    values = np.array([1e16, 1.0, -1e16, 1.0])
    assert exact_dot(values, np.ones(4)) == exact_dot(values[::-1], np.ones(4)) == 2.0


@pytest.mark.parametrize("value", [-30.0, -1e-9, 0.0, 0.3, 1.0, 12.5])
def test_exponential_and_logarithm_are_those_of_the_c_library_to_the_last_bit_but_one(value):
    assert exact_exp(value) == pytest.approx(math.exp(value), rel=3e-16)
    assert exact_log(math.exp(value)) == pytest.approx(math.log(math.exp(value)), rel=3e-16)
