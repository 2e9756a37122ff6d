"""A coordinator's run as MLflow keeps it: the study's run, its rounds, the released model and its log entry."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from fedhealth.audit.log import TransparencyLog
from fedhealth.audit.statements import DIGEST_TAG, INDEX_TAG
from fedhealth.refs import ModelRef
from fedhealth.registry.runs import StudyRun
from fedhealth.registry.store import Registry
from fedhealth.rounds.aggregate import Aggregate, read_aggregate
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.journal import write_durably
from fedhealth.rounds.objects import PREPROCESSING_ROUND, round_key, trains
from fedhealth.rounds.outcome import RoundClosed
from fedhealth.rounds.progress import Progress
from fedhealth.study.spec import Study
from fedhealth.study.words import rounds_text


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """One run in MLflow and in the coordinator's folder."""

    node: CoordinatorNode
    registry: Registry
    run: str

    @property
    def study(self) -> Study:
        """The run's study, from the exchange."""
        return self.node.study_of(self.run)

    def open(self) -> StudyRun:
        """Open the run in the experiment of its study, or go on with it."""
        study = self.study
        return self.registry.start_study_run(
            study.name,
            self.run,
            params=_flat(json.loads(study.canonical())),
            tags={"study_digest": study.digest},
        )

    def record_rounds(self) -> None:
        """Record every closed round that is not recorded yet, also one that was closed before a kill."""
        for number in count():
            if self._round_path(number).exists():
                continue
            if (closed := self.node.closed_round(self.run, number)) is None:
                return
            self._record_round(closed)

    def _record_round(self, closed: RoundClosed) -> None:
        """Log a closed round: metrics by round, digests, where the log holds it."""
        figures = _shown(closed.metrics)
        sent = sorted(closed.upload_bytes.values())
        self.open().log_round(
            closed.round,
            figures | {"upload_bytes_per_site": float(sent[len(sent) // 2]) if sent else None},
            params={
                "kind": _kind(closed),
                **{purpose: f"{len(sites)} sites" for purpose, sites in closed.survivors.items()},
            },
            digests={
                "log_root": closed.log_root,
                "model": self.node.manifest(self.run, closed.round).model_digest,
            },
            log_index=closed.log_index,
            duration_s=closed.seconds,
        )
        write_durably(self._round_path(closed.round), json.dumps(closed.to_json(), sort_keys=True).encode())

    def register(self) -> ModelRef:
        """Register the final model, log its release, tie both by tags, and leave ``result.json``."""
        study, last, progress = self.study, self.node.final_round(self.run), self.node.progress(self.run)
        opening = read_aggregate(self.node.board, self.node.name, self.run, 0)
        final = read_aggregate(self.node.board, self.node.name, self.run, last)
        run = self.open()
        privacy = self.node.account(self.run).privacy()
        model = self.registry.register(
            run,
            progress.whole(last),
            progress.statistics(),
            study,
            metrics=_finals(final.metrics),
            tags={"privacy": study.privacy.mode, "epsilon": privacy.epsilon, **_untrained(progress)},
        )
        index = self._log_release(self.node.log, f"{model.name}/{model.version}", model.file_digests, study)
        entry = self.node.log.read(index)
        self.registry.set_tags(model.name, model.version, {INDEX_TAG: index, DIGEST_TAG: entry.digest})
        self._log_quality(run)
        checkpoint = self.node.log.checkpoint()
        run.set_tags({"log_root": checkpoint.root, "log_size": checkpoint.size})
        run.set_tags({"rounds": rounds_text(last - 1, study.training.rounds)})
        if progress.trials():
            run.set_tags({"learning_rate": progress.learning_rate(last)})
        run.finish(succeeded=True)
        reference = ModelRef(name=model.name, version=str(model.version), uri=model.uri)
        self._write_result(study, final, opening.missing_columns, reference, run.mlflow_run)
        return reference

    def _log_quality(self, run: StudyRun) -> None:
        """Numbers of checks, names of those that failed, and drift, by site, as ``quality.json``."""
        path = self._folder / "quality.json"
        write_durably(path, json.dumps(self._quality(), sort_keys=True, indent=2).encode())
        run.log_artifact(path)

    def _quality(self) -> dict[str, dict[str, Any]]:
        """By site: numbers of checks by severity, names of those that failed, and ``drift``, names by severity."""
        drift = self.node.account(self.run).drift()
        return {
            site: {**each.model_dump(mode="json"), "drift": dict(drift[site].found) if site in drift else {}}
            for site, each in self.node.account(self.run).quality().items()
        }

    def _round_path(self, number: int) -> Path:
        return self._folder / f"round-{number:04d}.json"

    @property
    def _folder(self) -> Path:
        return self.node.folder / "runs" / self.run

    def _log_release(self, log: TransparencyLog, model: str, files: Mapping[str, str], study: Study) -> int:
        tags = self.registry.model_tags(*_name_version(model))
        digests = {
            name: value for name, value in tags.items() if name.endswith("digest") and name != DIGEST_TAG
        }
        return log.append_release(
            model,
            files=files,
            tags=digests,
            objects=self._made_from(),
            settings={"run": self.run, "study_digest": study.digest},
        )

    def _made_from(self) -> dict[str, str]:
        """Digests of the statistics' aggregate and of the last manifest, which names the model: an audit compares them."""
        keys = (
            round_key(self.run, 0, "aggregate"),
            round_key(self.run, self.node.final_round(self.run), "manifest"),
        )
        return {key: sha256(self.node.board.exchange.get(key)).hexdigest() for key in keys}

    def _write_result(
        self,
        study: Study,
        final: Aggregate,
        missing: tuple[str, ...],
        model: ModelRef,
        mlflow_run: str,
    ) -> None:
        rounds = sorted(self._folder.glob("round-*.json"))
        content = {
            "run": self.run,
            "study": study.name,
            "study_digest": study.digest,
            "metrics": dict(final.metrics),
            "tables": {name: [dict(row) for row in rows] for name, rows in final.tables.items()},
            "figures": self.node.account(self.run).figures(),
            "missing_columns": list(missing),
            "trials": [asdict(each) for each in self.node.progress(self.run).trials()],
            "rounds": [json.loads(path.read_bytes()) for path in rounds],
            "privacy": self.node.account(self.run).privacy().to_json(),
            "sites": self.node.account(self.run).attendance(),
            "quality": self._quality(),
            "model": {"name": model.name, "version": model.version, "uri": model.uri},
            "mlflow_run": mlflow_run,
            "blamed": self.node.blamed,
        }
        write_durably(self._folder / "result.json", json.dumps(content, sort_keys=True).encode())


def _kind(closed: RoundClosed) -> str:
    """What a round is for: the first one prepares, the last one only scores the model of the training rounds between them."""
    if closed.round == PREPROCESSING_ROUND:
        return "preprocessing"
    return "training" if trains(tuple(closed.survivors)) else "scoring"


def _name_version(model: str) -> tuple[str, int]:
    name, _, version = model.rpartition("/")
    return name, int(version)


def _untrained(progress: Progress) -> dict[str, str]:
    """A tag for a model of which sites keep a part: the registered one has that part as it was at the start."""
    personal = ", ".join(progress.personal())
    return {"personal_as_at_start": personal[:500]} if personal else {}


def _finals(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {f"final_{name}": value for name, value in _shown(metrics).items()}


def _shown(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Figures without numbers of people."""
    counts = ("n", "n_positive", "n_events")
    return {name: value for name, value in metrics.items() if name.rpartition(".")[2] not in counts}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow parameters: ``training.rounds`` and so on; empty ones are left out."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value not in (None, [], ""):
            flat[f"{prefix}{name}"] = str(value)[:500]
    return flat
