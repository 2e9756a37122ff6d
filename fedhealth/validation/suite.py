"""The Great Expectations suite of the gate.

Great Expectations gets the folder's schema as an empty frame and one row of failing shares, a column per
check. It never holds a patient's value, so that no result and no exception of it can quote one, and it costs
the same for a thousand rows as for ten million.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from fedhealth.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.datasource.fluent.pandas_datasource import PandasDatasource
    from great_expectations.expectations.expectation import Expectation

# Read when Great Expectations is imported: a hospital reports to nobody.
os.environ["GX_ANALYTICS_ENABLED"] = "false"


class Suite:
    """An ephemeral Great Expectations context with a pandas source and no progress bars."""

    def __init__(self) -> None:
        gx = load_engine()
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        self._source: PandasDatasource = context.data_sources.add_pandas("cdm")
        self._gx = gx

    def columns_exist(self, present: Iterable[str], *, required: Iterable[str]) -> dict[str, bool]:
        """Expect every required ``table.column`` to exist.

        Args:
          present: ``table.column`` names of the folder.
          required: those that must be there.

        Returns:
          Whether each required one is.

        Raises:
          DataError: Great Expectations could not evaluate the suite.
        """
        import pandas as pd
        from great_expectations.expectations.core.expect_column_to_exist import ExpectColumnToExist
        from great_expectations.expectations.core.expect_table_columns_to_match_set import (
            ExpectTableColumnsToMatchSet,
        )

        wanted = tuple(required)
        frame = pd.DataFrame({name: pd.Series(dtype="float64") for name in present})
        complete = ExpectTableColumnsToMatchSet(column_set=list(wanted), exact_match=False)
        if self._outcomes("schema", frame, [complete]) == [True]:
            return dict.fromkeys(wanted, True)
        # One expectation per column takes 60 times as long: only to name what is missing.
        expectations = [ExpectColumnToExist(column=name) for name in wanted]
        return dict(zip(wanted, self._outcomes("columns", frame, expectations), strict=True))

    def shares_within(
        self, shares: Mapping[str, float], *, limits: Mapping[str, float], severities: Mapping[str, str]
    ) -> dict[str, bool]:
        """Expect every check's share of failing rows to be at most its limit.

        Args:
          shares: share of failing rows by check, 0 to 1.
          limits: the largest share allowed, by check.
          severities: Great Expectations' ``critical``, ``warning`` or ``info``, by check.

        Returns:
          Whether each check holds.

        Raises:
          DataError: Great Expectations could not evaluate the suite.
        """
        import pandas as pd
        from great_expectations.expectations.core.expect_column_max_to_be_between import (
            ExpectColumnMaxToBeBetween,
        )
        from great_expectations.expectations.metadata_types import FailureSeverity

        frame = pd.DataFrame({name: [share] for name, share in shares.items()}, dtype="float64")
        expectations = [
            ExpectColumnMaxToBeBetween(
                column=name, min_value=0.0, max_value=limits[name], severity=FailureSeverity(severities[name])
            )
            for name in shares
        ]
        return dict(zip(shares, self._outcomes("shares", frame, expectations), strict=True))

    def _outcomes(
        self, name: str, frame: "pd.DataFrame", expectations: "Sequence[Expectation]"
    ) -> list[bool]:
        suite = self._gx.ExpectationSuite(name, expectations=list(expectations))
        with _sealed():
            asset = self._source.add_dataframe_asset(name)
            batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
            result = batch.validate(suite, result_format="BOOLEAN_ONLY")
        if any(each.exception_info.get("raised_exception", True) for each in result.results):
            raise _not_evaluated()
        return [bool(each.success) for each in result.results]


def load_engine() -> ModuleType:
    """Import Great Expectations, analytics off. It takes 3 to 5 s: call it before forking, it starts no thread."""
    with warnings.catch_warnings():
        # Great Expectations imports a module that Python 3.11 renamed.
        warnings.filterwarnings("ignore", message="module 'sre_", category=DeprecationWarning)
        import great_expectations

    return great_expectations


@contextmanager
def _sealed() -> Iterator[None]:
    """Process edge of a library whose exceptions quote what they were given."""
    try:
        yield
    except Exception:  # noqa: BLE001
        raise _not_evaluated() from None


def _not_evaluated() -> DataError:
    return DataError("Great Expectations could not evaluate the gate", "run fedhealth doctor")
