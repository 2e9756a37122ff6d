"""Which parameters of a model a site keeps to itself, and which stay as they came. Patterns over names; no torch here."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import ConfigError
from fedhealth.models.weights import Weights, sorted_weights
from fedhealth.study.spec import Study

NORM = ("norm.*", "series_norm.*")
"""What fedbn keeps at a site: the affine layer behind the inputs."""


def split_personal(weights: Mapping[str, NDArray[np.float32]], study: Study) -> tuple[Weights, Weights]:
    """Part a model, or a change of one, into what travels and what stays at the site.

    Guarantees: every parameter is in exactly one part; a function of the names and the study alone, so all
    sites and the coordinator part alike.

    Args:
      weights: of the study's network.
      study: gives ``training.personal``, shell patterns of names such as ``heads.*``; fedbn adds the input norm.

    Returns:
      (shared, personal), each sorted by name.

    Raises:
      ConfigError: a pattern is that of no parameter, or nothing would be shared.

    Source: Arivazhagan et al. 2019 (personal layers); Li et al. 2021 (FedBN), with an affine layer in place of
    batch normalisation.
    """
    personal = _matching(weights, study.training.personal, key="training.personal")
    if study.training.algorithm == "fedbn":
        personal |= _matching(weights, NORM, key="", must_match=False)
    if len(personal) == len(weights):
        raise ConfigError("training.personal keeps every parameter at the site", "leave one to be shared")
    return (
        sorted_weights({name: weights[name] for name in weights if name not in personal}),
        sorted_weights({name: weights[name] for name in personal}),
    )


def frozen_names(names: Iterable[str], study: Study) -> frozenset[str]:
    """The parameters that training leaves as they are: ``training.initial.freeze``, shell patterns of names.

    Raises:
      ConfigError: a pattern is that of no parameter, or nothing would be trained.
    """
    known = tuple(names)
    frozen = _matching(known, study.training.initial.freeze, key="training.initial.freeze")
    if len(frozen) == len(known):
        raise ConfigError("training.initial.freeze leaves nothing to train", "leave one layer out of it")
    return frozenset(frozen)


def _matching(
    names: Iterable[str], patterns: Sequence[str], *, key: str, must_match: bool = True
) -> set[str]:
    known = tuple(names)
    found: set[str] = set()
    for pattern in patterns:
        hits = fnmatch.filter(known, pattern)
        if must_match and not hits:
            raise ConfigError(f"{key}: the pattern {pattern} is that of no parameter", _choices(known))
        found.update(hits)
    return found


def _choices(names: Sequence[str]) -> str:
    return f"use names such as {', '.join(sorted(names)[:3])}"
