"""The report as a reviewer sees it: a real browser loads the file and says what it drew."""

import re
import shutil
import subprocess

import pytest
from simulator.reports import row, study_report

from fedhealth.reporting import make_report, render_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PROBE = """
<script>
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("figure svg")].map(s => s.getBoundingClientRect());
  document.title = JSON.stringify({
    figures: boxes.length,
    drawn: boxes.filter(b => b.width > 100 && b.height > 50).length,
    wider: document.documentElement.scrollWidth > innerWidth,
    rows: document.querySelectorAll("tbody tr").length,
    requests: performance.getEntriesByType("resource").length,
  });
});
</script>
"""


@pytest.fixture
def page(tmp_path):
    second = study_report(
        study="mortality-24h",
        outcome="death",
        comparison=(
            row("local_mean", 0.67, outcome="death"),
            row("federated_dp", None, outcome="death", is_reference=False),
        ),
    )
    path = tmp_path / "report.html"
    path.write_text(
        render_html(make_report((study_report(), second), open_with={"MLflow UI": "mlflow server"}))
    )
    return path


def chromium(*arguments, folder):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.parametrize("width", [1280, 480])
def test_a_browser_draws_every_figure_and_table_without_a_request_or_sideways_scrolling(page, width):
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    dumped = chromium(f"--window-size={width},900", "--dump-dom", probed.as_uri(), folder=page.parent).stdout
    told = re.search(r"<title>(\{.*?\})</title>", dumped).group(1).replace("&quot;", '"')
    assert '"figures":3,"drawn":3,"wider":false' in told
    assert '"requests":0' in told
    assert int(re.search(r'"rows":(\d+)', told).group(1)) >= 8


def test_it_can_be_printed_to_a_file_of_some_size(page):
    picture = page.with_suffix(".pdf")
    chromium(f"--print-to-pdf={picture}", page.as_uri(), folder=page.parent)
    assert picture.read_bytes().startswith(b"%PDF")
    assert picture.stat().st_size > 10_000
