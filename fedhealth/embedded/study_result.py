"""What the launcher hands over, of one study, to the process that writes the report."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """Everything the report of one study is made of."""

    study: bytes
    coordinator: str
    references: tuple[dict[str, Any], ...]
    local_models: dict[str, dict[str, float | None]]
    states: dict[str, str]
    attrition: dict[str, Any]
    verified: dict[str, Any]
