"""The registry on SQLite: what is recorded, what a second call adds, what a loaded model answers."""

import hashlib
import os
import pickletools
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedhealth.errors import ConfigError, TransportError
from fedhealth.models.inputs import RawInputs
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights, digest
from fedhealth.registry import Registry, StudyRun, artifact_folder, prepare_store, store_uri
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import Study

NAME = "readmission-30d"


@pytest.fixture(scope="session")
def study() -> Study:
    outcome = {"kind": "readmission", "within_days": 30, "follow_up_days": 30}
    body = {"schema_version": 1, "name": NAME, "title": "A study", "outcomes": {"readmission": outcome}}
    return Study.model_validate(body)


@pytest.fixture(scope="session")
def statistics(study: Study) -> Statistics:
    columns = feature_columns(study)
    middle = np.array([(column.low + column.high) / 2 for column in columns], dtype=np.float32)
    sd = np.ones(len(columns), dtype=np.float32)
    return Statistics(mean=middle, sd=sd, median=middle, count=np.full(len(columns), 400.0))


@pytest.fixture(scope="session")
def weights(study: Study) -> Weights:
    from fedhealth.models.networks import initial_weights

    return initial_weights(study, inputs=128, seed=7)


@pytest.fixture(scope="session")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    prepare_store(store_uri(folder))
    return folder


