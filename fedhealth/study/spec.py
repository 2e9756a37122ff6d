"""The study: one strict, frozen document that says everything, its canonical bytes and its digest."""

import hashlib
import json
from collections.abc import Hashable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import rfc8785
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from fedhealth.errors import ConfigError
from fedhealth.study.built import refuse_unbuilt
from fedhealth.study.explain import Unfit, explain
from fedhealth.study.features import Features
from fedhealth.study.fit import check_aggregation, misfit
from fedhealth.study.language import (
    Aggregation,
    Cohort,
    Evaluation,
    Initial,
    Model,
    Name,
    Prediction,
    Privacy,
    Release,
    Schedule,
    Section,
    Split,
    Training,
)
from fedhealth.study.outcomes import Outcome

StudyName = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]


_OF_GRADIENTS = ("local", "optimizer", "batch_size", "weighting")
"""The keys of ``training`` that mean nothing to a model that grows by sums."""


class Study(Section):
    """A study. Equal studies have equal canonical bytes and digests, whatever their files looked like.

    Outcomes stand in the order of their names, as in the canonical form: the file's order means nothing.
    """

    schema_version: Literal[1]
    name: StudyName
    title: str = Field(default="", max_length=200)
    cohort: Cohort = Cohort()
    prediction: Prediction = Prediction()
    outcomes: Annotated[dict[Name, Outcome], Field(min_length=1)]
    features: Features = Features()
    split: Split = Split()
    model: Model = Model()
    training: Training = Training()
    privacy: Privacy = Privacy()
    aggregation: Aggregation = Aggregation()
    evaluation: Evaluation = Evaluation()
    release: Release = Release()
    schedule: Schedule = Schedule()
    erasure: Literal["keep", "retrain"] = "retrain"

    @field_validator("outcomes", mode="after")
    @classmethod
    def _by_name(cls, outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
        return dict(sorted(outcomes.items()))

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.model.kind in ("gbm", "cox") and self.privacy.mode != "none":
            raise ValueError(f"model.kind {self.model.kind} needs privacy.mode none: its loss is not noised")
        if self.model.kind == "lstm" and self.features.series.preset is None:
            raise ValueError("model.kind lstm needs features.series: it reads them step by step")
        if self.split.stratify and self.privacy.mode != "none":
            raise ValueError("split.stratify needs privacy.mode none: strata would tell the labels")
        by_groups = self.aggregation.robust == "groups"
        if by_groups and self.features.categories and self.privacy.mode == "none":
            raise Unfit(
                "aggregation.robust groups with features.categories: one site alone of a group may have a code",
                "set privacy.mode to local, or aggregation.robust to none",
            )
        if problem := misfit(self.cohort, self.prediction, self.outcomes, self.split):
            raise ValueError(problem)
        check_aggregation(
            self.aggregation, self.privacy, model=self.model.kind, algorithm=self.training.algorithm
        )
        return self

    @model_validator(mode="after")
    def _stepwise_models_fit(self) -> Self:
        kinds = tuple(outcome.kind for outcome in self.outcomes.values())
        if self.model.kind == "gbm" and (len(kinds) > 1 or kinds[0] in ("survival", "disposition")):
            raise ValueError("model.kind gbm needs one outcome, a yes or no or a number")
        if self.model.kind == "cox" and kinds != ("survival",):
            raise ValueError("model.kind cox needs one outcome, of kind survival")
        training = self.training
        if self.model.kind in ("gbm", "cox") and (
            training.algorithm != "fedavg"
            or training.personal
            or training.search.lr
            or training.fine_tune.epochs is not None
            or training.initial != Initial()
        ):
            raise ValueError(
                f"model.kind {self.model.kind} grows by sums: "
                "it has no other algorithm, personal parameters, search, fine_tune or initial model"
            )
        plain = Training(rounds=training.rounds)
        idle = [k for k in _OF_GRADIENTS if getattr(training, k) != getattr(plain, k)]
        if self.model.kind in ("gbm", "cox") and idle:
            raise ValueError(f"model.kind {self.model.kind} grows by sums: remove training.{', '.join(idle)}")
        if self.model.kind == "cox" and training.early_stopping.patience is not None:
            raise ValueError(
                "model.kind cox needs all its rounds: the last one closes, so it cannot stop early"
            )
        if self.model.kind == "cox" and self.training.rounds < 3:
            raise ValueError("model.kind cox needs three training.rounds: one counts, one fits, one closes")
        return self

    @model_validator(mode="after")
    def _scaling_is_accounted_for(self) -> Self:
        if self.features.standardise == "site" and self.privacy.mode != "none":
            raise ValueError(
                "features.standardise site needs privacy.mode none: a site's own moments are not noised"
            )
        return self

    @model_validator(mode="after")
    def _compression_fits(self) -> Self:
        aggregation, training = self.aggregation, self.training
        if aggregation.compresses and training.initial.freeze:
            raise Unfit(
                "training.initial.freeze with aggregation.ring_bits under 32: rounding moves every parameter",
                "set aggregation.ring_bits to 32",
            )
        if aggregation.sent_share == 1.0:
            return self
        if self.privacy.mode != "none":
            raise Unfit(
                "aggregation.sent_share needs privacy.mode none: what is sent later is not noised",
                "set aggregation.sent_share to 1.0",
            )
        if training.search.lr or training.algorithm == "scaffold":
            raise Unfit(
                "aggregation.sent_share goes with neither training.search nor scaffold: sites remember what they owe",
                "set aggregation.sent_share to 1.0",
            )
        return self

    @property
    def outcome_name(self) -> str:
        """Key of the study's first outcome."""
        return next(iter(self.outcomes))

    @property
    def outcome(self) -> Outcome:
        """The study's first outcome, for what needs one."""
        return self.outcomes[self.outcome_name]

    @property
    def validation(self) -> float:
        """The share of patients outside the test fold on whom the rounds before the last are scored; 0: on the test fold."""
        if self.split.validation is not None:
            return self.split.validation
        training = self.training
        return 0.15 if training.search.lr or training.early_stopping.patience is not None else 0.0

    def at_rate(self, learning_rate: float) -> "Study":
        """The same study with another learning rate of the sites: what one of its rounds trains by, nothing to sign."""
        optimizer = self.training.optimizer.model_copy(update={"lr": learning_rate})
        training = self.training.model_copy(update={"optimizer": optimizer})
        return self.model_copy(update={"training": training})

    def canonical(self) -> bytes:
        """The RFC 8785 form with defaults written out: what is hashed, signed and approved."""
        data: bytes = rfc8785.dumps(self.model_dump(mode="json"))
        return data

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of `canonical`."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def from_canonical(cls, data: bytes) -> Self:
        """Parse `canonical` bytes.

        Raises:
          ConfigError: not a study of this version, not in its canonical form, or one that asks for what
            is not built.
        """
        study = cls._from_json(data, "the study")
        if study.canonical() != data:
            raise ConfigError("the study is not in its canonical form", "send study.canonical() unchanged")
        return study

    @classmethod
    def _from_json(cls, data: bytes, where: str) -> Self:
        try:
            study = cls.model_validate_json(data)
        except ValidationError as error:
            problem, fix = explain(error, cls)
            raise ConfigError(f"{where}: {problem}", fix) from None
        refuse_unbuilt(study)
        return study


def load_study(path: Path | str) -> Study:
    """Read a study file.

    Returns:
      The study, with defaults filled in.

    Raises:
      ConfigError: no such file, not YAML, an unknown key or value, or one that is not built: one line with
        the key's path and one fix.
    """
    file = Path(path)
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"the study file {file} cannot be read", "give the path of a YAML file") from None
    except yaml.YAMLError as error:
        problem = f"the study file {file} is not valid YAML{_place(error)}"
        raise ConfigError(problem, "correct its syntax") from None
    if not isinstance(data, dict):
        raise ConfigError(f"the study file {file} is no mapping of keys", "start from one in infra/studies")
    return Study._from_json(_as_json(data, file), f"the study {file.name}")


def _as_json(data: object, file: Path) -> bytes:
    try:
        return json.dumps(data, allow_nan=False).encode()
    except (TypeError, ValueError):
        raise ConfigError(
            f"the study file {file} holds a value that is no text, finite number, list or mapping",
            "put dates in quotes and write finite numbers",
        ) from None


class _UniqueKeys(yaml.SafeLoader):
    """A SafeLoader that refuses a key written twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, _TWICE, node.start_mark)
        return super().construct_mapping(node, deep=deep)


_TWICE = "a key stands twice in one mapping"


def _place(error: yaml.YAMLError) -> str:
    """Where the syntax breaks, without quoting the file."""
    mark = getattr(error, "problem_mark", None)
    where = f" near line {mark.line + 1}" if mark is not None else ""
    return where + (f": {_TWICE}" if getattr(error, "problem", None) == _TWICE else "")
