"""The patient boundary of a site's worker: what an orchestrator may hear of a failure.

An orchestrator stores exception texts and chains. Libraries quote values in theirs; so everything but our
own errors is replaced, and even ours lose their chain and notes. Details go to the site's own log file.
"""

import functools
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from fedhealth.errors import DataError, FedHealthError

P = ParamSpec("P")
T = TypeVar("T")


def at_the_boundary(function: Callable[P, T]) -> Callable[P, T]:
    """Let only FedHealth's own errors out, without cause, context or the frames' variables."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except FedHealthError as error:
            _note(traceback.format_exc())
            outward: FedHealthError = error.for_outside()
        except Exception:  # noqa: BLE001 - the process edge: the text may quote a value
            _note(traceback.format_exc())
            outward = DataError(
                f"{function.__name__} failed at this site", "see site.log in the site's folder"
            )
        raise outward

    return guarded


def _note(text: str) -> None:
    """Write to the site's own log file, readable by the site alone."""
    folder = os.environ.get("FEDHEALTH_SITE_DIR")
    if folder is None:
        logging.getLogger("fedhealth.site").error("a site step failed and FEDHEALTH_SITE_DIR is not set")
        return
    path = Path(folder) / "site.log"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(text)