@pytest.fixture
def registry(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    ticks = _ticking(1_700_000_000.0)
    return Registry(store_uri(workdir), artifact_root=artifact_folder(workdir), clock=lambda: next(ticks))


def _ticking(start: float) -> Iterator[float]:
    while True:
        yield start
        start += 1.0


@pytest.fixture
def run(registry: Registry, request: pytest.FixtureRequest) -> StudyRun:
    return registry.start_study_run(
        NAME, request.node.name, params={"epsilon": 3.0}, tags={"mode": "embedded"}
    )


def _log(run: StudyRun, number: int, **metrics: float | None) -> str:
    return run.log_round(
        number, metrics, params={"sites": 15}, digests={"model": "ab"}, log_index=number, duration_s=1.5
    )


def test_a_round_is_a_nested_run_and_a_step_of_the_parent(run: StudyRun, workdir: Path) -> None:
    for number in (1, 2):
        _log(run, number, auroc=0.6 + number / 10, brier=None)
    with sqlite3.connect(workdir / "mlflow" / "mlflow.db") as db:
        steps = db.execute(
            "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = 'auroc' ORDER BY step",
            (run.mlflow_run,),
        ).fetchall()
        nested = db.execute("SELECT run_uuid FROM tags WHERE value = ?", (run.mlflow_run,)).fetchall()
        suppressed = db.execute("SELECT count(*) FROM metrics WHERE key = 'brier'").fetchone()
        length_ms = db.execute("SELECT end_time - start_time FROM runs WHERE name = 'round-01'").fetchone()
    assert steps == [(1, 0.7), (2, 0.8)]
    assert len(nested) == 2
    assert suppressed == (0,)
    assert length_ms == (1500,)


def test_a_restarted_coordinator_finds_its_run_and_repeats_no_round(
    registry: Registry, run: StudyRun
) -> None:
    first = _log(run, 1, auroc=0.7)
    again = registry.start_study_run(NAME, run.run_id, params={"epsilon": 3.0}, tags={})
    assert again.mlflow_run == run.mlflow_run
    assert _log(again, 1, auroc=0.7) == first
    assert len([each for each in registry.search(NAME) if each.run_id == run.run_id]) == 1


def test_another_value_of_a_logged_parameter_is_refused(registry: Registry, run: StudyRun) -> None:
    with pytest.raises(TransportError, match="could not open a run"):
        registry.start_study_run(NAME, run.run_id, params={"epsilon": 8.0}, tags={})


def test_search_lists_studies_and_not_their_rounds(registry: Registry, run: StudyRun) -> None:
    _log(run, 1, auroc=0.7)
    run.log_metrics({"auroc": 0.91})
    run.finish(succeeded=True)
    found = registry.search(NAME, where="metrics.auroc > 0.9")
    assert [each.run_id for each in found] == [run.run_id]
    assert found[0].status == "FINISHED"
    assert registry.search("unknown-study") == ()


def test_figures_of_subgroups_and_classes_are_found_by_their_names(registry: Registry, run: StudyRun) -> None:
    run.log_metrics({"death.sex=female.auroc": 0.7, "age_band=80+.n": 40, "where.home.auroc": 0.8})
    (found,) = [each for each in registry.search(NAME) if each.run_id == run.run_id]
    assert found.metrics["death.sex:female.auroc"] == 0.7
    assert found.metrics["age_band:80 and over.n"] == 40
    assert found.metrics["where.home.auroc"] == 0.8


def test_no_user_source_or_commit_is_recorded(run: StudyRun, workdir: Path) -> None:
    with sqlite3.connect(workdir / "mlflow" / "mlflow.db") as db:
        keys = {key for (key,) in db.execute("SELECT key FROM tags WHERE run_uuid = ?", (run.mlflow_run,))}
    assert keys == {"mlflow.runName", "fedhealth.run", "mode"}


def test_a_registered_model_answers_as_the_network_does(
    registry: Registry, run: StudyRun, weights: Weights, statistics: Statistics, study: Study
) -> None:
    from fedhealth.models.scoring import predict

    model = registry.register(run, weights, statistics, study, metrics={"auroc": 0.8}, tags={"log_index": 9})
    rng = np.random.default_rng(0)
    rows = (statistics.mean + rng.normal(size=(5, 128))).astype(np.float32)
    rows[2, :] = np.nan
    names = pd.Index([column.name for column in feature_columns(study)], dtype=object)
    table = pd.DataFrame(rows.astype(np.float64), columns=names)
    loaded = registry.load(model.name, model.version)
    expected = predict(weights, statistics, study, RawInputs(rows))[:, 0]
    np.testing.assert_array_equal(loaded.predict(table), expected)
    np.testing.assert_array_equal(loaded.predict(table[names[::-1]]), expected)
    example = loaded.input_example
    np.testing.assert_array_equal(np.asarray(example)[0], statistics.median.astype(np.float64))
    assert registry.model_tags(model.name, model.version)["log_index"] == "9"


def test_the_weights_of_a_version_are_read_back_for_transfer(
    registry: Registry, run: StudyRun, weights: Weights, statistics: Statistics, study: Study
) -> None:
    model = registry.register(run, weights, statistics, study, metrics={}, tags={})
    again = registry.weights(model.name, model.version)
    assert digest(again) == registry.model_tags(model.name, model.version)["model_digest"]


def test_loading_by_registry_name_works_and_is_no_edit(
    registry: Registry,
    run: StudyRun,
    weights: Weights,
    statistics: Statistics,
    study: Study,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    model = registry.register(run, weights, statistics, study, metrics={}, tags={})
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store_uri(workdir))
    try:
        loaded = mlflow.pyfunc.load_model(model.uri)
    finally:
        mlflow.set_tracking_uri(before)
    assert loaded.predict(loaded.input_example).shape == (1,)
    assert registry.model_file_digests(model.name, model.version) == model.file_digests


def test_a_column_that_is_missing_is_refused_by_the_signature(
    registry: Registry, run: StudyRun, weights: Weights, statistics: Statistics, study: Study
) -> None:
    from mlflow.exceptions import MlflowException

    model = registry.register(run, weights, statistics, study, metrics={}, tags={})
    loaded = registry.load(model.name, model.version)
    with pytest.raises(MlflowException, match="missing inputs"):
        loaded.predict(pd.DataFrame({"age": [70.0]}))


def test_registering_twice_adds_one_version(
    registry: Registry, run: StudyRun, weights: Weights, statistics: Statistics, study: Study
) -> None:
    first = registry.register(run, weights, statistics, study, metrics={}, tags={})
    again = registry.register(run, weights, statistics, study, metrics={}, tags={})
    other = registry.register(run, _nudged(weights), statistics, study, metrics={}, tags={})
    assert again == first
    assert other.version == first.version + 1


def test_stored_digests_are_those_of_the_parts_and_show_every_edit(
    registry: Registry, run: StudyRun, weights: Weights, statistics: Statistics, study: Study, workdir: Path
) -> None:
    model = registry.register(run, weights, statistics, study, metrics={}, tags={})
    assert registry.model_file_digests(model.name, model.version) == model.file_digests
    tags = registry.model_tags(model.name, model.version)
    assert model.file_digests["artifacts/weights.safetensors"] == tags["model_digest"]
    assert model.file_digests["artifacts/study.json"] == tags["study_digest"] == study.digest
    assert model.file_digests["artifacts/statistics.safetensors"] == tags["statistics_digest"]
    for path in model.file_digests:
        stored = _stored(workdir, model.file_digests, path)
        before = stored.read_bytes()
        stored.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        now = registry.model_file_digests(model.name, model.version)
        assert {name for name in now if now[name] != model.file_digests[name]} == {path}
        stored.write_bytes(before)
    extra = _stored(workdir, model.file_digests, "MLmodel").with_name("extra.py")
    extra.write_text("1")
    assert "extra.py" in registry.model_file_digests(model.name, model.version)


def test_nothing_in_a_version_is_pickled(
    registry: Registry, run: StudyRun, weights: Weights, statistics: Statistics, study: Study, workdir: Path
) -> None:
    model = registry.register(run, weights, statistics, study, metrics={}, tags={})
    for path in model.file_digests:
        stored = _stored(workdir, model.file_digests, path)
        assert not zipfile.is_zipfile(stored)
        assert not _is_pickle(stored.read_bytes()), path


def test_a_tag_set_later_is_kept_on_the_version_in_place_of_the_earlier(
    registry: Registry, run: StudyRun, weights: Weights, statistics: Statistics, study: Study
) -> None:
    model = registry.register(run, weights, statistics, study, metrics={}, tags={})
    registry.set_tags(model.name, model.version, {"log_index": 30})
    registry.set_tags(model.name, model.version, {"log_index": 31})
    assert registry.model_tags(model.name, model.version)["log_index"] == "31"


def test_reports_become_artifacts(run: StudyRun, tmp_path: Path, workdir: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    run.log_artifact(tmp_path / "report.json")
    root = artifact_folder(workdir) / NAME / run.mlflow_run / "artifacts"
    assert (root / "report.json").is_file()


def test_a_wrong_uri_or_a_missing_model_is_one_clear_error(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tracking URI"):
        Registry("ftp://example.org", artifact_root=tmp_path)
    with pytest.raises(ConfigError, match="folder for artifacts"):
        Registry(store_uri(tmp_path), artifact_root=None)
    with pytest.raises(TransportError, match="RESOURCE_DOES_NOT_EXIST"):
        registry.model_tags("unknown", 1)


def test_importing_the_registry_loads_neither_mlflow_nor_torch() -> None:
    code = "import sys, fedhealth.registry; print(sorted({'mlflow', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_fresh_store_may_be_prepared_by_several_threads(tmp_path: Path) -> None:
    with ThreadPoolExecutor(max_workers=3) as pool:
        list(pool.map(prepare_store, [store_uri(tmp_path)] * 3))
    registry = Registry(store_uri(tmp_path), artifact_root=artifact_folder(tmp_path))
    assert registry.search(NAME) == ()


def test_telemetry_is_off(registry: Registry) -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
    assert os.environ["DO_NOT_TRACK"] == "true"


def _nudged(weights: Weights) -> Weights:
    return {name: array + np.float32(0.5) for name, array in weights.items()}


def _stored(workdir: Path, digests: object, path: str) -> Path:
    """The file of the version registered last in this test, found by its content."""
    assert isinstance(digests, dict)
    candidates = sorted(artifact_folder(workdir).rglob(path), key=lambda file: file.stat().st_mtime_ns)
    matching = [file for file in candidates if hashlib.sha256(file.read_bytes()).hexdigest() == digests[path]]
    return matching[-1]


def _is_pickle(data: bytes) -> bool:
    try:
        list(pickletools.genops(data))
    except ValueError:
        return False
    return True
