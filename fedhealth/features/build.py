"""Build the rows of a study from a site's OMOP CDM, all in one in-memory DuckDB."""

import hashlib
import hmac
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import DataError
from fedhealth.features.attrition import Attrition
from fedhealth.features.cohort import select_cohort
from fedhealth.features.rows import Rows
from fedhealth.features.statics import static_features
from fedhealth.features.summaries import load_values, summary_features
from fedhealth.features.tables import as_array, open_cdm
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study


def build_rows(cdm_dir: Path, study: Study, *, site_secret: bytes) -> tuple[Rows, Attrition]:
    """The rows of a study and how the cohort came about.

    Guarantees: one row per index stay, in the order of the keyed ids; features use only what is at or
    before the prediction time, labels only what is after it; a date without a time counts as the end of
    that day. All rows of a patient are in one fold, which depends on the site's secret and the patient alone.

    Args:
      cdm_dir: the folder of Parquet files, one per OMOP table.
      study: the study.
      site_secret: 32 bytes that never leave the site.

    Returns:
      Rows (none if nobody is eligible) and the exact attrition.

    Raises:
      DataError: a table or column is missing or unreadable; the message holds no value from the data.
    """
    try:
        with duckdb.connect(":memory:", config={"threads": 1}) as database:
            database.execute("SET enable_progress_bar = false")
            open_cdm(database, Path(cdm_dir))
            load_values(database)
            attrition = select_cohort(database, study)
            person, labels = _index(database)
            features = np.concatenate(
                [static_features(database), summary_features(database, study, rows=len(person))], axis=1
            )
    except duckdb.Error as error:
        code = type(error).__name__
        raise DataError(
            f"the CDM cannot be read as OMOP tables (code {code})", "harmonise the site's data again"
        ) from None
    if features.shape[1] != len(feature_columns(study)):
        raise ValueError("the features do not fit the study's columns")
    is_test = fold(person, site_secret=site_secret, test=study.split.test)
    return Rows(features, labels, person, is_test), attrition


def fold(person: NDArray[np.int64], *, site_secret: bytes, test: float) -> NDArray[np.bool_]:
    """Whether each patient is in the test fold.

    Guarantees: a function of the secret and the patient alone: other patients, or loading again, change
    nothing.

    Args:
      person: keyed patient ids, shape (n,).
      site_secret: the site's secret.
      test: the test share, in (0, 1).

    Returns:
      Booleans, shape (n,); the first 64 bits of the HMAC, as a fraction of 2^64, are below ``test``.
    """
    bound = int(test * 2**64)
    chosen = {
        int(one): int.from_bytes(
            hmac.digest(site_secret, b"fold" + int(one).to_bytes(8, "big", signed=True), hashlib.sha256)[:8],
            "big",
        )
        < bound
        for one in np.unique(person)
    }
    return np.array([chosen[int(one)] for one in person], dtype=np.bool_)


def _index(database: duckdb.DuckDBPyConnection) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    columns = database.execute("SELECT person_id, label FROM index_stay ORDER BY row_id").fetchnumpy()
    return as_array(columns["person_id"], np.int64), as_array(columns["label"], np.float32)[:, None]
