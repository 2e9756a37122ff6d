"""Commands as a user types them, and how one is refused."""

import os
import subprocess
import sys
from pathlib import Path

FEDHEALTH = str(Path(sys.executable).parent / "fedhealth")


def run(place, *arguments, **environment):
    dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return subprocess.run(
        [FEDHEALTH, *map(str, arguments)],
        cwd=place,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def refused(result, code, *words):
    """One line that says what and how to mend it, and no traceback."""
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("fedhealth: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.strip().splitlines()[-1] == lines[0]
    assert "Traceback" not in result.stderr + result.stdout
    assert "Fix: " in lines[0]
    for word in words:
        assert word in lines[0]
