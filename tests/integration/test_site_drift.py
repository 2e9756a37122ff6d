"""Sites compare their data in a run: profiles in a secure sum, each site judges itself, the others hear names alone."""

from dataclasses import replace

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from simulator.hospital import SECRET
from simulator.network import SITES, Network, make_study

from fedhealth.aggregation.profiles import profile_length
from fedhealth.cdm import harmonize
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.rounds.site_drift import own_profile
from fedhealth.synthetic.consortium import generate_hospital
from fedhealth.synthetic.site_map import write_site_map
from fedhealth.vocabulary.concepts import SERIES_CONCEPTS

pytestmark = pytest.mark.slow

GLUCOSE = ", ".join(str(concept.concept_id) for concept in SERIES_CONCEPTS["glucose"])
FOUR = (*SITES, "hospital-04")


@pytest.fixture(scope="module")
def cdms(tmp_path_factory):
    """The CDMs of four made-up hospitals."""
    folder = tmp_path_factory.mktemp("hospitals")
    for index, name in enumerate(FOUR):
        hospital, dialect, lines, _ = generate_hospital(index, patients=250, seed=3)
        (folder / name / "fhir").mkdir(parents=True)
        (folder / name / "map").mkdir()
        write_site_map(folder / name / "map", hospital.name, dialect, extract_date="2026-01-31")
        for kind, texts in lines.items():
            (folder / name / "fhir" / f"{kind}.ndjson").write_bytes(b"\n".join(texts) + b"\n")
        harmonize(
            folder / name / "fhir",
            folder / name / "cdm",
            site=name,
            site_map=folder / name / "map",
            site_secret=SECRET,
            validate="off",
            workers=2,
        )
    return folder


def network_of(folder, cdms, **faults):
    """Four sites with these CDMs; a fault is SQL for the value of glucose."""
    study = make_study(evaluation={"compare_sites": True})
    network = Network(folder, study, sites=FOUR)
    for name in FOUR:
        target = network.site_folder(name).cdm
        for path in (cdms / name / "cdm").iterdir():
            if path.is_file():
                (target / path.name).write_bytes(path.read_bytes())
        own = pq.read_table(target / "person.parquet", columns=["person_id"]).column(0).to_numpy()
        rows = network.rows[name]
        network.give_rows(name, replace(rows, person=own[rows.person]))  # of people whom the CDM holds
        if fault := faults.get(name.replace("-", "_")):
            with duckdb.connect(":memory:") as database:
                database.execute(f"CREATE TABLE m AS FROM '{target}/measurement.parquet'")
                database.execute(
                    f"UPDATE m SET value_as_number = {fault} WHERE measurement_concept_id IN ({GLUCOSE})"
                )
                database.execute(f"COPY m TO '{target}/measurement.parquet'")
    return network


def run(network):
    network.coordinator.start_run(network.study, run="run-1", seed=7)
    threads, outcomes, errors = network.follow("run-1")
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=60)
    assert errors == {}
    return closed, outcomes


def test_sites_that_are_alike_find_nothing_and_all_train(tmp_path, cdms):
    network = network_of(tmp_path, cdms)
    closed, outcomes = run(network)
    assert outcomes == {name: ["done"] * 4 for name in FOUR}
    assert closed[0].survivors["profile"] == FOUR
    told = network.coordinator.account("run-1").drift()
    assert set(told) == set(FOUR)
    assert "fatal" not in {grave for each in told.values() for grave in each.found.values()}


def test_a_site_whose_unit_is_wrong_finds_it_itself_and_abstains(tmp_path, cdms):
    network = network_of(tmp_path, cdms, hospital_02="value_as_number / 18.016")
    closed, outcomes = run(network)
    assert outcomes["hospital-02"] == ["left_out", *["abstained"] * 3]
    assert closed[0].survivors["profile"] == FOUR
    assert closed[0].survivors["moments"] == tuple(name for name in FOUR if name != "hospital-02")
    assert {name: found for name, found in outcomes.items() if name != "hospital-02"} == {
        name: ["done"] * 4 for name in FOUR if name != "hospital-02"
    }
    told = network.coordinator.account("run-1").drift()
    assert told["hospital-02"].found["drift/measurement/value:glucose"] == "fatal"
    assert (
        network.coordinator.account("run-1").attendance()["hospital-02"]
        == "abstained: drift/measurement/value:glucose"
    )


def test_what_is_published_is_the_sum_without_small_bins(tmp_path, cdms):
    network = network_of(tmp_path, cdms)
    run(network)
    published = read_aggregate(network.coordinator.board, "coordinator", "run-1", 0).tensors["profile"]
    total = sum(own_profile(network.site_folder(name), "run-1").to_vector() for name in FOUR)
    assert published.shape == (profile_length(),)
    assert np.array_equal(published, np.where(total < 11, 0, total))
    assert ((published == 0) | (published >= 11)).all()
