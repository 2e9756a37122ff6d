"""What a launch refuses before any process starts: nothing is written, and everything that is wrong is told at once."""

import json

import pytest
import yaml
from simulator.commands import refused, run
from simulator.network import make_study

from fedhealth.config import Workdir
from fedhealth.embedded.consortium import Consortium, SiteEntry
from fedhealth.embedded.preflight import check_launch
from fedhealth.errors import ConfigError, PolicyError

SITES = ("hospital-01", "hospital-02", "hospital-03")


@pytest.fixture
def consortium(tmp_path):
    for name in SITES:
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "Patient.ndjson").write_text("")
    return Consortium(sites=[SiteEntry(name=name, fhir=tmp_path / "data" / name) for name in SITES])


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "work")


def says(workdir, site, text):
    workdir.site(site).mkdir(parents=True, exist_ok=True)
    (workdir.site(site) / "policy.yaml").write_text(text)


def test_a_launch_of_sites_without_policies_is_let_through_and_leaves_nothing(consortium, workdir):
    check_launch([make_study()], consortium, workdir)
    assert not workdir.path.exists()


def test_all_broken_policies_are_told_at_once_with_file_and_key(consortium, workdir):
    says(workdir, "hospital-01", "max_epsilonn: 2.0\n")
    says(workdir, "hospital-02", "min_sites: 3\n")
    says(workdir, "hospital-03", "min_sites: many\n")
    with pytest.raises(ConfigError) as caught:
        check_launch([make_study()], consortium, workdir)
    problem = caught.value.problem
    assert f"{workdir.site('hospital-01')}/policy.yaml: max_epsilonn is not a key" in problem
    assert "did you mean max_epsilon?" in problem
    assert f"{workdir.site('hospital-03')}/policy.yaml: min_sites must be a number" in problem
    assert "hospital-02" not in problem


def test_a_study_that_too_few_policies_allow_is_refused_with_what_they_say(consortium, workdir):
    plain = make_study(aggregation={"mode": "plain"})
    with pytest.raises(PolicyError) as caught:
        check_launch([plain], consortium, workdir)
    assert "not masked (require_masks), says hospital-01, hospital-02, hospital-03" in caught.value.problem
    assert "set aggregation.mode to masks, or write require_masks: false" in caught.value.fix
    for name in SITES:
        says(workdir, name, "require_masks: false\n")
    check_launch([plain], consortium, workdir)
    says(workdir, "hospital-02", "require_masks: false\nallowed_studies: [death-*]\n")
    with pytest.raises(PolicyError) as caught:
        check_launch([plain], consortium, workdir)
    assert "(allowed_studies), says hospital-02; 2 sites are left, 3 are needed" in caught.value.problem
    assert "allowed_studies: [tiny]" in caught.value.fix


def test_a_site_that_may_stay_away_stops_no_launch(consortium, workdir, tmp_path):
    entries = (*consortium.sites, SiteEntry(name="hospital-04", fhir=tmp_path / "data" / SITES[0]))
    says(workdir, "hospital-04", "allowed_studies: []\n")
    check_launch([make_study()], Consortium(sites=entries), workdir)


@pytest.mark.slow
def test_the_command_refuses_before_it_writes_or_starts_anything(consortium, workdir, tmp_path):
    sites = [f"--site={entry.name}={entry.fhir}" for entry in consortium.sites]

    def launched(**sections):
        study = json.loads(make_study(**sections).canonical())
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
        return run(tmp_path, "study", "run", "study.yaml", *sites, "--workdir", "work")

    refused(launched(aggregation={"min_sites": 4}), 1, "3 sites are enrolled", "at most 3")
    refused(launched(aggregation={"colluders": 3}), 1, "withstand 2 colluders", "aggregation.colluders")
    refused(launched(aggregation={"robust": "groups"}), 1, "enrol at least 9 sites")
    refused(launched(aggregation={"mode": "plain"}), 1, "require_masks: false")
    small = {"model": {"kind": "linear"}, "aggregation": {"robust": "plausibility"}}
    refused(launched(**small), 1, "fewer than 256", "larger network")
    assert not workdir.path.exists()
    for name in SITES:
        says(workdir, name, "max_epsilonn: 2.0\n")
    refused(launched(), 2, *(f"{name}/policy.yaml" for name in SITES), "max_epsilon?")
    assert sorted(path.name for path in workdir.path.iterdir()) == ["sites"]
