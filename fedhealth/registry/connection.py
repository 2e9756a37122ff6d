"""How FedHealth reaches MLflow: lazily, silently, and with one kind of error.

MLflow takes about 1.3 s to import and a fresh SQLite store 1.5 s to migrate, so nothing imports it at the
top: `prepare_store` does both, early and in a thread of its own, while other work goes on.
"""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fedhealth.errors import ConfigError, TransportError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_SQLITE = "sqlite:///"
_OPENING = threading.Lock()


def store_uri(workdir: Path) -> str:
    """Tracking URI of the SQLite store of a working directory, absolute."""
    return f"{_SQLITE}{(workdir / 'mlflow' / 'mlflow.db').resolve()}"


def choose_store(workdir: Path, asked: str | None) -> str:
    """The tracking URI of a working directory's runs: the first choice stays, in a file that only its owner reads.

    Args:
      workdir: the working directory.
      asked: the URI that a user asks for, or None.

    Raises:
      ConfigError: earlier runs of the working directory are in another store.
    """
    kept = workdir / "mlflow" / "tracking-uri"
    own = store_uri(workdir)
    if kept.exists() or (workdir / "mlflow" / "mlflow.db").exists():
        chosen = kept.read_text() if kept.exists() else own
        if asked not in (None, chosen):
            raise ConfigError(
                "the runs of this working directory are in another MLflow store than MLFLOW_TRACKING_URI names",
                "unset MLFLOW_TRACKING_URI, or name a new --workdir",
            )
        return chosen
    if asked is None or asked == own:
        return own
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept.touch(mode=0o600)  # a URI may hold a password
    kept.write_text(asked)
    return asked


def artifact_folder(workdir: Path) -> Path:
    """Folder of the artifacts that belong to `store_uri`."""
    return (workdir / "mlflow" / "artifacts").resolve()


def prepare_store(tracking_uri: str) -> None:
    """Import MLflow and bring the store's tables up to date. Safe to call again and from any thread.

    Call it in a thread as soon as a working directory is known: a fresh SQLite store costs about 3 s of
    imports and migrations, a `Registry` opened later then costs some milliseconds.

    Raises:
      ConfigError: the URI's scheme is not one that MLflow knows here, or its folder cannot be made.
      TransportError: the store or server cannot be reached.
    """
    connect(tracking_uri)


def connect(tracking_uri: str) -> "MlflowClient":
    """A client of one store, its tables up to date; touches no global setting of MLflow but telemetry.

    Raises:
      ConfigError, TransportError: as `prepare_store`.
    """
    _make_folder(tracking_uri)
    _switch_noise_off()
    with _OPENING, quiet(), mlflow_call("open the MLflow store"):
        import mlflow.pyfunc  # noqa: F401  # here, so that packing a model later costs nothing
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def mlflow_call(doing: str) -> Iterator[None]:
    """Turn what MLflow and its database raise into `TransportError` with a fix.

    MLflow's own text is kept out of the message: it quotes what was sent.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        raise TransportError(
            f"could not {doing}: MLflow answered {error.error_code}",
            "check MLFLOW_TRACKING_URI and the server",
        ) from error
    except (RequestException, SQLAlchemyError, OSError) as error:
        raise TransportError(
            f"could not {doing}: {type(error).__name__}", "check MLFLOW_TRACKING_URI, the server and the disk"
        ) from error


def _switch_noise_off() -> None:
    # Read by MLflow when it is imported and at each event; a hospital's coordinator reports to nobody.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def _make_folder(tracking_uri: str) -> None:
    scheme = tracking_uri.partition(":")[0]
    if scheme not in {"sqlite", "postgresql", "postgresql+psycopg2", "http", "https"}:
        raise ConfigError(
            "the MLflow tracking URI is neither SQLite, PostgreSQL nor HTTP",
            "set MLFLOW_TRACKING_URI to sqlite:///FILE, postgresql://… or https://…",
        )
    if not tracking_uri.startswith(_SQLITE):
        return
    folder = Path(tracking_uri.removeprefix(_SQLITE)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the MLflow folder {folder}", "choose a writable --workdir") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what is about MLflow's own code: revisions at level INFO, two warnings of its imports."""
    names = ("mlflow.pyfunc", "alembic", "alembic.runtime.migration", "mlflow.store.db.utils")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=Warning)
            warnings.filterwarnings("ignore", message=".*Any type hint is inferred", category=UserWarning)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
