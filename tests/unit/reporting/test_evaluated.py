"""How evaluations of several outcomes are shown: in the page, on screen, as files."""

import io
import json
import re

import pytest
from rich.console import Console
from simulator.reports import SUBGROUPINGS, TARGETS, evaluated_report, evaluation, study_report

from fedhealth.reporting import (
    evaluation_files,
    headlines,
    make_report,
    read_report,
    render_console,
    render_html,
    subgroup_rows,
    write_report_json,
)
from fedhealth.reporting.evaluation_plots import calibration_svg, decision_svg, subgroups_svg
from fedhealth.reporting.plots import rounds_svg
from fedhealth.study.targets import Target

DEATH = TARGETS[:1]


@pytest.fixture(scope="module")
def told():
    return evaluation()


@pytest.fixture(scope="module")
def report():
    return make_report((evaluated_report(), study_report()), open_with={})


@pytest.fixture(scope="module")
def page(report):
    return render_html(report)


def on_screen(report, width=120):
    console = Console(width=width, file=io.StringIO())
    console.print(render_console(report))
    return console.file.getvalue()


def cells(page):
    return re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page)


def has(shown, *wanted):
    """Whether some cells stand one after the other."""
    return any(
        tuple(shown[start : start + len(wanted)]) == wanted for start in range(len(shown) - len(wanted) + 1)
    )


def test_every_outcome_has_its_own_headline(told):
    found = {each.outcome: each for each in headlines(told, TARGETS)}
    assert [(name, each.metric) for name, each in found.items()] == [
        ("death", "auroc"),
        ("disposition", "auroc"),
        ("stay", "r2"),
        ("survival", "c_index"),
    ]
    assert found["stay"].value == told.metrics["stay.r2"]
    assert all(each.low < each.value < each.high for each in found.values())


def test_a_single_outcome_has_a_headline_without_its_name_before_it():
    single = evaluation(DEATH)
    assert "auroc" in single.metrics
    assert headlines(single, DEATH)[0].value == single.metrics["auroc"]
    rows = subgroup_rows(single, DEATH, ("sex",))
    assert [(row.band, row.value) for row in rows] == [
        ("female", single.metrics["sex=female.auroc"]),
        ("male", single.metrics["sex=male.auroc"]),
    ]


def test_every_band_has_a_row_and_those_that_are_hidden_say_nothing(told):
    rows = [row for row in subgroup_rows(told, TARGETS, SUBGROUPINGS) if row.outcome == "death"]
    assert [row.band for row in rows] == ["female", "male", "18-44", "45-64", "65-79", "80+"]
    assert [row.value is None for row in rows] == [False, False, True, False, False, True]
    assert [row.n is None for row in rows] == [row.value is None for row in rows]
    assert all(isinstance(row.n, int) for row in rows if row.n is not None)


def test_the_file_keeps_tables_and_subgroups(report, tmp_path):
    write_report_json(tmp_path / "report.json", report)
    assert read_report(tmp_path / "report.json") == report
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["schema_version"] == 1
    assert content["outcomes"] == ["death", "disposition", "stay", "survival"]
    assert content["tables"]["death.thresholds"][0].keys() >= {"threshold", "sensitivity", "ppv"}
    assert {row["outcome"] for row in content["subgroups"]} == {target.name for target in TARGETS}


