"""A real PostgreSQL server of a test's own."""

import pytest


def start_postgres(folder):
    """The server in ``folder``, stopped and removed when the process ends; skips the test where none can run."""
    pgserver = pytest.importorskip("pgserver", reason="pgserver is not installed")
    try:
        return pgserver.get_server(folder, cleanup_mode="delete")
    except Exception as error:  # noqa: BLE001  # a missing user or system library: say which and skip
        pytest.skip(f"PostgreSQL cannot start here: {type(error).__name__}: {error}"[:300])
