"""A site's SCAFFOLD control variate, kept in its folder from round to round: it is made of the site's own updates."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from fedhealth.aggregation.optimizers import site_control
from fedhealth.models.weights import Weights
from fedhealth.rounds.journal import write_durably
from fedhealth.rounds.progress import Progress


def own_control(folder: Path, progress: Progress, *, site: str, number: int) -> Weights:
    """The control with which a site enters a round: zeros at first, moved by every round in whose sum it was.

    Args:
      folder: of the run's controls, private to the site.
      progress: of the run.
      site: its name.
      number: the round that begins.
    """
    rounds = sorted(int(path.stem) for path in folder.glob("*.safetensors") if int(path.stem) < number)
    if not rounds:
        return {name: np.zeros_like(array) for name, array in progress.weights(number).items()}
    latest = rounds[-1]
    kept = load(_path(folder, latest).read_bytes())
    own, control, delta = ({n: kept[f"{part}.{n}"] for n in progress.weights(number)} for part in _PARTS)
    if site not in progress.aggregate_of(latest).survivors.get("update", ()):
        return own
    return site_control(control, own, delta, progress.study)


def keep_control(folder: Path, number: int, own: Weights, control: Weights, delta: Weights) -> None:
    """Remember, durably, what a round's update was made with; the next round reads it."""
    parts = {"own": own, "control": control, "delta": delta}
    tensors = {
        f"{part}.{name}": np.ascontiguousarray(a) for part, each in parts.items() for name, a in each.items()
    }
    write_durably(_path(folder, number), save(tensors))


_PARTS = ("own", "control", "delta")


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.safetensors"
