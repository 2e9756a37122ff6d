"""What is built: everything else that the study language can say is refused with one line.

Each row names a key and the values that work today. A default that is not acted upon yet still loads
(`DEFAULTS_ONLY`; docs/reference/study.md lists them); any other value of such a key is refused, so that
nobody signs a study for something that would silently not happen.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

from fedhealth.errors import ConfigError

if TYPE_CHECKING:
    from fedhealth.study.spec import Study


@dataclass(frozen=True, slots=True)
class Built:
    """A key and the values of it that are built."""

    key: str
    values: tuple[object, ...]


BUILT = (
    Built("model.kind", ("linear", "mlp", "lstm", "multitask", "gbm", "cox")),
    Built(
        "training.algorithm",
        ("fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad", "fedbn"),
    ),
    Built("training.weighting", ("examples", "uniform")),
    Built("privacy.mode", ("local", "none")),
    Built("privacy.allocation", ("constant",)),
    Built("privacy.engine", ("auto", "opacus")),
    Built("privacy.linkage_factor", (1,)),
    Built("privacy.reinitialise", ("never",)),
    Built("aggregation.mode", ("masks", "he", "plain")),
    Built(
        "aggregation.robust",
        (
            "none",
            "plausibility",
            "groups",
            "median",
            "trimmed_mean",
            "krum",
            "multi_krum",
            "geometric_median",
            "centred_clipping",
        ),
    ),
    Built("evaluation.min_cell", (11,)),
)
"""Keys of which only some values are built."""

DEFAULTS_ONLY = (
    "release",
    "schedule",
    "erasure",
)
"""Keys that load with their default only: nothing acts upon them yet."""


def built_values(key: str) -> str:
    """The values of a key that are built, as a fix says them; empty if all that the language knows are."""
    return next((_choice(row.values) for row in BUILT if row.key == key), "")


def refuse_unbuilt(study: "Study") -> None:
    """Refuse a study that asks for something that is not built.

    Raises:
      ConfigError: one line with the key, and the values that are built.
    """
    for row in BUILT:
        _refuse(study, row.key, row.values)
    for key in DEFAULTS_ONLY:
        _refuse(study, key, (_default(type(study), key),))
    if study.model.kind != "lstm" and study.features.series != _default(type(study), "features.series"):
        raise ConfigError("features.series is read by model.kind lstm alone", "remove it, or use an lstm")


def _refuse(study: "Study", key: str, values: tuple[object, ...]) -> None:
    asked: object = study
    for part in key.split("."):
        asked = getattr(asked, part)
    if asked not in values:
        raise ConfigError(f"{key}: this value is not built", f"use {_choice(values)}")


def _default(model: type[BaseModel], key: str) -> object:
    first, *rest = key.split(".")
    value: object = model.model_fields[first].default
    for part in rest:
        value = getattr(value, part)
    return value


def _choice(values: tuple[object, ...]) -> str:
    return " or ".join(map(_written, values))


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, BaseModel):
        return "its default"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
