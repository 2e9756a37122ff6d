import io
import json

import pytest
from pydantic import ValidationError
from rich.console import Console
from simulator.reports import combined_round, combining, row, study_report

from fedhealth.reporting import make_report, read_report, render_console, render_html, write_report_json
from fedhealth.reporting.plots import comparison_svg, rounds_svg
from fedhealth.reporting.report import SiteQuality, SiteState, Trial
from fedhealth.reporting.words import columns, lines

DOCUMENTED = {
    "schema_version": None,
    "study": None,
    "sites": ["name", "state", "reason"],
    "rounds": None,
    "comparison": ["outcome", "model", "metric", "value", "low", "high"],
    "privacy": ["unit", "mode", "epsilon", "delta", "per_site", "not_covered"],
    "upload_bytes_per_site_round": None,
    "seconds": None,
    "model": ["name", "version", "uri"],
    "log": ["size", "root", "verified"],
    "studies": None,
}


def on_screen(report):
    console = Console(width=120, file=io.StringIO())
    console.print(render_console(report))
    return console.file.getvalue()


def test_the_file_has_the_documented_keys(report, tmp_path):
    write_report_json(tmp_path / "report.json", report)
    content = json.loads((tmp_path / "report.json").read_text())
    for key, inner in DOCUMENTED.items():
        assert key in content
        part = content[key][0] if isinstance(content[key], list) else content[key]
        assert set(inner or ()) <= set(part if isinstance(part, dict) else ())
    assert read_report(tmp_path / "report.json") == report


def test_epsilons_of_studies_add_up_and_one_without_a_guarantee_leaves_none():
    private = study_report()
    both = make_report((private, private), open_with={})
    assert both.epsilon_sum == pytest.approx(15.98)
    open_mode = private.privacy.model_copy(update={"mode": "none", "epsilon": None})
    assert make_report((private, study_report(privacy=open_mode)), open_with={}).epsilon_sum is None


def test_rows_of_all_studies_stand_in_the_comparison():
    second = study_report(
        outcome="death", comparison=(row("federated_dp", outcome="death", is_reference=False),)
    )
    report = make_report((study_report(), second), open_with={})
    assert {each.outcome for each in report.comparison} == {"readmission", "death"}
    assert report.study == "readmission-30d"


def test_an_unknown_key_or_a_figure_that_is_no_number_is_refused():
    with pytest.raises(ValidationError):
        study_report(colour="blue")
    with pytest.raises(ValidationError):
        study_report(upload_bytes_per_site_round="many")


def test_nan_never_reaches_the_file(tmp_path):
    report = make_report((study_report(metrics={"auroc": float("nan")}),), open_with={})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_report_json(tmp_path / "report.json", report)
    assert not (tmp_path / "report.json").exists()


def test_the_screen_shows_every_model_epsilon_and_what_is_not_covered(report):
    text = on_screen(report)
    for word in ("local only", "secure + DP", "centralised", "∞ (reference)", "7.99", "2 of 3", "harmonise"):
        assert word in text
    assert "moments & histograms" in text
    assert "abstained: validation/person/cdmDatatype" in text


@pytest.mark.parametrize("render", [on_screen, render_html])
def test_a_suppressed_figure_is_called_so_and_never_zero(render):
    hidden = study_report(comparison=(row("federated_dp", None, is_reference=False),))
    text = render(make_report((hidden,), open_with={}))
    assert "suppressed" in text
    assert ">0.000" not in text
    assert " 0.000" not in text


def test_the_page_escapes_what_it_is_given(report):
    page = render_html(report)
    assert "&lt;30&gt; days &amp; counted" in page
    assert "<30>" not in page


def test_names_of_sites_reasons_and_commands_are_escaped():
    evil = "<img src=x onerror=alert(1)>"
    site = SiteState(name=evil, state="abstained", reason=evil)
    study = study_report(
        study=evil, outcome=evil, sites=(site,), notes=(evil,), missing_features=(evil,), seconds={evil: 1.0}
    )
    study = study.model_copy(update={"comparison": (row("centralised", outcome=evil),)})
    page = render_html(make_report((study,), open_with={evil: evil}))
    assert "<img" not in page
    assert page.count("&lt;img") >= 9


def test_the_page_asks_nothing_of_any_server(report):
    page = render_html(report)
    assert "<script" not in page
    assert 'src="http' not in page
    assert "@import" not in page


def test_a_log_that_does_not_verify_is_called_out():
    broken = study_report(log=study_report().log.model_copy(update={"verified": False}))
    report = make_report((broken,), open_with={})
    assert "NOT VERIFIED" in render_html(report)
    assert "NOT VERIFIED" in on_screen(report)


