"""A study's run and its rounds in MLflow: one parent run, one nested run per round, figures as artifacts.

Everything is idempotent, as a coordinator that was killed does its last step again: a run is found again by
its tag ``fedhealth.run``, a round by ``fedhealth.round``, and what was logged before stays as it is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedhealth.registry.connection import mlflow_call

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

RUN_TAG = "fedhealth.run"
ROUND_TAG = "fedhealth.round"
LOG_INDEX_TAG = "fedhealth.log_index"
_PARENT_TAG = "mlflow.parentRunId"
_MAX_ROUNDS = 50_000  # the most that one search may return

Setting = str | int | float | bool | None
Clock = Callable[[], float]


class StudyRun:
    """One run of a study: open until `finish`.

    Guarantees: metrics are what the caller computed over the consortium; nothing is logged automatically, no
    source path, git commit or user name is recorded. A metric of None (suppressed) is left out, never zero.

    Attributes:
      experiment_id: MLflow's id of the study's experiment.
      run_id: FedHealth's id of the run.
      mlflow_run: MLflow's id of the run.
    """

    def __init__(
        self, client: "MlflowClient", *, experiment_id: str, run_id: str, mlflow_run: str, clock: Clock
    ) -> None:
        self._client = client
        self.experiment_id = experiment_id
        self.run_id = run_id
        self.mlflow_run = mlflow_run
        self._clock = clock
        self._rounds = self._find_rounds()

    def log_round(
        self,
        number: int,
        metrics: Mapping[str, float | None],
        *,
        params: Mapping[str, Setting],
        digests: Mapping[str, str],
        log_index: int,
        duration_s: float,
    ) -> str:
        """Record a finished round: a nested run, and its metrics on the parent with ``step=number``.

        Args:
          number: the round, 0 for preprocessing.
          metrics: consortium figures; None where suppressed.
          params: settings of the round, e.g. sites that took part.
          digests: hex SHA-256 of the round's objects by name; become tags ``digest.NAME``.
          log_index: where the transparency log holds the round's entry.
          duration_s: wall time of the round.

        Returns:
          MLflow's id of the nested run; that of the earlier call if this round was recorded before.

        Raises:
          TransportError: MLflow did not take it; may be retried.
        """
        if number in self._rounds:
            return self._rounds[number]
        with mlflow_call(f"record round {number}"):
            end_ms = self._now_ms()
            stamped = _metrics({**metrics, "duration_s": duration_s}, at_ms=end_ms, step=number)
            # The parent first: a retry after a crash in between finds no nested run and writes both again.
            self._client.log_batch(self.mlflow_run, metrics=stamped)
            run = self._client.create_run(
                self.experiment_id,
                start_time=end_ms - round(duration_s * 1000),
                run_name=f"round-{number:02d}",
                tags=self._round_tags(number, digests, log_index),
            )
            self._client.log_batch(run.info.run_id, metrics=stamped, params=_params(params))
            self._client.set_terminated(run.info.run_id, status="FINISHED", end_time=end_ms)
        self._rounds[number] = run.info.run_id
        return self._rounds[number]

    def log_metrics(self, metrics: Mapping[str, float | None], *, step: int | None = None) -> None:
        """Record figures of the whole run in one batch; None is left out.

        MLflow shows the value of the highest step as the run's: the default is the step after the last round.

        Raises:
          TransportError: MLflow did not take them.
        """
        with mlflow_call("record metrics"):
            final = max(self._rounds, default=-1) + 1
            stamped = _metrics(metrics, at_ms=self._now_ms(), step=final if step is None else step)
            self._client.log_batch(self.mlflow_run, metrics=stamped)

    def set_tags(self, tags: Mapping[str, Setting]) -> None:
        """Set tags of the run; an earlier value is replaced.

        Raises:
          TransportError: MLflow did not take them.
        """
        with mlflow_call("tag a run"):
            self._client.log_batch(self.mlflow_run, tags=_tags(tags))

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy one file (a report, the study's canonical JSON) to the run's artifacts.

        Raises:
          TransportError: MLflow did not take it, or the file is missing.
        """
        with mlflow_call(f"store {path.name}"):
            self._client.log_artifact(self.mlflow_run, str(path), artifact_path=folder)

    def finish(self, *, succeeded: bool) -> None:
        """Close the run as finished or failed.

        Raises:
          TransportError: MLflow did not take it.
        """
        with mlflow_call("close a run"):
            status = "FINISHED" if succeeded else "FAILED"
            self._client.set_terminated(self.mlflow_run, status=status, end_time=self._now_ms())

    def _find_rounds(self) -> dict[int, str]:
        # A nested run that is still RUNNING was cut off half-way: it is marked and its round recorded anew.
        with mlflow_call("read a run's rounds"):
            nested = self._client.search_runs(
                [self.experiment_id],
                filter_string=f"tags.`{_PARENT_TAG}` = '{self.mlflow_run}'",
                max_results=_MAX_ROUNDS,
            )
            for run in nested:
                if run.info.status != "FINISHED":
                    self._client.set_terminated(run.info.run_id, status="KILLED", end_time=self._now_ms())
        done = [run for run in nested if run.info.status == "FINISHED"]
        return {int(run.data.tags[ROUND_TAG]): run.info.run_id for run in done}

    def _round_tags(self, number: int, digests: Mapping[str, str], log_index: int) -> dict[str, str]:
        fixed = {_PARENT_TAG: self.mlflow_run, ROUND_TAG: str(number), LOG_INDEX_TAG: str(log_index)}
        return fixed | {f"digest.{name}": digest for name, digest in digests.items()}

    def _now_ms(self) -> int:
        return round(self._clock() * 1000)


def open_study_run(
    client: "MlflowClient",
    *,
    experiment_id: str,
    run_id: str,
    params: Mapping[str, Setting],
    tags: Mapping[str, Setting],
    clock: Clock,
) -> StudyRun:
    """Find the study's run by ``run_id`` or create it; parameters and tags are set when it is created.

    Raises:
      TransportError: MLflow did not answer.
    """
    with mlflow_call("open a run"):
        found = client.search_runs(
            [experiment_id], filter_string=f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1
        )
        if found:
            mlflow_run = found[0].info.run_id
            client.update_run(mlflow_run, status="RUNNING")
        else:
            own = {RUN_TAG: run_id} | {tag.key: tag.value for tag in _tags(tags)}
            created = client.create_run(
                experiment_id, start_time=round(clock() * 1000), run_name=run_id, tags=own
            )
            mlflow_run = created.info.run_id
        client.log_batch(mlflow_run, params=_params(params))
    return StudyRun(client, experiment_id=experiment_id, run_id=run_id, mlflow_run=mlflow_run, clock=clock)


def _metrics(metrics: Mapping[str, float | None], *, at_ms: int, step: int) -> "list[Metric]":
    from mlflow.entities import Metric

    known = {_metric_name(name): float(value) for name, value in metrics.items() if value is not None}
    return [Metric(name, value, at_ms, step) for name, value in known.items()]


def _metric_name(name: str) -> str:
    """A name in the signs that MLflow allows: ``age_band=80+.auroc`` is ``age_band:80 and over.auroc``."""
    return name.replace("=", ":").replace("+", " and over")


def _params(params: Mapping[str, Setting]) -> "list[Param]":
    from mlflow.entities import Param

    return [Param(name, str(value)) for name, value in params.items()]


def _tags(tags: Mapping[str, Setting]) -> "list[RunTag]":
    from mlflow.entities import RunTag

    return [RunTag(name, str(value)) for name, value in tags.items()]
