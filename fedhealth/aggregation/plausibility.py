"""Whose update is implausible, judged by sketches alone (`fedhealth.secagg.sketch`).

    symbol  name              symbol  name
    z_i     sketch            w_i     weight: what is publicly known of a site's size
    k       directions        n       sites

A projection on k pseudorandom signs keeps lengths and angles to a relative error of about sqrt(2/k) (Johnson and Lindenstrauss
1984; Achlioptas 2003). A site is implausible when one of these holds:

    length     |z_i| / v_i > 3 * median_j(|z_j| / v_j) * max(1, min(2, w_i / median_j(w_j))),   v_i = min(w_i, 8 * median_j(w_j))
    direction  median_{j != i} cos(z_i, z_j) < -3 * sqrt(pi / 2) / sqrt(k * (n - 1))

A large site counts more and takes more steps in an epoch, so it may go farther. But its size is its own word, and a liar
would claim the largest: no size is believed beyond 8 times the median, nor lets a site go more than twice as far. The
second bound is three standard deviations of what the median would be of a vector that has nothing to do with the others:
noise passes, a reversed update does not. Medians, so that liars who all send the same do not vouch for one another; and one
site goes at a time, the worst first, so that honest sites are not judged by liars who have gone. What looks like the others
passes too, whatever it was made for.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

LENGTH_FACTOR = 3.0
BELIEVED_SIZE, FARTHER_FOR_SIZE = 8.0, 2.0
DIRECTION_DEVIATIONS = 3.0


def implausible(sketches: Mapping[str, Sequence[int]], *, weights: Mapping[str, float]) -> dict[str, str]:
    """Judge every site's sketch against all of them.

    Guarantees: depends on the sketches and public weights alone, not on their order. While fewer than half of the sites lie, a
    vector is found that is far longer than the honest ones of its size, or that goes against most of them while they agree with
    one another. It may find more sites than a sum can spare: what then is the caller's to say.

    Args:
      sketches: by site k exact projections of the integers of its weighted update.
      weights: by site its publicly known size.

    Returns:
      By implausible site, why.

    Raises:
      ValueError: a size is not positive and finite.
    """
    if not all(0.0 < weights[site] < math.inf for site in sketches):
        raise ValueError("a size is not positive and finite")
    kept, found = sorted(sketches), dict[str, str]()
    while len(kept) > 2:
        values = np.array([[float(each) for each in sketches[site]] for site in kept])
        excess, against = _excess_length(values, np.array([weights[site] for site in kept])), _against(values)
        if excess.max() > 1.0:
            found[kept.pop(int(excess.argmax()))] = "its update is longer than any plausible one"
        elif against.max() > 1.0:
            found[kept.pop(int(against.argmax()))] = "its update points against those of the others"
        else:
            break
    return found


def _excess_length(values: Numbers, sizes: Numbers) -> Numbers:
    """Each length as a multiple of the largest plausible one."""
    usual = float(np.median(sizes))
    rates = _lengths(values) / np.minimum(sizes, BELIEVED_SIZE * usual)
    allowed = LENGTH_FACTOR * float(np.median(rates)) * np.clip(sizes / usual, 1.0, FARTHER_FOR_SIZE)
    return np.divide(rates, allowed, out=np.where(rates > 0.0, np.inf, 0.0), where=allowed > 0.0)


def _against(values: Numbers) -> Numbers:
    """How far each goes against the others, as a multiple of the bound."""
    (sites, directions), lengths = values.shape, _lengths(values)
    units = values / np.where(lengths > 0.0, lengths, 1.0)[:, None]
    others = (units @ units.T)[~np.eye(sites, dtype=np.bool_)].reshape(sites, sites - 1)
    deviation = math.sqrt(math.pi / 2.0 / (directions * (sites - 1)))
    return -np.asarray(np.median(others, axis=1)) / (DIRECTION_DEVIATIONS * deviation)


def _lengths(values: Numbers) -> Numbers:
    lengths: Numbers = np.sqrt((values * values).sum(axis=1))
    return lengths
