"""train_round: a site answers every round that is open for it.

Runs on the site's own worker (FEDHEALTH_EXCHANGE, FEDHEALTH_SITE, FEDHEALTH_SITE_DIR). The coordinator starts it
once per round; prefect.yaml gives it no schedule. Started by hand with no round open it ends with "nothing open".
Killed halfway, it goes on within the open sum with the same bytes.
"""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.site.rounds import answer, find_open_manifests


@flow(name="train_round", persist_result=False)
def train_round() -> State[None]:
    """Answer all open manifests of this worker's site."""
    opened = find_open_manifests()
    if not opened:
        return Completed(name="NothingOpen", message="nothing open")
    states = [answer(run, number, return_state=True) for run, number in opened]
    outcomes = [state.result() for state in states]  # all were tried; the first that failed fails this run
    return Completed(message=", ".join(sorted(set(outcomes))))
