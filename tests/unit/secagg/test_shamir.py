from itertools import combinations

import pytest

from fedhealth.secagg.shamir import PRIME, SHARE_BYTES, rebuild, split

SECRET, SEED = bytes(range(32)), bytes(range(100, 132))


def shares_of(threshold, holders, secret=SECRET, seed=SEED):
    shares = split(secret, threshold=threshold, holders=holders, polynomial_seed=seed)
    return dict(enumerate(shares, start=1))


def test_any_threshold_of_the_shares_gives_the_secret_back():
    shares = shares_of(4, 7)
    for points in combinations(shares, 4):
        assert rebuild({point: shares[point] for point in points}, size=32) == SECRET


def test_fewer_shares_do_not_give_it():
    shares = shares_of(4, 7)
    for points in combinations(shares, 3):
        assert rebuild({point: shares[point] for point in points}, size=32) != SECRET


def test_fewer_shares_fit_every_secret():
    """Shamir's argument: through t - 1 shares and any secret at 0 goes a polynomial of degree t - 1."""
    shares = shares_of(3, 5)
    held = {1: shares[1], 2: shares[2]}
    for other in (bytes(32), b"\xff" * 32):
        point3 = _third_value(held, int.from_bytes(other, "big"))
        assert rebuild({**held, 3: point3.to_bytes(SHARE_BYTES, "big")}, size=32) == other


def _third_value(held, secret):
    """The value at 3 of the parabola through (0, secret), (1, .) and (2, .)."""
    first, second = (int.from_bytes(held[point], "big") for point in (1, 2))
    return (secret - 3 * first + 3 * second) % PRIME


def test_the_same_seed_gives_the_same_shares_and_another_seed_others():
    assert shares_of(3, 5) == shares_of(3, 5)
    assert set(shares_of(3, 5, seed=bytes(32)).values()).isdisjoint(shares_of(3, 5).values())


def test_a_changed_share_gives_another_secret_or_none():
    shares = shares_of(3, 5)
    wrong = bytes([shares[1][0] ^ 1]) + shares[1][1:]
    assert rebuild({1: wrong, 2: shares[2], 3: shares[3]}, size=32) != SECRET


@pytest.mark.parametrize(("threshold", "holders", "size"), [(0, 3, 32), (4, 3, 32), (2, 3, 65)])
def test_arguments_out_of_range_are_refused(threshold, holders, size):
    with pytest.raises(ValueError, match="threshold"):
        split(bytes(size), threshold=threshold, holders=holders, polynomial_seed=SEED)


def test_a_short_polynomial_seed_is_refused():
    with pytest.raises(ValueError, match="256 bits"):
        split(SECRET, threshold=2, holders=3, polynomial_seed=bytes(31))
