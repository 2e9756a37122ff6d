"""The one door to MLflow: experiments, runs, registered models, and what an auditor asks of them."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedhealth.errors import ConfigError
from fedhealth.models.statistics import Statistics
from fedhealth.models.weights import Weights
from fedhealth.registry.connection import connect, mlflow_call
from fedhealth.registry.models import (
    RegisteredModel,
    file_digests,
    local_copy,
    read_study,
    read_weights,
    register_model,
)
from fedhealth.registry.runs import RUN_TAG, Clock, Setting, StudyRun, open_study_run
from fedhealth.study.spec import Study

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Lets the MLflow UI open an experiment on its training runs."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A study's run as a search returns it.

    Attributes:
      run_id: FedHealth's id of the run.
      mlflow_run: MLflow's id.
      status: MLflow's state name, e.g. ``FINISHED``.
      metrics: the last value of every metric.
      params: parameters as text.
    """

    run_id: str
    mlflow_run: str
    status: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]


class Registry:
    """MLflow under one tracking URI.

    Guarantees: no telemetry, no automatic logging, no pickled object, no global MLflow setting is changed;
    calls that are repeated after a crash add nothing twice.

    Args:
      tracking_uri: ``sqlite:///FILE``, ``postgresql://…`` or the URL of an MLflow server.
      artifact_root: folder of the artifacts; None leaves the choice to the server that the URI names.
      clock: seconds since 1970, for start and end of runs.

    Raises:
      ConfigError: the URI is of another kind, or it is no server's and ``artifact_root`` is missing.
      TransportError: the store cannot be reached.
    """

    def __init__(self, tracking_uri: str, *, artifact_root: Path | None, clock: Clock = time.time) -> None:
        if artifact_root is None and not tracking_uri.startswith("http"):
            raise ConfigError(
                "an MLflow database without a server needs a folder for artifacts", "pass artifact_root"
            )
        self._client = connect(tracking_uri)
        self._artifact_root = artifact_root
        self._clock = clock

    def start_study_run(
        self, study_name: str, run_id: str, *, params: Mapping[str, Setting], tags: Mapping[str, Setting]
    ) -> StudyRun:
        """Open the run ``run_id`` in the experiment of the study, or go on with it after a restart.

        Raises:
          TransportError: MLflow did not answer, or another value was logged for one of ``params`` before.
        """
        return open_study_run(
            self._client,
            experiment_id=self._experiment(study_name),
            run_id=run_id,
            params=params,
            tags=tags,
            clock=self._clock,
        )

    def register(
        self,
        run: StudyRun,
        weights: Weights,
        statistics: Statistics,
        study: Study,
        *,
        metrics: Mapping[str, float | None],
        tags: Mapping[str, Setting],
    ) -> RegisteredModel:
        """Register the model of a finished study as the next version of the study's name.

        The digest of every file is in the result: append them to the transparency log and record where with
        `set_tags`, so that an auditor can compare. Registering the same weights for the same run again
        returns the same version.

        Args:
          run: the study's run, which becomes the version's source.
          weights: the federated model.
          statistics: consortium statistics; their medians are the input example.
          study: gives the name, the feature names and the digest.
          metrics: the model's figures, logged on the run; None where suppressed.
          tags: further tags of the version, e.g. ``epsilon`` or ``log_index``.

        Raises:
          TransportError: MLflow did not take it; may be retried.
        """
        run.log_metrics(metrics)
        return register_model(self._client, run, weights, statistics, study, tags=tags)

    def load(self, name: str, version: int) -> "PyFuncModel":
        """Load a version as MLflow pyfunc, from a private copy of its files.

        Raises:
          TransportError: the store did not answer, or it has no such version.
          ProtocolError: a file of the version does not parse.
        """
        import mlflow.pyfunc

        with local_copy(self._client, name, version) as folder:
            model: PyFuncModel = mlflow.pyfunc.load_model(str(folder))
        return model

    def weights(self, name: str, version: int) -> Weights:
        """The weights of a version.

        Raises:
          TransportError: the store did not answer, or it has no such version.
          ProtocolError: they do not parse.
        """
        with local_copy(self._client, name, version) as folder:
            return read_weights(folder)

    def study(self, name: str, version: int) -> Study:
        """The study of a version.

        Raises:
          TransportError: the store did not answer, or it has no such version.
          ConfigError: it does not parse.
        """
        with local_copy(self._client, name, version) as folder:
            return read_study(folder)

    def model_copy(self, name: str, version: int) -> AbstractContextManager[Path]:
        """A fresh copy of a version's files, while the context lasts.

        Raises:
          TransportError: the store did not answer, or it has no such version.
        """
        return local_copy(self._client, name, version)

    def model_file_digests(self, name: str, version: int) -> dict[str, str]:
        """Hex SHA-256 of every file now stored for a version, by path; added files are in it.

        Raises:
          TransportError: the store did not answer, or it has no such version.
        """
        return file_digests(self._client, name, version)

    def model_tags(self, name: str, version: int) -> dict[str, str]:
        """All tags of a version.

        Raises:
          TransportError: the store did not answer, or it has no such version.
        """
        with mlflow_call(f"read model {name} version {version}"):
            return dict(self._client.get_model_version(name, str(version)).tags)

    def set_tags(self, name: str, version: int, tags: Mapping[str, Setting]) -> None:
        """Set tags of a version, e.g. where the log holds it; an earlier value is replaced.

        Raises:
          TransportError: MLflow did not take them.
        """
        with mlflow_call(f"tag model {name} version {version}"):
            for key, value in tags.items():
                self._client.set_model_version_tag(name, str(version), key, str(value))

    def versions(self) -> tuple[tuple[str, int], ...]:
        """Every registered version as (name, version), sorted.

        Raises:
          TransportError: the store did not answer.
        """
        with mlflow_call("list the registered models"):
            found = self._client.search_model_versions("", max_results=10_000)
        return tuple(sorted((str(each.name), int(each.version)) for each in found))

    def search(self, study_name: str, *, where: str = "", limit: int = 100) -> Sequence[RunSummary]:
        """Runs of a study, newest first, without their nested rounds.

        Args:
          study_name: the experiment; an unknown one has no runs.
          where: a filter in MLflow's search language, e.g. ``metrics.auroc > 0.7``.
          limit: the most runs to return.

        Raises:
          TransportError: the store did not answer, or ``where`` does not parse.
        """
        with mlflow_call("search runs"):
            experiment = self._client.get_experiment_by_name(study_name)
            if experiment is None:
                return ()
            own = f"tags.`{RUN_TAG}` LIKE '%'"
            filters = " and ".join(part for part in (own, where) if part)
            runs = self._client.search_runs([experiment.experiment_id], filters, max_results=limit)
        return tuple(
            RunSummary(
                run_id=run.data.tags[RUN_TAG],
                mlflow_run=run.info.run_id,
                status=run.info.status,
                metrics=dict(run.data.metrics),
                params=dict(run.data.params),
            )
            for run in runs
        )

    def _experiment(self, name: str) -> str:
        root = None if self._artifact_root is None else (self._artifact_root.resolve() / name).as_uri()
        with mlflow_call(f"open experiment {name}"):
            found = self._client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            return str(self._client.create_experiment(name, artifact_location=root, tags=_KIND))
