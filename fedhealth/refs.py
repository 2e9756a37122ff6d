"""References that travel between tasks: ids and numbers, never data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoundRef:
    """A round of a run."""

    run: str
    number: int


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A registered model."""

    name: str
    version: str
    uri: str
