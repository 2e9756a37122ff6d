"""What people and machines read after a run: report.json, report.html, the table on screen."""

from fedhealth.reporting.console import render_console
from fedhealth.reporting.evaluated import evaluation_files, headlines, subgroup_rows
from fedhealth.reporting.html import render_html
from fedhealth.reporting.report import Report, StudyReport, make_report, read_report, write_report_json

__all__ = [
    "Report",
    "StudyReport",
    "evaluation_files",
    "headlines",
    "make_report",
    "read_report",
    "render_console",
    "render_html",
    "subgroup_rows",
    "write_report_json",
]
