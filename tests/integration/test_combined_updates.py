"""What a report says of how updates were combined is what lies on the exchange after real rounds."""

from dataclasses import replace

import numpy as np
import pytest
from mlflow import MlflowClient
from simulator.network import TIMEOUTS, Network, make_rows, make_study

from fedhealth.embedded.study_report import study_report
from fedhealth.embedded.study_result import StudyResult
from fedhealth.errors import MissingObjectError
from fedhealth.exchange.board import Reader
from fedhealth.registry import Registry, artifact_folder, store_uri
from fedhealth.registry.record import StudyRecord
from fedhealth.reporting.combined import RoundTold, combining
from fedhealth.reporting.words import rounds_of
from fedhealth.rounds.account import RunAccount
from fedhealth.rounds.groups import groups_of
from fedhealth.rounds.site_data import SiteDataState, record_state

FIVE = tuple(f"hospital-{number:02d}" for number in range(1, 6))
TWELVE = tuple(f"hospital-{number:02d}" for number in range(1, 13))
ONE_ROUND = {"rounds": 1, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}}
QUICK = replace(TIMEOUTS, phase_timeout_s=5, ready_timeout_s=5)


def reversed_far(vector):
    """The update the other way and eight times as far; the weight at its end stays."""
    return np.append(np.clip(-8 * vector[:-1], -(2**27), 2**27), vector[-1])


def finished(folder, *, sites=FIVE, dying=None, lies=None, bad=(), patients=80, **sections):
    """A run to its end, and what its report would say of it; ``bad`` sites fail their gate."""
    study = make_study(**{"model": {"kind": "linear"}, "training": ONE_ROUND} | sections)
    network = Network(folder, study, sites=sites, lies=lies, timeouts=QUICK)
    network.allow_plain()
    for seed, name in enumerate(sites):
        network.give_rows(name, make_rows(study, seed, patients=patients))
    for name in bad:
        record_state(network.site_folder(name), SiteDataState(passed=False, reason="validation/person/x"))
    network.coordinator.start_run(study, run="run-1", seed=7)
    threads, _, _ = network.follow("run-1", dying=dying)
    closed = network.run_rounds("run-1")
    for thread in threads:
        thread.join(timeout=60)
    return network, closed, told_of(network, closed)


def told_of(network, closed):
    board = network.coordinator.board
    account = RunAccount(Reader(board.exchange, board.roster), "coordinator", "run-1", network.study)
    rounds = [RoundTold.from_json(each.to_json()) for each in closed]
    return combining(account, rounds, blamed=network.coordinator.blamed)


def test_a_quiet_run_has_all_sites_in_every_training_round_and_nobody_blamed(tmp_path):
    network, closed, told = finished(
        tmp_path, training=ONE_ROUND | {"rounds": 2}, aggregation={"colluders": 2}
    )
    assert [each.round for each in told.rounds] == [1, 2]
    assert (told.mode, told.robust, told.colluders, told.reopened_by) == ("masks", "none", 2, 3)
    assert (told.attackers, told.group_size, told.blamed) == (None, None, {})
    for each, of_round in zip(told.rounds, closed[1:3], strict=True):
        assert (each.included, each.left_out, each.contradicted) == (FIVE, {}, ())
        assert 3 <= each.agreed <= 5
        assert each.cosigners == len(of_round.cosigners)
        assert each.upload_bytes == dict(of_round.upload_bytes)
    (network.folder / "exchange/runs/run-1/rounds/2/aggregate").unlink()
    with pytest.raises(MissingObjectError):
        told_of(network, closed)


@pytest.mark.slow
def test_who_abstains_who_dies_and_who_is_not_plausible_is_left_out_for_that(tmp_path):
    network, _, told = finished(
        tmp_path,
        sites=TWELVE[:9],
        lies={TWELVE[1]: reversed_far},
        dying={TWELVE[2]: "sums/1/update/0/0/masked"},
        bad=TWELVE[3:4],
        model={"kind": "mlp", "hidden": [16], "dropout": []},
        aggregation={"robust": "plausibility"},
    )
    (found,) = told.rounds
    assert found.left_out == {
        TWELVE[1]: "its update was not plausible",
        TWELVE[2]: "no update in time, or a malformed one",
        TWELVE[3]: "abstained: validation/person/x",
    }
    assert told.blamed == network.coordinator.blamed
    assert set(told.blamed) == {TWELVE[1]}


