"""Registered models: what is packed, how it is registered, and what an auditor compares.

A version is a folder of files: code (``pyfunc_model.py``), ``weights.safetensors``,
``statistics.safetensors``, ``study.json`` (canonical bytes: its SHA-256 is the study's digest) and MLflow's
own descriptions. Nothing in it is pickled. The digest of every file goes to the transparency log;
`file_digests` reads them back.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from fedhealth.models import weights as weights_format
from fedhealth.models.statistics import Statistics
from fedhealth.models.table import code_names, example_row, number_names, output_names
from fedhealth.models.weights import Weights
from fedhealth.registry.connection import mlflow_call, quiet
from fedhealth.registry.runs import RUN_TAG, Setting, StudyRun
from fedhealth.study.spec import Study

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model, ModelSignature
    from mlflow.tracking import MlflowClient

MODEL_DIGEST_TAG = "model_digest"
STUDY_DIGEST_TAG = "study_digest"
STATISTICS_DIGEST_TAG = "statistics_digest"
_CODE = Path(__file__).with_name("pyfunc_model.py")
_REQUIREMENTS = ("fedhealth", "mlflow", "numpy", "pandas", "safetensors", "torch")
# MLflow writes it beside a model that somebody loads from a local store by its registry name.
_LOADING_TRACE = "registered_model_meta"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One version of a model.

    Attributes:
      name: the study's name.
      version: counted from 1 by the registry.
      uri: ``models:/NAME/VERSION``.
      file_digests: hex SHA-256 of every file of the version, by path, as they were sent.
    """

    name: str
    version: int
    uri: str
    file_digests: Mapping[str, str]


def register_model(
    client: "MlflowClient",
    run: StudyRun,
    weights: Weights,
    statistics: Statistics,
    study: Study,
    *,
    tags: Mapping[str, Setting],
) -> RegisteredModel:
    """Pack a model, store it under ``run`` and register it as the next version of the study's name.

    Guarantees: a version that this run registered with the same weights before is returned instead of a
    second one. Tags always include the digests of weights, statistics and study.

    Raises:
      TransportError: MLflow did not take it.
    """
    digests = _content_digests(weights, statistics, study)
    earlier = _earlier_version(client, run, study.name, digests[MODEL_DIGEST_TAG])
    if earlier is not None:
        return _described(client, earlier)
    with mlflow_call("register the model"), tempfile.TemporaryDirectory() as scratch:
        logged = client.create_logged_model(
            run.experiment_id, name=study.name, source_run_id=run.mlflow_run, tags=digests
        )
        folder = Path(scratch) / "model"
        _pack(
            folder, _description(logged.artifact_location, logged.model_id, run), weights, statistics, study
        )
        files = digests_of_folder(folder)
        client.log_model_artifacts(logged.model_id, str(folder))
        _link_to_run(client, logged.model_id, run)
        _ensure_name(client, study)
        created = client.create_model_version(
            study.name,
            logged.artifact_location,
            run_id=run.mlflow_run,
            model_id=logged.model_id,
            tags=digests | {RUN_TAG: run.run_id} | {name: str(value) for name, value in tags.items()},
        )
    return _registered(created, files)


def file_digests(client: "MlflowClient", name: str, version: int) -> dict[str, str]:
    """Hex SHA-256 of every file that the store now holds for a version, by path.

    Files that were added since are in it too: the caller compares whole mappings.

    Raises:
      TransportError: the store did not answer, or it has no such version.
    """
    with local_copy(client, name, version) as folder:
        return digests_of_folder(folder)


@contextmanager
def local_copy(client: "MlflowClient", name: str, version: int) -> Iterator[Path]:
    """A fresh copy of a version's files, so that reading leaves no trace in the store.

    Raises:
      TransportError: the store did not answer, or it has no such version.
    """
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as scratch:
        with mlflow_call(f"read model {name} version {version}"):
            location = client.get_model_version_download_uri(name, str(version))
            folder = download_artifacts(
                artifact_uri=location, dst_path=scratch, tracking_uri=client.tracking_uri
            )
        yield Path(folder)


def read_weights(folder: Path) -> Weights:
    """The weights in a version's folder.

    Raises:
      ProtocolError: they do not parse.
    """
    return weights_format.from_bytes((folder / "artifacts" / "weights.safetensors").read_bytes())


