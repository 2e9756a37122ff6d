"""What a process is told by its environment variables."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter

from fedhealth.config import Timeouts
from fedhealth.errors import ConfigError

_SECONDS = TypeAdapter(
    dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]], config=ConfigDict(strict=True)
)


def required(environ: Mapping[str, str], name: str) -> str:
    """A variable that must be there.

    Raises:
      ConfigError: it is not.
    """
    try:
        return environ[name]
    except KeyError:
        raise ConfigError(
            f"the environment variable {name} is not set", f"set {name} for this worker"
        ) from None


def timeouts_from(environ: Mapping[str, str]) -> Timeouts:
    """Timeouts, with what FEDHEALTH_TIMEOUTS changes.

    Raises:
      ConfigError: it is no JSON object of timeouts in seconds.
    """
    try:
        return Timeouts(**_SECONDS.validate_json(environ.get("FEDHEALTH_TIMEOUTS", "{}")))
    except (ValueError, TypeError):  # no such JSON; no such timeout
        raise ConfigError(
            "FEDHEALTH_TIMEOUTS cannot be read",
            f"write a JSON object of seconds, with the keys {', '.join(map(str, Timeouts.__slots__))}",
        ) from None
