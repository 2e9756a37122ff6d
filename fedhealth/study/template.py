"""A commented study to start from: what it writes out runs as it is, and every key of the language stands in it."""

import re
from importlib.resources import files

from fedhealth.errors import ConfigError

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def study_template(name: str) -> str:
    """The text of a study file.

    Args:
      name: of the study.

    Raises:
      ConfigError: no name of a study.
    """
    if not _NAME.fullmatch(name) or len(name) > 64:
        raise ConfigError(
            f"{name!r} is no name of a study", "use small letters, digits and single hyphens: readmission-30d"
        )
    text = files("fedhealth.study").joinpath("template.yaml").read_text(encoding="utf-8")
    return text.replace("name: NAME", f"name: {name}", 1)