def read_study(folder: Path) -> Study:
    """The study in a version's folder.

    Raises:
      ConfigError: it does not parse.
    """
    return Study.from_canonical((folder / "artifacts" / "study.json").read_bytes())


def digests_of_folder(folder: Path) -> dict[str, str]:
    """Hex SHA-256 of every file under a folder, by POSIX path, without MLflow's trace of a loading."""
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    files.pop(_LOADING_TRACE, None)
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def _content_digests(weights: Weights, statistics: Statistics, study: Study) -> dict[str, str]:
    return {
        MODEL_DIGEST_TAG: weights_format.digest(weights),
        STATISTICS_DIGEST_TAG: hashlib.sha256(statistics.to_bytes()).hexdigest(),
        STUDY_DIGEST_TAG: study.digest,
    }


def _pack(folder: Path, model: "Model", weights: Weights, statistics: Statistics, study: Study) -> None:
    """Write the model folder; explicit requirements: inferring them starts a process."""
    import mlflow.pyfunc

    source = folder.parent
    contents = {
        "weights": ("weights.safetensors", weights_format.to_bytes(weights)),
        "statistics": ("statistics.safetensors", statistics.to_bytes()),
        "study": ("study.json", study.canonical()),
    }
    for file_name, data in contents.values():
        (source / file_name).write_bytes(data)
    signature, example = _interface(statistics, study)
    with quiet():
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(_CODE),
            artifacts={name: str(source / file_name) for name, (file_name, _) in contents.items()},
            mlflow_model=model,
            signature=signature,
            input_example=example,
            pip_requirements=[f"{package}=={installed_version(package)}" for package in _REQUIREMENTS],
        )
    # A file where Python would keep bytecode: loading the model writes none, and none can be planted unseen.
    (folder / "__pycache__").write_text("Keeps Python from writing bytecode beside the model's code.\n")


def _interface(statistics: Statistics, study: Study) -> "tuple[ModelSignature, pd.DataFrame]":
    """Signature and input example: the consortium's medians, which are nobody's row."""
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    numbers, codes, outputs = number_names(study), code_names(study), output_names(study)
    kinds = dict.fromkeys(numbers, DataType.double) | dict.fromkeys(codes, DataType.string)
    inputs = Schema([ColSpec(kind, name) for name, kind in kinds.items()])
    if len(outputs) == 1:
        scores = Schema([TensorSpec(np.dtype(np.float32), (-1,))])
    else:
        scores = Schema(list[ColSpec | TensorSpec](ColSpec(DataType.float, name) for name in outputs))
    # Names as objects: MLflow compares columns with a range, which pandas deprecates for Arrow strings.
    example = pd.DataFrame(example_row(study, statistics))
    example.columns = pd.Index([*numbers, *codes], dtype=object)
    return ModelSignature(inputs=inputs, outputs=scores), example


def _description(location: str, model_id: str, run: StudyRun) -> "Model":
    from mlflow.models import Model

    return Model(artifact_path=location, run_id=run.mlflow_run, model_uuid=model_id, model_id=model_id)


def _link_to_run(client: "MlflowClient", model_id: str, run: StudyRun) -> None:
    from mlflow.entities import LoggedModelOutput

    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(run.mlflow_run, [LoggedModelOutput(model_id, step=0)])


def _ensure_name(client: "MlflowClient", study: Study) -> None:
    if not client.search_registered_models(filter_string=f"name = '{study.name}'"):
        client.create_registered_model(study.name, description=study.title)


def _earlier_version(
    client: "MlflowClient", run: StudyRun, name: str, model_digest: str
) -> "ModelVersion | None":
    with mlflow_call("look for an earlier registration"):
        versions = client.search_model_versions(f"name = '{name}'")
    mine = [
        v for v in versions if v.run_id == run.mlflow_run and v.tags.get(MODEL_DIGEST_TAG) == model_digest
    ]
    return mine[0] if mine else None


def _described(client: "MlflowClient", version: "ModelVersion") -> RegisteredModel:
    return _registered(version, file_digests(client, version.name, int(version.version)))


def _registered(version: "ModelVersion", files: Mapping[str, str]) -> RegisteredModel:
    uri = f"models:/{version.name}/{version.version}"
    return RegisteredModel(name=version.name, version=int(version.version), uri=uri, file_digests=files)