def test_a_reference_has_no_guarantee_beside_a_study_whose_own_model_it_is():
    private = study_report(comparison=(row("federated", 0.7), row("federated_dp", 0.6, is_reference=False)))
    public = study_report(
        study="open",
        outcome="death",
        comparison=(row("federated", 0.8, outcome="death", is_reference=False),),
        privacy=private.privacy.model_copy(update={"mode": "none", "epsilon": None}),
    )
    report = make_report((private, public), open_with={})
    shown = {line.split("│")[1].strip(): line for line in on_screen(report).splitlines() if "│" in line}
    assert "∞ (reference)" in shown["federated, weighted mean"]
    assert "0.700" in shown["federated, weighted mean"]
    assert "∞" in shown["federated, secure"]
    assert "reference" not in shown["federated, secure"]
    assert "∞" not in shown["federated, secure + DP"]
    assert "reference, epsilon = ∞" in render_html(report)


def test_two_studies_of_one_outcome_keep_their_own_figures():
    second = study_report(study="readmission-again", comparison=(row("centralised", 0.123),))
    text = on_screen(make_report((study_report(), second), open_with={}))
    (line,) = [line for line in text.splitlines() if "centralised" in line]
    assert "0.680" in line
    assert "0.123" in line


@pytest.mark.parametrize("render", [on_screen, render_html])
def test_what_only_the_second_study_says_is_shown_too(render):
    privacy = study_report().privacy.model_copy(update={"not_covered": ("vocabulary of drugs",)})
    states = study_report().sites[:1]
    second = study_report(study="second", privacy=privacy, notes=("only here",), sites=states)
    text = render(make_report((study_report(), second), open_with={}))
    for words in ("moments", "vocabulary of drugs", "embedded run", "only here", "2 of 3", "1 of 1"):
        assert words in text


@pytest.mark.parametrize("render", [on_screen, render_html])
def test_an_unknown_size_is_not_shown_as_zero(render):
    text = render(make_report((study_report(upload_bytes_per_site_round=0),), open_with={}))
    assert "not available" in text
    assert "0 kB" not in text


def test_plots_name_what_is_suppressed():
    rounds = tuple(each.model_copy(update={"auroc": None}) for each in study_report().rounds_figures)
    hidden = study_report(comparison=(row("federated_dp", None, is_reference=False),), rounds_figures=rounds)
    report = make_report((hidden,), open_with={})
    (column,) = columns(report)
    assert "suppressed" in comparison_svg(column, lines(report))
    assert "readmission: suppressed" in rounds_svg(report.studies)
    assert "suppressed" not in rounds_svg((study_report(),))


def test_the_same_report_gives_the_same_page(report):
    assert render_html(report) == render_html(report)


def test_hidden_attrition_cells_are_shown_as_hidden(report):
    page = render_html(report)
    assert "<td>80</td><td>hidden</td>" in page


@pytest.mark.parametrize("render", [on_screen, render_html])
@pytest.mark.parametrize(("value", "told"), [(0.676, "+0.126"), (0.5, "-0.050"), (None, None)])
def test_what_federation_gains_over_sites_alone_is_told_as_it_is(render, value, told):
    comparison = (row("local_mean", 0.55), row("federated", value))
    text = render(make_report((study_report(comparison=comparison),), open_with={}))
    assert ("over" in text and "neither private" in text) is (told is not None)
    assert told is None or told in text


def test_what_sites_told_of_their_data_is_shown_by_name():
    quality = {
        "hospital-01": SiteQuality(passed=9, failed=("measurement/x:y", "death/z"), drift=()),
        "hospital-02": SiteQuality(
            passed=10, failed=("death/z",), drift=("drift/measurement/value:glucose",)
        ),
    }
    page = render_html(make_report((study_report(quality=quality),), open_with={}))
    assert "<td>hospital-01</td><td>9</td><td>2</td><td>-</td>" in page
    assert "<td>hospital-02</td><td>10</td><td>1</td><td>drift/measurement/value:glucose</td>" in page
    assert "<td>death/z</td><td>2 of 2</td>" in page


def test_rates_that_were_tried_are_shown_with_the_chosen_one():
    trials = (
        Trial(learning_rate=0.03, signal=None, is_chosen=False),
        Trial(learning_rate=0.1, signal=0.6125, is_chosen=True),
    )
    page = render_html(make_report((study_report(trials=trials),), open_with={}))
    told = page[page.index("Learning rates tried") :]
    assert told.index("0.03") < told.index("hidden") < told.index("0.613") < told.index("chosen")
    assert "Learning rates tried" not in render_html(make_report((study_report(),), open_with={}))


