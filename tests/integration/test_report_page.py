"""The report as a reviewer sees it: a real browser loads the file and says what it drew."""

import html
import json
import re
import shutil
import subprocess

import pytest
from simulator.reports import evaluated_report, row, study_report

from fedhealth.reporting import make_report, render_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PROBE = """<!doctype html><title></title><iframe style="width:WIDTHpx;height:900px;border:0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const figures = [...page.querySelectorAll("figure svg")];
  document.title = JSON.stringify({
    width: view.innerWidth,
    sideways: page.documentElement.scrollWidth > view.innerWidth,
    boxes: figures.map(svg => [svg.getBoundingClientRect().width, svg.getBoundingClientRect().height]),
    marks: figures.map(svg => svg.querySelectorAll("path, use").length),
    words: figures.map(svg => svg.textContent.replace(/\\s+/g, " ")),
    ink: view.getComputedStyle(page.querySelector("figure text")).fill,
    paper: view.getComputedStyle(page.body).color,
    tables: [...page.querySelectorAll("table")].map(table => table.rows.length),
    text: page.body.innerText,
    requests: view.performance.getEntriesByType("resource").map(each => each.name),
  });
};
frame.srcdoc = PAGE;
</script>"""


@pytest.fixture(scope="module")
def page():
    second = study_report(
        study="mortality-24h",
        outcome="death",
        comparison=(
            row("local_mean", 0.67, outcome="death"),
            row("federated_dp", None, outcome="death", is_reference=False),
        ),
    )
    return render_html(make_report((study_report(), second), open_with={"MLflow UI": "mlflow server"}))


def chromium(*arguments, folder):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}",
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=True)


def seen(page, folder, *, width, options=()):
    """What the browser drew, and what it wrote to its console."""
    probe = folder / "probe.html"
    source = json.dumps(page).replace("</", "<\\/")
    probe.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", source))
    done = chromium("--window-size=1400,1000", "--dump-dom", *options, probe.as_uri(), folder=folder)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout, re.DOTALL).group(1)
    return json.loads(html.unescape(title)), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_draws_every_study_table_and_plot_without_error_request_or_sideways_scrolling(
    page, tmp_path, width
):
    told, console = seen(page, tmp_path, width=width)
    assert console == []
    assert told["requests"] == []
    assert told["width"] == width
    assert not told["sideways"]
    assert len(told["boxes"]) == 4
    assert all(drawn > 270 and height > 100 for drawn, height in told["boxes"])
    assert min(told["marks"]) > 10
    first, second, rounds, seconds = told["words"]
    assert "secure + DP" in first
    assert "suppressed (<11)" in second
    assert "readmission" in rounds
    assert "death" in rounds
    assert "harmonise" in seconds
    for words in (
        "readmission-30d",
        "mortality-24h",
        "hospital-03",
        "0.660 [0.630,\u00a00.690]",
        "moments",
        "2 of 3",
    ):
        assert words in told["text"]
    assert min(told["tables"]) >= 2
    assert len(told["tables"]) == 6 + 1 + 2  # how updates were combined, and by round of each study


@pytest.mark.parametrize("width", [1280, 360])
def test_an_evaluation_is_drawn_within_the_width_of_a_phone(tmp_path, width):
    told, console = seen(render_html(make_report((evaluated_report(),), open_with={})), tmp_path, width=width)
    assert console == []
    assert told["requests"] == []
    assert not told["sideways"]
    *narrow, _, _ = told["boxes"]  # rounds and seconds scroll by themselves
    assert len(narrow) == 4 + 2 + 4
    assert all(270 < drawn < width for drawn, _ in narrow)
    assert min(told["marks"]) > 10
    assert "net benefit" in told["words"][5]
    assert "suppressed" in told["words"][6]
    for words in ("ward: death", "ward: survival", "All figures", "Suppressed is what tells"):
        assert words in told["text"]


def test_plots_take_the_colour_of_the_text_in_light_and_in_dark(page, tmp_path):
    light, _ = seen(page, tmp_path, width=1280)
    dark, _ = seen(page, tmp_path, width=1280, options=("--blink-settings=preferredColorScheme=0",))
    assert light["ink"] == light["paper"] == "rgb(0, 0, 0)"
    assert dark["ink"] == dark["paper"] == "rgb(255, 255, 255)"


def test_the_console_of_the_browser_is_heard(page, tmp_path):
    _, console = seen(page + "<script>console.error('heard')</script>", tmp_path, width=1280)
    assert len(console) == 1


def test_no_part_of_the_page_stands_elsewhere(page):
    linked = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page) + re.findall(r"url\(([^)]*)", page)
    assert linked
    assert {link for link in linked if not link.startswith(("#", "data:"))} == set()
    assert "<script" not in page


def test_it_prints_to_a_file_with_pages(page, tmp_path):
    source, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    source.write_text(page)
    chromium(f"--print-to-pdf={printed}", source.as_uri(), folder=tmp_path)
    assert printed.read_bytes().startswith(b"%PDF")
    assert printed.stat().st_size > 10_000
