"""What a lying or a careless site may send: attacks on updates, attacks on rows.

An attack on updates gets the honest updates, shape (sites, parameters), as an attacker who knows all of them would,
and the number of attackers; it gives the one row that every attacker sends.
"""

from dataclasses import replace
from statistics import NormalDist

import numpy as np


def sign_flip(honest, attackers):
    """Where the others go, the other way (Li et al. 2019)."""
    return -honest.mean(axis=0)


def scaled(honest, attackers, factor=10.0):
    """An honest direction, ten times as far: model replacement (Bagdasaryan et al. 2020)."""
    return factor * honest.mean(axis=0)


def alie(honest, attackers):
    """A little is enough: as far from the mean as so many others still are, so that nobody looks odd (Baruch et al. 2019)."""
    sites = len(honest) + attackers
    supporters = sites // 2 + 1 - attackers
    z = NormalDist().inv_cdf((sites - attackers - supporters) / (sites - attackers))
    return honest.mean(axis=0) - z * honest.std(axis=0)


def inner_product(honest, attackers, factor=1.1):
    """Just far enough back that the mean of all points the wrong way (Xie et al. 2020)."""
    return -factor * (len(honest) / attackers) * honest.mean(axis=0)


ON_UPDATES = {"sign flip": sign_flip, "x10": scaled, "ALIE": alie, "inner product": inner_product}


def label_flip(rows):
    """Every yes is a no."""
    return replace(rows, labels=1.0 - rows.labels)


def wrong_units(rows, columns, factor=88.4):
    """Some columns in another unit, as creatinine in umol/L where mg/dL is meant."""
    features = rows.features.copy()
    features[:, columns] *= np.float32(factor)
    return replace(rows, features=features)
