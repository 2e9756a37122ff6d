"""The coordinator's process in embedded runs: ``python -m flows.coordinator.process [--seed N] RUN=STUDY.yaml ...``.

It waits until the launcher has put the roster in its folder, which it does once the sites have loaded their data, runs
one study after the other, and leaves ``result.json`` or ``error.json`` in ``runs/RUN/``.
"""

import argparse
import gc
import os
import time
from pathlib import Path

from fedhealth.embedded.coordinator_process import error_to_json
from fedhealth.errors import FedHealthError
from fedhealth.registry import prepare_store
from fedhealth.rounds.journal import write_durably
from flows.coordinator.run_study import run_study
from flows.flow_runs import no_heartbeats


def main() -> int:
    """Run the studies named on the command line; the first that fails ends the process with its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("runs", nargs="+")
    arguments = parser.parse_args()
    folder = Path(os.environ["FEDHEALTH_COORDINATOR"])
    prepare_store(os.environ["MLFLOW_TRACKING_URI"])
    gc.freeze()  # what was imported stays: a full collection over it would stop a round for seconds
    _wait_for_roster(folder / "roster.json")
    for planned in arguments.runs:
        run, _, study = planned.partition("=")
        try:
            with no_heartbeats():
                run_study(study=study, run=run, seed=arguments.seed)
        except FedHealthError as error:
            write_durably(folder / "runs" / run / "error.json", error_to_json(error))
            return error.exit_code
    return 0


def _wait_for_roster(path: Path) -> None:
    """However long the sites take, unless the launcher is gone."""
    launcher = os.getppid()
    while not path.exists():
        if os.getppid() != launcher:
            raise SystemExit("the launcher ended before the sites had loaded their data")
        time.sleep(0.05)


if __name__ == "__main__":
    raise SystemExit(main())