def test_a_report_without_the_new_keys_is_still_read(tmp_path):
    write_report_json(tmp_path / "report.json", make_report((study_report(),), open_with={}))
    content = json.loads((tmp_path / "report.json").read_text())
    for part in (content, *content["studies"]):
        for name in ("outcomes", "tables", "subgroups"):
            del part[name]
        for each in part["rounds_figures"]:
            del each["figures"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    old = read_report(tmp_path / "report.json")
    assert old.outcome_names == ("readmission",)
    assert "<h2>Evaluation</h2>" not in render_html(old)


def test_the_page_has_a_part_for_every_outcome(page, told):
    headings = re.findall(r"<h3>(.*?)</h3>", page)
    assert headings == ["ward: death", "ward: disposition", "ward: stay", "ward: survival"]
    assert page.count("Net benefit by threshold") == 1
    assert page.count("Observed rate against mean score") == 1
    assert page.count("by subgroup") == 4
    shown = cells(page)
    for figure in (
        f"{told.metrics['death.brier']:.3f}",
        f"{told.metrics['death.calibration_slope']:.3f}",
        f"{told.metrics['stay.mae']:.3f} [{told.metrics['stay.mae_low']:.3f}, {told.metrics['stay.mae_high']:.3f}]",
        f"{told.metrics['disposition.n']}",
        f"{told.metrics['survival.integrated_brier']:.3f}",
    ):
        assert figure in shown


def test_the_page_has_the_lines_of_the_tables_and_names_what_is_suppressed(page, told):
    table = told.tables["death.thresholds"]
    hidden = [f"{line['threshold']:g}" for line in table if line["ppv"] is None]
    assert hidden
    assert f"Suppressed: {', '.join(hidden)}." in page
    shown = cells(page)
    for line in table:
        if line["ppv"] is not None:
            figures = ("sensitivity", "specificity", "ppv", "npv", "flagged")
            assert has(shown, f"{line['threshold']:g}", *(f"{line[name]:.3f}" for name in figures))
    for line in told.tables["disposition.confusion"]:
        assert has(shown, line["true"], *(f"{line[name]:g}" for name in ("n", "home", "facility", "died")))
    assert has(shown, "80+", "suppressed", "-")


def test_where_everything_is_hidden_it_says_so_and_shows_no_number():
    few = make_report((evaluated_report(DEATH, rows=30),), open_with={})
    page = render_html(few)
    part = page[page.index("<h2>Evaluation</h2>") : page.index("<h2>Rounds</h2>")]
    assert "suppressed (&lt;11) at every threshold" in part
    assert part.count("not told") > 5
    assert "0.000" not in part
    assert "NaN" not in page


def test_plots_say_what_is_suppressed():
    assert "suppressed" in calibration_svg(())
    assert "suppressed" in decision_svg(())
    single = evaluation(DEATH)
    rows = subgroup_rows(single, DEATH, SUBGROUPINGS)
    assert subgroups_svg(rows).count("suppressed") == 2
    assert "suppressed" not in subgroups_svg([row for row in rows if row.value is not None])
    assert "suppressed" not in calibration_svg(single.tables["calibration"])
    assert "dashed: all" in subgroups_svg(rows, overall=0.7)


def test_every_outcome_has_a_column_with_its_metric_on_screen_and_in_the_page(report, page):
    text = on_screen(report)
    for title in ("death (AUROC)", "stay (R²)", "survival (C-index)", "readmission (AUROC)"):
        assert title in text
        assert f">{title}</th>" in page
    assert max(map(len, text.splitlines())) <= 120


def test_a_table_on_screen_adds_up_only_the_epsilons_of_its_own_studies(report):
    lines = [line for line in on_screen(report).splitlines() if "secure + DP" in line]
    assert len(lines) == 2
    assert "7.99 + 7.99" not in lines[0]
    assert "7.99 + 7.99" in lines[1]


def test_rounds_are_drawn_by_metric():
    drawn = rounds_svg((evaluated_report(),))
    for words in ("pooled AUROC", "pooled R²", "pooled C-index", "disposition"):
        assert words in drawn
    assert "suppressed" not in drawn


def test_gains_are_told_by_outcome(report):
    text = on_screen(report, width=160)
    assert "federated, weighted mean over local, ward stay" in text
    assert "+0.000 R²" in text


def test_a_hospital_stands_with_its_figures_and_its_own_models():
    told = evaluated_report().model_copy(
        update={
            "site_figures": {"north": {"auroc": 0.71}},
            "local_models": {"north": {"auroc": 0.64}, "south": {"auroc": None}},
        }
    )
    shown = cells(render_html(make_report((told,), open_with={})))
    assert has(shown, "this model here: auroc", "own model at the others: auroc")
    assert has(shown, "north", "0.710", "0.640")
    assert has(shown, "south", "-", "suppressed")


def test_names_of_outcomes_and_classes_are_escaped():
    evil = "<img src=x onerror=alert(1)>"
    targets = (Target(evil, "classes", outputs=3, classes=(evil, "b", "c")), TARGETS[0])
    told = evaluated_report()
    rows = tuple(row.model_copy(update={"outcome": evil, "band": evil}) for row in told.subgroups[:2])
    confusion = ({"true": evil, "n": 20.0, evil: 20.0},)
    broken = told.model_copy(
        update={
            "outcomes": tuple(target.name for target in targets),
            "tables": {f"{evil}.confusion": confusion},
            "subgroups": rows,
            "metrics": {f"{evil}.{evil}.auroc": 0.7},
        }
    )
    page = render_html(make_report((broken,), open_with={}))
    assert "<img" not in page
    assert page.count("&lt;img") >= 8


def test_files_for_the_run_hold_plots_and_tables(told):
    files = evaluation_files(told, TARGETS, SUBGROUPINGS)
    assert set(files) == {
        *(f"death.{name}.{end}" for name in ("calibration", "decision_curve") for end in ("json", "svg")),
        "death.thresholds.json",
        "disposition.confusion.json",
        *(f"{target.name}.subgroups.{end}" for target in TARGETS for end in ("json", "svg")),
    }
    assert files == evaluation_files(told, TARGETS, SUBGROUPINGS)
    assert json.loads(files["death.thresholds.json"]) == [
        dict(line) for line in told.tables["death.thresholds"]
    ]
    assert all(data.startswith(b"<svg") for name, data in files.items() if name.endswith(".svg"))


def test_files_of_a_single_outcome_without_subgroups_have_plain_names():
    assert set(evaluation_files(evaluation(DEATH), DEATH, ())) == {
        "calibration.json",
        "calibration.svg",
        "decision_curve.json",
        "decision_curve.svg",
        "thresholds.json",
    }
