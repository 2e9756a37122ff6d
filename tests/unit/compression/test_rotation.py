import numpy as np
import pytest

from fedhealth.compression.rotation import rotate, signs_needed, unrotate

LENGTHS = [1, 2, 3, 57, 1023, 1024, 1025, 2048, 5000]


def signs(length, seed=1):
    return np.random.default_rng(seed).choice([-1.0, 1.0], signs_needed(length))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_rotation_keeps_length_and_norm_and_is_undone(length):
    values, signed = np.random.default_rng(0).standard_normal(length), signs(length)
    rotated = rotate(values, signed)
    assert rotated.shape == values.shape
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(values), rel=1e-12)
    np.testing.assert_allclose(unrotate(rotated, signed), values, rtol=0, atol=1e-12)


def test_a_rotation_is_the_written_out_matrix_of_the_hadamard_transform():
    matrix = np.array([[1.0]])
    while len(matrix) < 8:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    ones = np.ones(signs_needed(8))
    twice = rotate(np.arange(8.0), ones)  # the last block is the first one here: turned a second time
    once = rotate(np.arange(8.0), np.r_[np.ones(8), (matrix / np.sqrt(8))[0] * np.sqrt(8)])
    np.testing.assert_allclose(twice, matrix @ matrix @ np.arange(8.0) / 8, atol=1e-12)
    np.testing.assert_allclose(once, twice, atol=1e-12)


@pytest.mark.parametrize("length", [57, 1024, 1500, 5000])
def test_one_large_entry_is_spread_over_its_block(length):
    for place in (0, length // 2, length - 1):
        values = np.zeros(length)
        values[place] = 1.0
        block = min(1 << (length.bit_length() - 1), 1024)
        assert np.abs(rotate(values, signs(length))).max() <= 6.0 / np.sqrt(block)


def test_the_input_is_left_alone():
    values = np.arange(100.0)
    rotated = rotate(values, signs(100))
    kept = rotated.copy()
    unrotate(rotated, signs(100))
    assert (values == np.arange(100.0)).all()
    assert (rotated == kept).all()
