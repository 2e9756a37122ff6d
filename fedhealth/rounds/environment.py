"""What a process is told by its environment variables."""

import json
from collections.abc import Mapping

from fedhealth.config import Timeouts
from fedhealth.errors import ConfigError


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
        changed = json.loads(environ.get("FEDHEALTH_TIMEOUTS", "{}"))
        return Timeouts(**{name: float(seconds) for name, seconds in changed.items()})
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(
            "FEDHEALTH_TIMEOUTS cannot be read",
            f"write a JSON object of seconds, with the keys {', '.join(map(str, Timeouts.__slots__))}",
        ) from None
