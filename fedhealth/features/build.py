"""Build the rows of a study from a site's OMOP CDM, all in one in-memory DuckDB."""

from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import DataError
from fedhealth.features.arrays import feature_arrays
from fedhealth.features.attrition import Attrition
from fedhealth.features.cohort import select_cohort
from fedhealth.features.folds import tested_rows, validation_rows
from fedhealth.features.groups import groups_of
from fedhealth.features.rows import Rows
from fedhealth.features.summaries import load_values
from fedhealth.features.tables import as_array, open_cdm
from fedhealth.study.spec import Study
from fedhealth.study.targets import Target, targets_of


def build_rows(cdm_dir: Path, study: Study, *, site_secret: bytes) -> tuple[Rows, Attrition]:
    """The rows of a study and how the cohort came about.

    Guarantees: one row per index stay and prediction, in the order of the keyed ids and of time; features use only
    what is at or before the prediction time, labels only what is after it; a date without a time counts as the end
    of that day. All rows of a patient are in one fold.

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
            person, labels = _index(database, targets_of(study))
            known = feature_arrays(database, study, rows=len(person))
            groups = groups_of(database)
            is_test = tested_rows(database, study, person=person, labels=labels, site_secret=site_secret)
    except duckdb.Error as error:
        code = type(error).__name__
        raise DataError(
            f"the CDM cannot be read as OMOP tables (code {code})", "harmonise the site's data again"
        ) from None
    rows = Rows(
        known.features,
        labels,
        person,
        is_test,
        is_validation=validation_rows(person, is_test, site_secret=site_secret, share=study.validation),
        series=known.series,
        levels=known.levels,
        groups=groups,
        level_names=known.level_names,
    )
    return rows, attrition


def _index(
    database: duckdb.DuckDBPyConnection, targets: tuple[Target, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The person and the labels of every row; numbers are clipped to their public bounds."""
    names = [f"label_{number}" for number in range(len(targets))]
    columns = database.execute(
        f"SELECT person_id, {', '.join(names)} FROM index_stay ORDER BY row_id"
    ).fetchnumpy()
    labels = np.stack([as_array(columns[name], np.float32) for name in names], axis=1)
    for column, target in enumerate(targets):
        if target.kind == "number":
            labels[:, column] = labels[:, column].clip(target.low, target.high)
    return as_array(columns["person_id"], np.int64), labels