@pytest.mark.parametrize(
    ("found", "mode", "label"),
    [
        ({}, "local", "federated, secure + DP"),
        ({}, "none", "federated, secure"),
        ({"weighting": "uniform"}, "none", "federated, unweighted, secure"),
        ({"mode": "he"}, "local", "federated, encrypted + DP"),
        ({"mode": "plain"}, "none", "federated, in the clear"),
        ({"mode": "plain", "robust": "median"}, "none", "federated, median, in the clear"),
        ({"mode": "plain", "robust": "krum", "attackers": 1}, "local", "federated, Krum, in the clear + DP"),
        ({"robust": "plausibility"}, "none", "federated, plausible, secure"),
        ({"robust": "groups", "attackers": 1, "group_size": 3}, "none", "federated, by groups, secure"),
        ({"grows": True}, "none", "federated, grown by sums, secure"),
    ],
)
def test_a_studys_own_model_is_called_by_what_the_study_did(found, mode, label):
    """References keep their names: they are weighted means in the clear, whatever the study does."""
    epsilon = None if mode == "none" else 7.99
    privacy = study_report().privacy.model_copy(update={"mode": mode, "epsilon": epsilon})
    own = row("federated" if mode == "none" else "federated_dp", 0.66, is_reference=False)
    study = study_report(comparison=(row("local_mean"), own), combining=combining(**found), privacy=privacy)
    report = make_report((study,), open_with={})
    assert [line.label for line in lines(report)] == ["local only (mean over sites)", label]
    for text in (on_screen(report), render_html(report)):
        assert label in text
        assert label == "federated, secure + DP" or "secure + DP" not in text


def test_a_gain_is_told_of_the_model_that_has_it():
    study = study_report(
        comparison=(row("local_mean", 0.55), row("federated", 0.6, is_reference=False)),
        combining=combining(mode="plain", robust="median"),
        privacy=study_report().privacy.model_copy(update={"mode": "none", "epsilon": None}),
    )
    report = make_report((study,), open_with={})
    assert "federated, median, in the clear over local" in on_screen(report)
    assert "+0.050 AUROC (federated, median, in the clear)" in render_html(report)
    assert "weighted" not in render_html(report).partition("<h2>Comparison</h2>")[0]


def test_the_page_says_how_updates_were_combined_in_a_line_for_rounds_that_are_alike():
    rounds = [combined_round(number, agreed=2 + number % 3) for number in range(1, 21)]
    rounds[11] = combined_round(
        12,
        included=("hospital-01",),
        left_out=dict.fromkeys(("hospital-02", "hospital-03"), "no answer"),
        contradicted=("hospital-02",),
        upload_bytes={"hospital-01": 99_000},
    )
    found = combining(
        robust="groups",
        attackers=2,
        group_size=4,
        ring_bits=8,
        sent_share=0.25,
        rounds=tuple(rounds),
        blamed={"hospital-02": "its update <is> far too long"},
    )
    page = render_html(
        make_report((study_report(combining=found, rounds=20, rounds_planned=20),), open_with={})
    )
    told = page.partition("<h2>How updates were combined</h2>")[2].partition("<h2>")[0]
    for cell in (
        "secret, under masks: only the sum of each group is opened",
        "trimmed mean of the groups&#x27; means (groups of 4 sites or more, bears 2 that lie)",
        "8, rounded; the first of a run exact",
        "25% of the parameters",
        "2 sites or more, as 1 may collude",
    ):
        assert f"<td>{cell}</td>" in told
    assert told.count("<tr>") == 2 + 1 + 3
    assert "<td>1 to 11</td><td>2 of 3</td><td>hospital-03: abstained: validation" in told
    assert "<td>2 to 4 of 3</td><td>2 of 3</td><td>354 kB to 361 kB</td>" in told
    assert "<td>12</td><td>1 of 3</td><td>hospital-02, hospital-03: no answer</td>" in told
    assert "<td>2 of 3, not hospital-02</td>" in told
    assert "<td>99 kB</td>" in told
    assert "Blamed by the coordinator since it was started: hospital-02: its update &lt;is&gt; far" in told


def test_a_report_of_an_earlier_version_is_read_and_claims_nothing_of_its_updates(report, tmp_path):
    write_report_json(tmp_path / "report.json", report)
    content = json.loads((tmp_path / "report.json").read_text())
    for part in (content, *content["studies"]):
        del part["combining"], part["rounds_planned"], part["log"]["proves"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    earlier = read_report(tmp_path / "report.json")
    assert "federated + DP" in on_screen(earlier)
    assert "secure" not in on_screen(earlier)
    assert "Not known" in render_html(earlier)


@pytest.mark.parametrize("render", [on_screen, render_html])
@pytest.mark.parametrize(
    ("rounds", "told"),
    [
        (2, "2 training rounds, after round 0"),
        (1, "1 training round, after round 0; stopped early of 2 planned"),
    ],
)
def test_rounds_are_counted_in_the_same_words(render, rounds, told):
    assert told in render(make_report((study_report(rounds=rounds),), open_with={}))


def test_the_report_says_that_the_log_does_not_prove_it(report, tmp_path):
    page = render_html(report)
    (told,) = [line for line in page.split("<p>") if line.startswith("Log: 29 entries")]
    for words in ("not this report", "<code>fedhealth audit verify WORKDIR</code>", "audit export"):
        assert words in told
    assert "not this report" in on_screen(report)
    assert "not this report" in report.model_dump()["log"]["proves"]
