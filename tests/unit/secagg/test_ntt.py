import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhealth.secagg.ntt import MODULUS, PRIMES, SIZE, balanced, canonical, product, transform


def polynomials(seed):
    generator = np.random.default_rng(seed)
    return balanced(np.stack([generator.integers(0, prime, SIZE) for prime in PRIMES]).astype(np.float64))


def schoolbook(first, second):
    """The negacyclic convolution term by term, in 64-bit integers."""
    rows = []
    for prime, a, b in zip(PRIMES, first.astype(np.int64), second.astype(np.int64), strict=True):
        row, doubled = np.zeros(SIZE, dtype=np.int64), np.concatenate([-b, b])
        for power, value in enumerate(a):
            row = (row + value * doubled[SIZE - power : 2 * SIZE - power]) % prime
        rows.append(row)
    return np.stack(rows)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_product_is_the_negacyclic_convolution(seed, other):
    first, second = polynomials(seed), polynomials(other)
    found = canonical(product(transform(first), transform(second)))
    assert (found == schoolbook(first, second)).all()


def test_the_schoolbook_turns_the_last_power_round_with_a_minus():
    last, x = (np.zeros((2, SIZE)) for _ in range(2))
    last[:, -1], x[:, 1] = 1.0, 1.0
    expected = np.zeros((2, SIZE))
    expected[:, 0] = np.array(PRIMES) - 1
    assert (schoolbook(last, x) == expected).all()


@pytest.mark.parametrize("signs", [np.ones(SIZE), np.where(np.arange(SIZE) % 2, 1.0, -1.0)])
def test_the_largest_residues_are_multiplied_exactly(signs):
    largest = np.array(PRIMES).reshape(2, 1) // 2 * signs
    found = canonical(product(transform(largest), transform(largest)))
    assert (found == schoolbook(largest, largest)).all()


def test_the_values_come_back_unbalanced_or_not():
    first, second = polynomials(1), polynomials(2)
    values = transform(first)
    assert (product(canonical(values), transform(second)) == product(values, transform(second))).all()


@given(st.lists(st.integers(-(2**52), 2**52), min_size=1, max_size=8))
def test_residues_are_those_of_the_integers(values):
    array = np.array([values, values], dtype=np.float64)
    for row, small, prime in zip(canonical(array), balanced(array), PRIMES, strict=True):
        assert row.tolist() == [value % prime for value in values]
        assert [int(value) % prime for value in small] == [value % prime for value in values]
        assert np.abs(small).max() <= prime / 2 + 1


def test_the_primes_are_the_largest_that_have_the_roots_in_24_bits():
    candidates = range((2**24 - 1) // (2 * SIZE) * 2 * SIZE + 1, 2, -2 * SIZE)
    primes = (n for n in candidates if n < 2**24 and all(n % d for d in range(2, int(n**0.5) + 1)))
    assert (next(primes), next(primes)) == PRIMES
    assert MODULUS.bit_length() == 48