@pytest.mark.slow
def test_a_group_that_lost_a_site_is_left_out_whole(tmp_path):
    groups = {"robust": "groups"}
    study = make_study(model={"kind": "linear"}, training=ONE_ROUND, aggregation=groups)
    lost, *others = groups_of(study, TWELVE)
    _, _, told = finished(
        tmp_path,
        sites=TWELVE,
        dying={lost[0]: "sums/1/update/0/0/masked"},
        aggregation=groups,
        patients=400,
    )
    (found,) = told.rounds
    assert found.included == tuple(sorted(site for group in others for site in group))
    assert set(found.left_out) == set(lost)
    assert all("its group was left out" in why for why in found.left_out.values())
    assert (told.group_size, told.attackers) == (3, 1)


@pytest.mark.slow
def test_in_the_clear_an_update_that_does_not_come_is_told_too(tmp_path):
    _, _, told = finished(
        tmp_path,
        dying={FIVE[2]: "sums/1/update/0/0/clear"},
        aggregation={"mode": "plain", "robust": "median"},
    )
    (found,) = told.rounds
    assert found.included == (*FIVE[:2], *FIVE[3:])
    assert found.left_out == {FIVE[2]: "no update in time, or one beyond the public bound"}
    assert (told.mode, told.robust) == ("plain", "median")


@pytest.mark.slow
def test_a_model_that_grows_has_the_sites_of_all_its_sums(tmp_path):
    _, _, told = finished(
        tmp_path,
        dying={FIVE[2]: "sums/1/growth/1/0/masked"},
        model={"kind": "gbm"},
        training={"rounds": 1},
        patients=200,
    )
    (found,) = told.rounds
    assert told.grows
    assert found.included == (*FIVE[:2], *FIVE[3:])
    assert found.left_out == {FIVE[2]: "no update in time, or a malformed one"}


def test_rounds_of_a_run_that_stops_early_are_counted_alike_in_report_and_registry(tmp_path):
    training = ONE_ROUND | {"rounds": 9, "optimizer": {"lr": 1e-12}, "early_stopping": {"patience": 1}}
    network, closed, told = finished(tmp_path / "network", training=training, split={"validation": 0.0})
    registry = Registry(store_uri(tmp_path), artifact_root=artifact_folder(tmp_path))
    record = StudyRecord(node=network.coordinator, registry=registry, run="run-1")
    record.record_rounds()
    record.register()
    result = StudyResult(
        study=network.study.canonical(),
        coordinator=(network.coordinator.folder / "runs/run-1/result.json").read_text(),
        references=(),
        local_models={},
        states={},
        attrition={},
        verified={"size": 1, "root": "ab", "ok": True, "cosigners": []},
    )
    report = study_report(result, {}, {}, told)
    last = closed[-1].round
    assert 1 < last < 9
    words = f"{last - 1} training round{'s' * (last > 2)}, after round 0; stopped early of 9 planned"
    assert rounds_of(report) == words
    assert [each.round for each in told.rounds] == list(range(1, last))
    client = MlflowClient(store_uri(tmp_path))
    run = record.open()
    assert client.get_run(run.mlflow_run).data.tags["rounds"] == words
    nested = client.search_runs([run.experiment_id], "tags.`fedhealth.round` LIKE '%'")
    kinds = {int(each.data.tags["fedhealth.round"]): each.data.params["kind"] for each in nested}
    assert kinds == {0: "preprocessing"} | dict.fromkeys(range(1, last), "training") | {last: "scoring"}
    assert "no noise at all" in report.privacy.not_covered[0]
    assert not any("shares them" in line for line in report.privacy.not_covered)
