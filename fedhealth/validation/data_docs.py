"""Data Docs: Great Expectations' own pages of suites and results, made to stand alone in a hospital.

Guarantees: a page holds names, limits and coarse shares only, as the report does; it runs no script and makes no
request, which its Content-Security-Policy also forbids.
"""

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fedhealth.cdm.output import replacing_any
from fedhealth.cdm.tables import TABLES
from fedhealth.errors import ConfigError
from fedhealth.validation.report import Check, ValidationReport
from fedhealth.validation.suite import Judgement, column_of, sealed

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.render.view.view import DefaultJinjaPageView

PAGES = (
    "index.html",
    *(f"tables/{table}{kind}.html" for table in ("cdm", *TABLES) for kind in ("", ".suite")),
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.2rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ccc; }
.failed { color: #b00020; font-weight: 600; } .hide, .modal, .collapse { display: none; }
"""
# What Great Expectations' templates load from elsewhere or need a script for.
_FOREIGN = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<style\b.*?</style>|<nav\b.*?</nav>|<footer\b.*?</footer>",
    re.DOTALL | re.IGNORECASE,
)
_LINK = re.compile(r"""\s(?:href|src)=["'](?!#)[^"']*["']""", re.IGNORECASE)


def write_data_docs(folder: Path, judgements: Sequence[Judgement], report: ValidationReport) -> None:
    """Write ``index.html`` and, per table, ``TABLE.html`` (results) and ``TABLE.suite.html`` (its expectations).

    Guarantees: ``folder`` is either as it was or holds these pages alone.

    Raises:
      ConfigError: ``folder`` holds something else than pages of an earlier run.
      DataError: Great Expectations could not render a page.
    """
    refuse_foreign_docs(folder)
    with replacing_any(folder, own=PAGES[:2]) as fresh:
        (fresh / "tables").mkdir(mode=0o700)
        for each in judgements:
            shares = {check.name: check for check in report.checks if check.table == each.table}
            results, suite = _results_page(each, shares), _suite_page(each)
            (fresh / "tables" / f"{each.table}.html").write_text(results, encoding="utf-8")
            (fresh / "tables" / f"{each.table}.suite.html").write_text(suite, encoding="utf-8")
        (fresh / "index.html").write_text(_index(judgements, report), encoding="utf-8")


def refuse_foreign_docs(folder: Path) -> None:
    """Refuse a folder that holds anything but pages of ours: what is replaced as a whole is lost.

    Raises:
      ConfigError: it does, or is no folder.
    """
    if folder.exists() and not (folder.is_dir() and (_is_own(folder) or not any(folder.iterdir()))):
        raise ConfigError(
            f"{folder} holds something else than Data Docs of ours", "name an empty or a new folder"
        )


def _is_own(folder: Path) -> bool:
    own = {folder / name for name in ("tables", *PAGES)}
    index = folder / "index.html"
    return (
        all(path in own for path in folder.rglob("*"))
        and index.is_file()
        and _POLICY in index.read_text(encoding="utf-8", errors="replace")
    )


@cache
def page_view() -> "DefaultJinjaPageView":
    """Great Expectations' templates, each compiled when first used: a view for each page would compile them again."""
    from great_expectations.render.view.view import DefaultJinjaPageView

    return DefaultJinjaPageView()


def _results_page(judged: Judgement, checks: dict[str, Check]) -> str:
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    with sealed():
        shown = _coarse(judged.result, checks)
        page = page_view().render(ValidationResultsPageRenderer().render(shown))  # type: ignore[no-untyped-call]
    return _alone(page, f"{judged.table}: results")


def _coarse(
    result: "ExpectationSuiteValidationResult", checks: dict[str, Check]
) -> "ExpectationSuiteValidationResult":
    """The result with the report's coarse shares as what was observed: the pages get nothing finer."""
    for each in result.results:
        check = checks[column_of(each)]
        each.result = {"observed_value": check.share_failed or "hidden: fewer than 11 rows"}
    return result


def _suite_page(judged: Judgement) -> str:
    from great_expectations.render.renderer.page_renderer import ExpectationSuitePageRenderer

    with sealed():
        page = page_view().render(ExpectationSuitePageRenderer().render(judged.suite))  # type: ignore[no-untyped-call]
    return _alone(page, f"{judged.table}: suite")


def _alone(page: str, title: str) -> str:
    """The body of a page under our own head; what stands elsewhere is taken out."""
    body = page[page.index("<body") : page.rindex("</body>")].partition(">")[2]
    return _page(title, _LINK.sub("", _FOREIGN.sub("", body)))


def _index(judgements: Sequence[Judgement], report: ValidationReport) -> str:
    rows = []
    for each in judgements:
        own = [check for check in report.checks if check.table == each.table]
        failed = [f"{check.name} ({check.severity})" for check in own if not check.passed]
        rows.append(
            f'<tr><td><a href="tables/{each.table}.html">{each.table}</a></td>'
            f'<td><a href="tables/{each.table}.suite.html">suite</a></td>'
            f'<td>{len(own)}</td><td class="failed">{escape(", ".join(failed))}</td></tr>'
        )
    verdict = "passed" if report.passed else f"closed: {escape(report.reason)}"
    head = "<tr><th>results</th><th>expectations</th><th>checks</th><th>did not pass</th></tr>"
    return _page(
        "Data quality", f"<h1>Data quality</h1><p>Gate {verdict}</p><table>{head}{''.join(rows)}</table>"
    )


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>{body}</body></html>'
    )
