"""The evaluation of a run's final model as files of its MLflow run, where reviewers look."""

import tempfile
from pathlib import Path

from fedhealth.evaluation import Evaluation
from fedhealth.registry.record import StudyRecord
from fedhealth.reporting.evaluated import evaluation_files
from fedhealth.rounds.aggregate import read_aggregate
from fedhealth.study.targets import targets_of

FOLDER = "evaluation"


def record_evaluation(record: StudyRecord) -> tuple[str, ...]:
    """Log plots and tables of the final model under ``evaluation/``; returns their names.

    Raises:
      TransportError: MLflow did not take them.
    """
    node, study, run = record.node, record.study, record.open()
    final = read_aggregate(node.board, node.name, record.run, node.final_round(record.run))
    evaluation = Evaluation(metrics=final.metrics, tables=final.tables)
    files = evaluation_files(evaluation, targets_of(study), study.evaluation.subgroups)
    with tempfile.TemporaryDirectory() as scratch:
        for name, data in files.items():
            path = Path(scratch) / name
            path.write_bytes(data)
            run.log_artifact(path, folder=FOLDER)
    return tuple(files)
