"""Which patients are tested: a keyed function of the patient, by classes where asked, or the site's own record."""

import hashlib
import hmac

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.features.matching import has_code, has_value
from fedhealth.features.outcomes import OBSERVED
from fedhealth.features.tables import as_array
from fedhealth.study.spec import Study
from fedhealth.study.targets import Target, targets_of


def tested_rows(
    database: duckdb.DuckDBPyConnection,
    study: Study,
    *,
    person: NDArray[np.int64],
    labels: NDArray[np.float32],
    site_secret: bytes,
) -> NDArray[np.bool_]:
    """Whether each row is in the test fold, in the way that the study asks for.

    Guarantees: all rows of a patient are in one fold.

    Args:
      database: the site's tables.
      study: the study.
      person: keyed patient ids, shape (n,).
      labels: shape (n, targets).
      site_secret: the site's secret.

    Returns:
      Booleans, shape (n,).
    """
    if study.split.assigned is not None:
        return np.isin(person, _assigned(database, study.split.assigned))
    if study.split.stratify:
        classes = _classes(labels[:, 0], targets_of(study)[0])
        return stratified_fold(person, classes, site_secret=site_secret, test=study.split.test)
    return fold(person, site_secret=site_secret, test=study.split.test)


def validation_rows(
    person: NDArray[np.int64], is_test: NDArray[np.bool_], *, site_secret: bytes, share: float
) -> NDArray[np.bool_]:
    """Whether each row is in the validation fold: a keyed function of the patient, apart from that of the test fold.

    Args:
      person: keyed patient ids, shape (n,).
      is_test: whether each row is in the test fold, shape (n,).
      site_secret: the site's secret.
      share: of the patients outside the test fold, in [0, 1).

    Returns:
      Booleans, shape (n,).
    """
    return fold(person, site_secret=site_secret, test=share, of="validation") & ~is_test


def fold(
    person: NDArray[np.int64], *, site_secret: bytes, test: float, of: str = "fold"
) -> NDArray[np.bool_]:
    """Whether each patient is in the test fold.

    Guarantees: a function of the secret and the patient alone: other patients, or loading again, change
    nothing.

    Args:
      person: keyed patient ids, shape (n,).
      site_secret: the site's secret.
      test: the test share, in [0, 1).
      of: what the key is for; folds of different names are independent of each other.

    Returns:
      Booleans, shape (n,); the first 64 bits of the HMAC, as a fraction of 2^64, are below ``test``.
    """
    bound = int(test * 2**64)
    chosen = {int(one): _place(int(one), site_secret, of) < bound for one in np.unique(person)}
    return np.array([chosen[int(one)] for one in person], dtype=np.bool_)


def stratified_fold(
    person: NDArray[np.int64], classes: NDArray[np.int64], *, site_secret: bytes, test: float
) -> NDArray[np.bool_]:
    """Whether each patient is in the test fold, with the same share of every class.

    A patient's class is the highest of their rows'. Within a class patients stand in the order of their HMAC, and
    the first share (rounded to the nearest patient, half up) is tested: it depends on who else is in the class.

    Args:
      person: keyed patient ids, shape (n,).
      classes: the class of every row, shape (n,); -1 is a class like any other.
      site_secret: the site's secret.
      test: the test share, in (0, 1).

    Returns:
      Booleans, shape (n,).
    """
    highest: dict[int, int] = {}
    for one, each in zip(person.tolist(), classes.tolist(), strict=True):
        highest[one] = max(each, highest.get(one, each))
    tested: list[int] = []
    for each in sorted(set(highest.values())):
        members = sorted(
            (one for one, of in highest.items() if of == each), key=lambda one: _place(one, site_secret)
        )
        tested += members[: int(test * len(members) + 0.5)]
    return np.isin(person, np.array(tested, dtype=np.int64))


def _place(person: int, site_secret: bytes, of: str = "fold") -> int:
    """The first 64 bits of a patient's HMAC."""
    message = of.encode() + person.to_bytes(8, "big", signed=True)
    return int.from_bytes(hmac.digest(site_secret, message, hashlib.sha256)[:8], "big")


def _classes(label: NDArray[np.float32], target: Target) -> NDArray[np.int64]:
    """Yes or no, the class, or whether the event ended it; -1 where it is not known."""
    known = ~np.isnan(label)
    found = np.full(len(label), -1, dtype=np.int64)
    found[known] = label[known].astype(np.int64)
    return np.where(known, found % 2, -1) if target.kind == "hazard" else found


def _assigned(database: duckdb.DuckDBPyConnection, code: str) -> NDArray[np.int64]:
    """The patients of whom an observation with the code says ``test``."""
    coded = has_code((code,), text="code", concept="concept", field="measurement")
    says_test = has_value(("test",), text="text", number="number", concept="value_concept")
    query = f"SELECT DISTINCT person_id FROM ({OBSERVED}) WHERE {coded} AND ({says_test})"
    return as_array(database.execute(query).fetchnumpy()["person_id"], np.int64)
