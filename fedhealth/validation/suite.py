"""The Great Expectations suites of the gate: one per table, one expectation per check.

Great Expectations gets one row of failing shares, a column per check. It never holds a patient's value, so that no
result and no exception of it can quote one, and it costs the same for a thousand rows as for ten million.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fedhealth.errors import DataError
from fedhealth.validation.checks import Severity
from fedhealth.validation.rules import Rule

if TYPE_CHECKING:
    from great_expectations.core import (
        ExpectationSuite,
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )
    from great_expectations.datasource.fluent.pandas_datasource import PandasDatasource
    from great_expectations.expectations.core.expect_column_max_to_be_between import (
        ExpectColumnMaxToBeBetween,
    )
    from great_expectations.expectations.expectation import Expectation

# Read when Great Expectations is imported: a hospital reports to nobody.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

_GX_SEVERITY: dict[Severity, str] = {"fatal": "critical", "convention": "warning", "characterisation": "info"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A table's suite, what Great Expectations made of it, and whether each rule holds, in their order."""

    table: str
    suite: "ExpectationSuite"
    result: "ExpectationSuiteValidationResult"
    held: tuple[bool, ...]


class Judge:
    """An ephemeral Great Expectations context with a pandas source and no progress bars."""

    def __init__(self) -> None:
        gx = load_engine()
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        self._source: PandasDatasource = context.data_sources.add_pandas("cdm")
        self._gx = gx

    def judge(self, table: str, shares: Sequence[tuple[Rule, float]]) -> Judgement:
        """Expect each rule's share of failing rows to be at most its limit.

        Args:
          table: the OMOP table; its suite is ``fedhealth-TABLE``.
          shares: rules of the table with their share of failing rows, 0 to 1.

        Raises:
          DataError: Great Expectations could not evaluate the suite.
        """
        import pandas as pd

        name = f"fedhealth-{table}"
        suite = self._gx.ExpectationSuite(name, expectations=[_expectation(rule) for rule, _ in shares])
        frame = pd.DataFrame({rule.name: [share] for rule, share in shares}, dtype="float64")
        with sealed():
            asset = self._source.add_dataframe_asset(name)
            batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
            result = batch.validate(suite, result_format="BOOLEAN_ONLY")
        if any(each.exception_info.get("raised_exception", True) for each in result.results):
            raise _not_evaluated()
        # Results come grouped by column, not in the order of the suite.
        success = {column_of(each): bool(each.success) for each in result.results}
        return Judgement(table, suite, result, tuple(success[rule.name] for rule, _ in shares))


def column_of(result: "ExpectationValidationResult") -> str:
    """The name of the rule that a result is of."""
    config = result.expectation_config
    if config is None:
        raise _not_evaluated()
    return str(config.kwargs["column"])


@cache
def _expectation_type() -> type["ExpectColumnMaxToBeBetween"]:
    """Great Expectations' own expectation, which says once what it is made of, and not 54 times for each result."""
    from great_expectations.compatibility.pydantic import PrivateAttr
    from great_expectations.expectations.core.expect_column_max_to_be_between import (
        ExpectColumnMaxToBeBetween,
    )
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    class ExpectColumnShareOfFailuresToBeAtMost(ExpectColumnMaxToBeBetween):
        _told: Any = PrivateAttr(default=None)

        @property
        def configuration(self) -> ExpectationConfiguration:
            if self._told is None:
                self._told = super().configuration
            told: ExpectationConfiguration = self._told
            return told

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name != "_told":
                self._told = None

    return ExpectColumnShareOfFailuresToBeAtMost


def _expectation(rule: Rule) -> "Expectation":
    from great_expectations.expectations.metadata_types import FailureSeverity

    return _expectation_type()(
        column=rule.name,
        min_value=0.0,
        max_value=rule.max_share,
        severity=FailureSeverity(_GX_SEVERITY[rule.severity]),
        description=f"at most {rule.max_share:.0%} of rows: {rule.kind.failing} ({rule.severity})",
        meta={
            "check": rule.check,
            "category": rule.kind.category,
            "severity": rule.severity,
            "table": rule.table,
            "field": rule.field,
            "concept": rule.concept,
        },
    )


def load_engine() -> ModuleType:
    """Import Great Expectations, analytics off. It takes 3 to 5 s: call it before forking, it starts no thread."""
    with warnings.catch_warnings():
        # Great Expectations imports a module that Python 3.11 renamed.
        warnings.filterwarnings("ignore", message="module 'sre_", category=DeprecationWarning)
        import great_expectations

    return great_expectations


@contextmanager
def sealed() -> Iterator[None]:
    """Process edge of a library whose exceptions quote what they were given."""
    try:
        yield
    except Exception:  # noqa: BLE001
        raise _not_evaluated() from None


def _not_evaluated() -> DataError:
    return DataError("Great Expectations could not evaluate the gate", "run fedhealth doctor")
