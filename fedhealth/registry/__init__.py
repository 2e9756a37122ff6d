"""The registry: runs, lineage and models in MLflow. Only this package imports MLflow, when used."""

from fedhealth.registry.connection import artifact_folder, choose_store, prepare_store, store_uri
from fedhealth.registry.models import RegisteredModel
from fedhealth.registry.runs import StudyRun
from fedhealth.registry.store import Registry, RunSummary

__all__ = [
    "RegisteredModel",
    "Registry",
    "RunSummary",
    "StudyRun",
    "artifact_folder",
    "choose_store",
    "prepare_store",
    "store_uri",
]
